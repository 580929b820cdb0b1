"""Free memory against psutil, and within the limit of a container."""

from pathlib import Path

import psutil
import pytest

from squad_lit.system import memory
from squad_lit.system.memory import free_memory


def test_it_is_what_the_system_says() -> None:
    found = free_memory()
    assert 0 < found <= psutil.virtual_memory().total
    assert found <= 1.2 * psutil.virtual_memory().available


@pytest.mark.parametrize("inside", [False, True])
def test_a_container_has_what_its_limit_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: bool) -> None:
    lines = Path("/proc/self/cgroup")
    if not lines.is_file():
        pytest.skip("the system has no control groups")
    place = lines.read_text().splitlines()[-1].split(":", 2)[2]
    folder = tmp_path if inside else tmp_path / place.lstrip("/")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "limit").write_text("5000\n")
    (folder / "used").write_text("3000\n")
    (folder / "memory.stat").write_text("anon 2000\ninactive_file 700\nactive_file 300\n")
    kinds = {line.split(":")[1] for line in lines.read_text().splitlines()}
    monkeypatch.setattr(memory, "_GROUPS", dict.fromkeys(kinds, (tmp_path, "limit", "used", "inactive_file")))
    assert free_memory() == 5000 - 3000 + 700
    (folder / "limit").write_text("max\n")
    assert free_memory() > 5000
