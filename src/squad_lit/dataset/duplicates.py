"""Images that are there twice: as the same file, saved again, or as a second photo of the same part."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from squad_lit.dataset.problem import Problem
from squad_lit.dataset.sample import Sample
from squad_lit.image.file import to_uint8

# Side of a thumbnail in pixels.
_SIDE = 48
# Two images are alike if they are nearer than this share of what an image is from its nearest one, by the median. The
# second number is a distance of unit vectors that is near in any set; see experiments/duplicates.
_NEAR, _SAME = 0.45, 0.06
# Rows that are compared with all others at once.
_ROWS = 1024


def thumbnail(pixels: NDArray[np.generic]) -> NDArray[np.float32]:
    """An image ``(H, W, 3)`` as a unit vector that a new compression, size or brightness of it hardly changes."""
    grey = Image.fromarray(to_uint8(pixels)).convert("L")
    small = np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS), np.float32).ravel()
    away = small - small.mean()
    return away / max(float(np.linalg.norm(away)), 1.0)


def alike(vectors: NDArray[np.float32], first: int) -> dict[int, int]:
    """For each vector the most similar one before it, if it is far more similar than neighbours usually are.

    Vectors are compared by the directions of their deviations from the mean of all. What all images share, such as the
    shape of a part that always lies at the same place, therefore does not make them alike.

    Args:
        vectors: ``(N, D)``.
        first: Number of vectors, at the start, that are preferred to those after them, as training images are.

    Returns:
        By the number of a vector that of the most similar one before it.

    Example:
        >>> alike(np.float32([[0, 9, 0], [9, 0, 0], [0, 0, 9], [5, 5, 0], [0, 8.9, 0]]), first=2)
        {4: 0}
    """
    away = vectors - vectors.mean(0)
    length = np.linalg.norm(away, axis=1, keepdims=True)
    away /= np.where(length > 0, length, 1)
    nearest, best, value = np.empty(len(away)), np.zeros((2, len(away)), int), np.full((2, len(away)), -1.0)
    for start in range(0, len(away), _ROWS):
        similar = away[start : start + _ROWS] @ away.T
        for row, values in enumerate(similar, start):
            values[row] = -1  # itself
            nearest[row] = values.max()
            for kind, end in enumerate((min(row, first), row)):
                if end:
                    best[kind, row] = values[:end].argmax()
                    value[kind, row] = values[best[kind, row]]
    usual = float(np.median(np.sqrt(np.maximum(2 - 2 * nearest, 0)))) if len(away) else 0.0
    is_near = value >= 1 - max(_NEAR * usual, _SAME) ** 2 / 2  # the distance of unit vectors, by their product
    chosen = np.where(is_near[0], best[0], best[1])
    return {int(row): int(chosen[row]) for row in np.flatnonzero(is_near.any(0))}


def duplicates(
    samples: Sequence[Sample], digests: Sequence[str], thumbnails: Sequence[NDArray[np.float32] | None], train: int
) -> Iterable[Problem]:
    """Images that are there twice.

    Args:
        samples: The samples, training images first.
        digests: What identifies the content of each file; empty if it cannot be read.
        thumbnails: Of each image; None if it cannot be read.
        train: Number of training images.
    """
    first: dict[str, int] = {}
    for new, found in enumerate(digests):
        if found and (old := first.setdefault(found, new)) != new:
            yield _same_file(samples[old], samples[new], old < train <= new)
    for label in (0, 1):  # a part before and after it was damaged may look the same from afar
        own = [i for i, sample in enumerate(samples) if sample.label == label and thumbnails[i] is not None]
        if not own:
            continue
        vectors = np.stack([vector for i in own if (vector := thumbnails[i]) is not None])
        for new, old in alike(vectors, sum(i < train for i in own)).items():
            if digests[own[old]] != digests[own[new]]:
                yield looks_the_same(samples[own[old]], samples[own[new]], own[old] < train <= own[new])


def _same_file(old: Sample, new: Sample, is_leak: bool) -> Problem:
    if is_leak:
        text, kind = f"the same file as training image {old.image_path}", "the same files as training images"
    elif old.label != new.label:
        text = f"the same file as {old.image_path}, so that it is good and defective"
        kind = "the same files as images of the other label"
    else:
        text, kind = f"the same file as {old.image_path}: it counts twice", "the same files as others, count twice"
    return Problem(new.image_path, text, is_leak or old.label != new.label, kind)


def looks_the_same(old: Sample, new: Sample, is_leak: bool) -> Problem:
    """The warning that an image is probably the same one as, or of the same part as, one before it."""
    what, so = ("training image ", "the test is too easy") if is_leak else ("", "it counts twice")
    text = f"looks the same as {what}{old.image_path}: if it is the same part, {so}"
    kind = f"look the same as {'training' if is_leak else 'other'} images: if they are the same parts, {so}"
    return Problem(new.image_path, text, False, kind)
