"""Something wrong with a data set, in words; many of one kind are one problem."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

# More problems of one kind in a folder than this are reported together, with so many names for an error or a warning.
_ALONE = 3
_NAMES = {True: 20, False: 3}


@dataclass(frozen=True)
class Problem:
    """Something wrong with a file.

    Args:
        path: The file, or the folder of several.
        text: What is wrong with it.
        is_error: True if a training or a metric cannot be trusted with it; False for a warning.
        kind: What problems that are reported together have in common; empty if that is ``text``.
    """

    path: Path
    text: str
    is_error: bool = True
    kind: str = ""

    @classmethod
    def of_error(cls, path: Path, error: Exception) -> Self:
        """The problem of a file that cannot be read; its path, which stands before the text, is not repeated."""
        return cls(path, re.sub(f" '?{re.escape(str(path))}'?", "", str(error)))

    def __str__(self) -> str:
        return f"{'error' if self.is_error else 'warning'}: {self.path}: {self.text}"


def together(problems: Iterable[Problem]) -> list[Problem]:
    """The problems, errors first, by path. Many of one kind in a folder become one, which names some of the files."""
    alike: dict[tuple[bool, Path, str], list[Problem]] = {}
    for problem in sorted(set(problems), key=lambda p: (not p.is_error, str(p.path), p.text)):
        alike.setdefault((problem.is_error, problem.path.parent, problem.kind or problem.text), []).append(problem)
    found: list[Problem] = []
    for (is_error, folder, kind), group in alike.items():
        names = list(dict.fromkeys(problem.path.name for problem in group))
        if len(names) <= _ALONE:
            found += group
            continue
        shown = names[: _NAMES[is_error]]
        more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
        found.append(Problem(folder, f"{len(names)} files: {kind}: {', '.join(shown)}{more}", is_error))
    return sorted(found, key=lambda p: (not p.is_error, str(p.path)))
