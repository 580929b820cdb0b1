"""What the names of folders say of images that were judged: good, or which kind of defect."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from squad_lit.dataset.sample import NORMAL

_GOOD = {NORMAL, "ok", "normal", "io", "pass", "passed"}
_BAD = {"nok", "ko", "ng", "nio", "bad", "defect", "defects", "defective", "anomaly", "anomalies", "anomalous"}
_BAD |= {"fail", "failed", "reject", "rejected", "scrap"}


def truth_of(paths: Sequence[str]) -> list[tuple[str, int | None]]:
    """Kind and label of images, by the folder that they are in, or the one around it.

    A folder such as ``good`` or ``OK`` has normal images, and one such as ``NOK`` or ``defect`` anomalous ones, in any
    of its folders. A folder with another name has a kind of defect if one with normal images lies beside it.

    Args:
        paths: The files.

    Returns:
        For each file the kind of defect (``good`` for a normal one, empty if it is not known), and 1 for an anomalous
        image, 0 for a normal one and None for one of which nobody has said it.

    Example:
        >>> truth_of(["a/OK/1.png", "a/scratch/1.png", "b/1.png", "NOK/dent/1.png"])
        [('good', 0), ('scratch', 1), ('', None), ('dent', 1)]
    """
    folders = [Path(path).parent for path in paths]
    beside_good = {folder.parent for folder in folders if folder.name.lower() in _GOOD}
    found: list[tuple[str, int | None]] = []
    for folder in folders:
        near = [folder.name.lower(), folder.parent.name.lower()]
        if near[0] in _GOOD or (near[0] not in _BAD and near[1] in _GOOD):
            found.append((NORMAL, 0))
        elif near[0] in _BAD or near[1] in _BAD or folder.parent in beside_good:
            found.append((folder.name, 1))
        else:
            found.append(("", None))
    return found
