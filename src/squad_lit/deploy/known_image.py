"""Images that a model knows already, by the content of their files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from squad_lit.dataset.image import MASK_FOLDERS, MASK_SUFFIXES
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
    """The digests of the images but those that the model knows, whose scores are too low for a threshold.

    Of files with the same content one is left, because an image must not count twice.
    """
    known, found = set(known), digests(good)
    first: dict[str, Path] = {}
    for path in good:
        first.setdefault(found[path], path)
    new = {path: found[path] for path in first.values() if found[path] not in known}
    if good and not new:
        raise ValueError(f"the model was trained on all {len(good)} good images; give it new ones")
    note(skipped, [path for path in good if found[path] in known], len(good), "which the model was trained on")
    copies = [path for path in good if path not in new and found[path] not in known]
    note(skipped, copies, len(good), "which are there twice")
    return new


def without_masks(paths: Sequence[Path]) -> list[Path]:
    """The images but the masks of others: those in a folder of masks, or beside their image with ``_mask`` added."""

    def lies_in_masks(path: Path) -> bool:
        return not {path.parent.name, path.parent.parent.name}.isdisjoint(MASK_FOLDERS)

    images = [path for path in paths if not lies_in_masks(path)]
    beside = {path.with_name(path.stem + suffix) for path in images for suffix in MASK_SUFFIXES if suffix}
    stems = {path.stem + suffix for path in images for suffix in MASK_SUFFIXES}
    return [p for p in paths if (p.stem not in stems if lies_in_masks(p) else p.with_suffix("") not in beside)]


def note(skipped: list[str], paths: Sequence[Path], total: int, why: str) -> None:
    """Add a line that names the images that are left out, if there are any."""
    if paths:
        skipped.append(f"{len(paths)} of {total} good images, {why}: {listed(paths)}")


def listed(paths: Sequence[Path]) -> str:
    """The names of the first files, and how many there are besides."""
    more = f" and {len(paths) - _LISTED:,} more" if len(paths) > _LISTED else ""
    return ", ".join(path.name for path in paths[:_LISTED]) + more
