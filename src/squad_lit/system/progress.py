"""Progress: a bar in a terminal, and a line now and then in a file."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

# Seconds before the first line in a file, and between two.
_EVERY = 30.0


def progress(iterable: Iterable[Any] | None = None, **options: Any) -> Any:
    """A bar of ``tqdm`` on standard error.

    Where that is no terminal but a file or a pipe, a task that takes longer than half a minute writes whole lines, one
    in half a minute, without the control characters that move a cursor.

    Args:
        iterable: What is counted while it is iterated over; None: the caller counts with ``update``.
        options: Those of ``tqdm``.

    Raises:
        ImportError: ``tqdm`` is not installed.
    """
    from tqdm import tqdm

    # A notebook shows bars, although it is no terminal.
    if not sys.stderr.isatty() and "ipykernel" not in sys.modules:
        rare = dict.fromkeys(("delay", "mininterval", "maxinterval"), _EVERY)
        form = "{desc}: {percentage:.0f} % {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
        # In the first row: tqdm moves the cursor to the others.
        options |= {"file": _Lines(), "position": 0, "bar_format": form, **rare}
    return tqdm(iterable, **options)


def bar_of(items: Sequence[Any], **options: Any) -> Iterable[Any]:
    """The items, with a bar if ``tqdm`` is installed; an exported model runs without it."""
    try:
        shown: Iterable[Any] = progress(items, **options)
    except ImportError:
        return items
    return shown


class _Lines(io.TextIOBase):
    """Standard error, to which whole lines are written in the place of lines that replace each other."""

    def write(self, text: str) -> int:
        for line in re.split(r"[\r\n]", text):
            if line.strip():
                sys.stderr.write(f"{line.rstrip()}\n")
                sys.stderr.flush()
        return len(text)
