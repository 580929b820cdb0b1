"""Reads every file of a data set, and reports its contents and its faults before a training meets them."""

import math
import os
import statistics
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from tqdm import tqdm

from squad_lit.dataset.core import AnomalyDataModule
from squad_lit.dataset.image import image_size, mask_files, read_image, read_mask
from squad_lit.dataset.sample import NORMAL, Sample
from squad_lit.image.file import IMAGE_EXTENSIONS, is_deep_colour, open_header
from squad_lit.system.file import digest

# No benchmark has more kinds of defect per image. A mask with more values was interpolated or is a JPEG.
_MASK_VALUES = 16
# If a folder has more foreign images than this, they are reported together.
_LISTED = 3
# Logarithm of the factor by which one side of an image may be stretched against the other without a word.
_DISTORTION = 0.1


@dataclass(frozen=True)
class Problem:
    """Something wrong with a file.

    Args:
        path: The file.
        text: What is wrong with it.
        is_error: True if a training or a metric cannot be trusted with it; False for a warning.
    """

    path: Path
    text: str
    is_error: bool = True

    def __str__(self) -> str:
        return f"{'error' if self.is_error else 'warning'}: {self.path}: {self.text}"


def inspect(data: AnomalyDataModule, *, show: bool = False) -> tuple[list[dict[str, Any]], list[Problem]]:
    """Read all images and masks of a data module.

    Args:
        data: Made with ``strict=False``, so that a missing mask is listed and does not end the inspection.
        show: Whether to show a progress bar.

    Returns:
        One row per category (``category``, ``train``, ``test good``, ``test <defect>``, ``masks``, ``sizes`` as
        height x width, ``modes``), and the problems found, errors first.
    """
    rows: list[dict[str, Any]] = []
    problems: list[Problem] = []
    for category, (train, test) in data.scans.items():
        samples = [*train, *test]
        with ThreadPoolExecutor() as threads, tqdm(total=len(samples), desc=category, disable=not show) as bar:
            facts = []
            for fact in threads.map(lambda s: _Facts.of(s, data.intensity_range), samples):
                facts.append(fact)
                bar.update()
        rows.append(_row(category, train, test, facts))
        problems += [problem for fact in facts for problem in fact.problems]
        problems += _duplicates(facts[: len(train)], facts[len(train) :])
        problems += _shapes(data.folder_of(category), facts)
        companions = data.companions(category)
        for extra in companions:
            assert extra.mask_path is not None
            problems += _mask_problems(extra, extra.mask_path, _size(extra.image_path))
        problems += _strays(data, category, [*samples, *companions])
        if text := data.count_difference(category, train, test):
            problems.append(Problem(data.folder_of(category), text, is_error=False))
    problems += [Problem(data.folder_of(category), text) for category, text in data.faults.items()]
    return rows, sorted(set(problems), key=lambda p: (not p.is_error, str(p.path)))


@dataclass
class _Facts:
    """What the files of one sample contain."""

    sample: Sample
    digest: str = ""
    size: tuple[int, int] | None = None
    mode: str = ""
    has_mask: bool = False
    problems: list[Problem] = field(default_factory=list)

    @classmethod
    def of(cls, sample: Sample, intensity_range: Sequence[float] | None) -> Self:
        facts = cls(sample)
        try:
            if not sample.image_path.is_file():
                raise FileNotFoundError("no such image, although the data set names it")
            facts.digest = digest(sample.image_path)
            _, height, width = read_image(sample.image_path, intensity_range).shape
            facts.size = height, width
            with open_header(sample.image_path) as image:
                facts.mode = image.mode
            if is_deep_colour(sample.image_path):
                facts.mode += " of 16 bits (the upper 8 are read)"
        except (OSError, ValueError) as error:
            facts.problems.append(Problem(sample.image_path, str(error)))
        if sample.mask_path is not None:
            files = mask_files(sample.mask_path) or [sample.mask_path]  # an empty folder is no mask
            facts.has_mask = all(file.is_file() for file in files)
            facts.problems += [problem for file in files for problem in _mask_problems(sample, file, facts.size)]
        elif sample.label:
            facts.problems.append(Problem(sample.image_path, "no mask: pixel metrics are undefined", is_error=False))
        return facts


def _mask_problems(sample: Sample, path: Path, size: tuple[int, int] | None) -> Iterable[Problem]:
    if not path.is_file():
        yield Problem(path, f"no such mask; image {sample.image_path} needs one")
        return
    try:
        mask = read_mask(path)
        with open_header(path) as image:
            values, form = len(np.unique(np.asarray(image))), image.format
    except OSError as error:
        yield Problem(path, str(error))
        return
    if size is not None and tuple(mask.shape) != size:
        here, there = (f"{height}x{width}" for height, width in (mask.shape, size))
        yield Problem(path, f"{here} pixels (height x width), but its image {sample.image_path} has {there}")
    if sample.label and not mask.any():
        yield Problem(path, f"all black, but image {sample.image_path} is anomalous")
    if not sample.label and mask.any():
        yield Problem(path, f"marks a defect, but image {sample.image_path} is good")
    if form == "JPEG" or values > _MASK_VALUES:
        yield Problem(
            path,
            f"{values} distinct values{' in a JPEG' if form == 'JPEG' else ''}: the mask was interpolated or "
            f"compressed, so its regions are too large, because any non-zero pixel counts as anomalous",
        )


def _duplicates(train: Sequence[_Facts], test: Sequence[_Facts]) -> Iterable[Problem]:
    """Test images that are training images, too."""
    known = {fact.digest: fact.sample.image_path for fact in train if fact.digest}
    for fact in test:
        if fact.digest in known:
            yield Problem(fact.sample.image_path, f"the same file as training image {known[fact.digest]}")


def _shapes(folder: Path, facts: Sequence[_Facts]) -> Iterable[Problem]:
    """Images that are distorted, because all of them are resized to one shape."""
    shape = {fact.sample.image_path: fact.size[1] / fact.size[0] for fact in facts if fact.size}
    if not shape:
        return
    usual = statistics.median_low(shape.values())
    if other := [path for path, found in shape.items() if abs(math.log(found / usual)) > _DISTORTION]:
        text = (
            f"{len(other)} of {len(shape)} images have another shape than the others, such as {other[0].name}, and are "
            f"distorted when all are resized to one; width / height is {shape[other[0]]:.2f} there and mostly "
            f"{usual:.2f}"
        )
        yield Problem(folder, text, is_error=False)


def _size(path: Path) -> tuple[int, int] | None:
    try:
        return image_size(path)
    except OSError:  # reported as the problem of a sample
        return None


def _strays(data: AnomalyDataModule, category: str, samples: Sequence[Sample]) -> Iterable[Problem]:
    """Files that do not belong to any sample."""
    known = {sample.image_path for sample in samples}
    known |= {file for s in samples if s.mask_path is not None for file in mask_files(s.mask_path)}
    beside = {path.parent for path in known}
    masks = data.mask_folders(category)
    for place in data.places(category):
        for name, folders, files in os.walk(place):
            folder = Path(name)
            folders[:] = sorted(f for f in folders if not f.startswith("."))
            foreign = []
            for path in (folder / file for file in sorted(files) if folder / file not in known):
                if path.name.startswith(".") or path.name.lower() == "thumbs.db":
                    yield Problem(path, "a hidden file, left out", is_error=False)
                elif path.suffix.lower() not in IMAGE_EXTENSIONS:
                    if folder in beside:
                        yield Problem(path, "not an image, left out", is_error=False)
                elif any(path.is_relative_to(mask_folder) for mask_folder in masks):
                    yield Problem(path, "a mask without an image")
                else:
                    foreign.append(path)
            if len(foreign) <= _LISTED:
                yield from (Problem(path, "belongs to no image of the data set, left out", False) for path in foreign)
            else:
                some = ", ".join(path.name for path in foreign[:_LISTED])
                yield Problem(folder, f"{len(foreign)} images that belong to no sample, left out: {some}, ...", False)


def _row(category: str, train: Sequence[Sample], test: Sequence[Sample], facts: Sequence[_Facts]) -> dict[str, Any]:
    kinds = sorted({sample.defect for sample in test} - {NORMAL})
    row: dict[str, Any] = {"category": category, "train": len(train)}
    row |= {f"test {kind}": sum(sample.defect == kind for sample in test) for kind in (NORMAL, *kinds)}
    sizes = sorted({fact.size for fact in facts if fact.size})
    shown = [f"{h}x{w}" for h, w in (sizes if len(sizes) < 4 else (sizes[0], sizes[-1]))]
    row["masks"] = sum(fact.has_mask for fact in facts)
    row["sizes"] = ", ".join(shown) if len(sizes) < 4 else f"{shown[0]} to {shown[1]} ({len(sizes)} sizes)"
    row["modes"] = ", ".join(sorted({fact.mode for fact in facts if fact.mode}))
    return row
