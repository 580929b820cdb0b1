"""Images that a model knows already, by the content of their files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from squad_lit.system.file import digest

# Names of files that a line lists.
_LISTED = 20


def digests(paths: Sequence[Path]) -> dict[Path, str]:
    """What identifies the content of each file; of one that cannot be read, its path, which is named later."""

    def identify(path: Path) -> str:
        try:
            return digest(path)
        except OSError:
            return str(path)

    return {path: identify(path) for path in paths}


def without(good: Sequence[Path], known: Iterable[str], skipped: list[str]) -> dict[Path, str]:
    """The digests of the images but those that the model knows, whose scores are too low for a threshold."""
    known, found = set(known), digests(good)
    new = {path: found[path] for path in good if found[path] not in known}
    if good and not new:
        raise ValueError(f"the model was trained on all {len(good)} good images; give it new ones")
    note(skipped, [path for path in good if found[path] in known], len(good), "which the model was trained on")
    return new


def note(skipped: list[str], paths: Sequence[Path], total: int, why: str) -> None:
    """Add a line that names the images that are left out, if there are any."""
    if paths:
        skipped.append(f"{len(paths)} of {total} good images, {why}: {listed(paths)}")


def listed(paths: Sequence[Path]) -> str:
    """The names of the first files, and how many there are besides."""
    more = f" and {len(paths) - _LISTED:,} more" if len(paths) > _LISTED else ""
    return ", ".join(path.name for path in paths[:_LISTED]) + more
