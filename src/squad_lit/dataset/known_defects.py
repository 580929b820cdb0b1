"""Images of known defects that a training may learn from: ``dataset.known_defects``."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from squad_lit.dataset.duplicates import alike, thumbnail
from squad_lit.dataset.image import MASK_FOLDERS, MASK_SUFFIXES, list_folders, list_images, pair_masks
from squad_lit.dataset.sample import Sample
from squad_lit.image.file import read_pixels
from squad_lit.system.file import digest

_MEANINGLESS = "figures on what was learned would mean nothing: remove them from one of the folders"
# Normal images beside which copies are looked for; without them, nothing could be said of a few defects.
_BACKGROUND = 32


def scan_known_defects(folder: Path, category: str) -> list[Sample]:
    """The images directly in a folder, and those in its sub-folders, one per kind of defect.

    A mask is optional. It has the stem of its image, and lies beside it, with ``_mask``, ``_gt`` or ``_GT`` added. Or
    it lies in a folder ``ground_truth`` or ``masks``, which is in the folder, beside it or, as MVTec AD has it, beside
    its parent, or there in a folder that is named as that of the image.

    Args:
        folder: The folder.
        category: What the samples are of.

    Raises:
        FileNotFoundError: There is no folder, or no image in it.
        ValueError: An image has several masks, or a mask several images.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"dataset.known_defects: no folder {folder}")
    kinds = [folder, *(place for place in list_folders(folder) if place.name not in MASK_FOLDERS)]
    samples = []
    for place in kinds:
        files = list_images(place)
        beside = {path: mask for path in files if (mask := _beside(path, files))}
        images = [path for path in files if path not in beside.values()]
        found = dict(beside)
        for root in dict.fromkeys((folder, place.parent, place.parent.parent)):
            for masks in (root / name for name in MASK_FOLDERS):
                inner = masks / place.name
                found = pair_masks(images, inner if inner.is_dir() else masks) | found
        samples += [Sample(path, category, place.name, 1, found.get(path)) for path in images]
    if not samples:
        raise FileNotFoundError(f"dataset.known_defects: no images in {folder}, nor in its folders")
    return samples


def _beside(path: Path, files: Sequence[Path]) -> Path | None:
    """The mask of an image in its own folder."""
    found = [mask for mask in files if mask.stem in {path.stem + suffix for suffix in MASK_SUFFIXES if suffix}]
    if len(found) > 1:
        raise ValueError(f"several masks for {path}: {', '.join(map(str, found))}; keep one of them")
    return found[0] if found else None


def check_apart(
    known: Sequence[Sample],
    normal: Sequence[Sample],
    test: Sequence[Sample],
    intensity_range: Sequence[float] | None = None,
) -> None:
    """Refuse known defects that are test images, on which nothing may be learned, or normal ones, by their content.

    A test image is also found if it was saved again, in another format or size, by
    :func:`squad_lit.dataset.duplicates.alike`. Only defective ones are compared so: a part before and after it was
    damaged may look the same.

    Args:
        known: The known defects.
        normal: The normal images of the training.
        test: The test images.
        intensity_range: See :func:`squad_lit.image.file.read_pixels`.

    Raises:
        ValueError: Names them.
    """
    if not known:  # each file is read here
        return
    by_digest = {digest(sample.image_path): sample.image_path for sample in known}
    for what, todo, samples in (
        ("test images", _MEANINGLESS, test),
        ("normal training images", "no part is both good and defective: remove them from one of the folders", normal),
    ):
        there = (path for sample in samples if (path := sample.image_path).is_file())
        _refuse([(by_digest[found], path) for path in there if (found := digest(path)) in by_digest], "is", what, todo)
    defects = [path for sample in test if sample.label and (path := sample.image_path).is_file()]
    if defects:
        images = [sample.image_path for sample in known]
        some = [sample.image_path for sample in normal[:: -(-len(normal) // _BACKGROUND)]]
        pairs = _copies(images, defects, some, intensity_range)
        _refuse(pairs, "looks the same as", "copies of test images, or show the same parts", _MEANINGLESS)


def _copies(
    images: Sequence[Path], others: Sequence[Path], some: Sequence[Path], intensity_range: Sequence[float] | None
) -> list[tuple[Path, Path]]:
    """The images that look the same as one of the others; some normal ones show how far apart parts are."""
    paths = [*others, *images, *some]
    with ThreadPoolExecutor() as threads:
        vectors = np.stack(list(threads.map(lambda path: thumbnail(read_pixels(path, intensity_range)), paths)))
    found = alike(vectors, len(others))
    end = len(others) + len(images)
    return [(paths[new], paths[old]) for new, old in found.items() if old < len(others) <= new < end]


def _refuse(pairs: Sequence[tuple[Path, Path]], verb: str, what: str, todo: str) -> None:
    if pairs:
        named = "\n".join(f"{one} {verb} {other}" for one, other in pairs[:20])
        raise ValueError(f"dataset.known_defects: {len(pairs)} of its images are {what}, and {todo}\n{named}")
