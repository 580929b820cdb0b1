"""How much memory there is for more."""

from __future__ import annotations

import math
import re
from pathlib import Path

# Files of a control group, which limits a container: its limit, its use, and what of that is only a cache of files.
_GROUPS = {
    "": (Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"),  # version 2
    "memory": (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def free_memory() -> float:
    """Bytes that this process can still take without harm to others, within the limits of its container.

    Infinity where nothing says it: without psutil, which an exported model does not need, on another system than Linux.
    """
    return min(_of_the_system(), _of_the_container())


def _of_the_system() -> float:
    try:
        return 1024 * int(re.search(r"MemAvailable:\s*(\d+)", Path("/proc/meminfo").read_text())[1])  # type: ignore[index]
    except (OSError, TypeError):  # not Linux
        try:
            import psutil
        except ImportError:
            return math.inf
        return float(psutil.virtual_memory().available)


def _of_the_container() -> float:
    free = math.inf
    try:
        groups = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return free
    for line in groups:
        _, controllers, place = line.split(":", 2)
        if controllers not in _GROUPS:
            continue
        root, limit, used, cached = _GROUPS[controllers]
        for folder in (root / place.lstrip("/"), root):  # inside of a container, its own group is the root
            try:
                # "max" is no number, and no limit
                room = int((folder / limit).read_text()) - int((folder / used).read_text())
                cache = re.search(rf"^{cached} (\d+)", (folder / "memory.stat").read_text(), re.MULTILINE)
            except (OSError, ValueError):
                continue
            free = min(free, room + (int(cache[1]) if cache else 0))
    return max(0, free)
