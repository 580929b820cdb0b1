"""Reads every file of a data set, and reports its contents and its faults before a training meets them."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from squad_lit.dataset.core import AnomalyDataModule
from squad_lit.dataset.duplicates import duplicates, thumbnail
from squad_lit.dataset.image import image_size, mask_files, read_mask
from squad_lit.dataset.mixture import Properties, mixtures
from squad_lit.dataset.problem import Problem, together
from squad_lit.dataset.sample import NORMAL, Sample
from squad_lit.image.file import IMAGE_EXTENSIONS, is_deep_colour, open_header, read_pixels
from squad_lit.system.file import digest
from squad_lit.system.progress import progress

# No benchmark has more kinds of defect per image. A mask with more values was interpolated or is a JPEG.
_MASK_VALUES = 16
# Files that Windows and macOS put into folders.
_OF_THE_SYSTEM = {"thumbs.db", "ehthumbs.db", "desktop.ini", ".ds_store"}


def inspect(data: AnomalyDataModule, *, show: bool = False) -> tuple[list[dict[str, Any]], list[Problem]]:
    """Read all images and masks of a data module.

    Args:
        data: Made with ``strict=False``, so that a missing mask is listed and does not end the inspection.
        show: Whether to show a progress bar.

    Returns:
        One row per category (``category``, ``train``, ``test good``, ``test <defect>``, ``masks``, ``sizes`` as
        height x width, ``modes``), and the problems found, errors first. Many of one kind in a folder are one problem.
    """
    rows: list[dict[str, Any]] = []
    problems: list[Problem] = []
    for category, (train, test) in data.scans.items():
        samples = [*train, *test]
        with (
            ThreadPoolExecutor() as threads,
            progress(total=len(samples), desc=category, unit="image", disable=not show) as bar,
        ):
            facts = []
            for fact in threads.map(lambda s: _Facts.of(s, data.intensity_range), samples):
                facts.append(fact)
                bar.update()
        rows.append(_row(category, train, test, facts))
        problems += [problem for fact in facts for problem in fact.problems]
        problems += duplicates(samples, [f.digest for f in facts], [f.thumbnail for f in facts], len(train))
        problems += mixtures(data.folder_of(category), [f.properties for f in facts if f.properties is not None])
        companions = data.companions(category)
        for extra in companions:
            assert extra.mask_path is not None
            problems += _mask_problems(extra, extra.mask_path, _size(extra.image_path))
        problems += _strays(data, category, [*samples, *companions])
        if text := data.count_difference(category, train, test):
            problems.append(Problem(data.folder_of(category), text, is_error=False))
    problems += [Problem(data.folder_of(category), text) for category, text in data.faults.items()]
    return rows, together(problems)


@dataclass
class _Facts:
    """What the files of one sample contain."""

    sample: Sample
    digest: str = ""
    thumbnail: NDArray[np.float32] | None = None
    properties: Properties | None = None
    mode: str = ""
    has_mask: bool = False
    problems: list[Problem] = field(default_factory=list)

    @classmethod
    def of(cls, sample: Sample, intensity_range: Sequence[float] | None) -> Self:
        facts, path, size = cls(sample), sample.image_path, None
        try:
            if not path.is_file():
                raise FileNotFoundError("no such image, although the data set names it")
            pixels = read_pixels(path, intensity_range)
            size = pixels.shape[:2]
            facts.digest = digest(path)  # broken files may be equal: they are named for what they are
            with open_header(path) as image:
                facts.mode = image.mode
                facts.properties = Properties.of(path, image, pixels)
            facts.thumbnail = thumbnail(pixels)
            if is_deep_colour(path):
                facts.mode += " of 16 bits (the upper 8 are read)"
        except (OSError, ValueError) as error:
            facts.problems.append(Problem.of_error(path, error))
        if sample.mask_path is not None:
            files = mask_files(sample.mask_path) or [sample.mask_path]  # an empty folder is no mask
            facts.has_mask = all(file.is_file() for file in files)
            facts.problems += [problem for file in files for problem in _mask_problems(sample, file, size)]
        elif sample.label:
            facts.problems.append(Problem(path, "no mask: pixel metrics are undefined", is_error=False))
        return facts


def _mask_problems(sample: Sample, path: Path, size: tuple[int, ...] | None) -> Iterable[Problem]:
    if not path.is_file():
        yield Problem(path, f"no such mask; image {sample.image_path} needs one", kind="no such mask")
        return
    try:
        mask = read_mask(path)
        with open_header(path) as image:
            values, form = len(np.unique(np.asarray(image))), image.format
    except (OSError, ValueError) as error:
        yield Problem.of_error(path, error)
        return
    if size is not None and tuple(mask.shape) != size:
        here, there = (f"{height}x{width}" for height, width in (mask.shape, size))
        text = f"{here} pixels (height x width), but its image {sample.image_path} has {there}"
        yield Problem(path, text, kind=f"masks of {here} pixels (height x width) for images of {there}")
    if sample.label and not mask.any():
        yield Problem(path, f"all black, but image {sample.image_path} is anomalous", kind="black masks of defects")
    if not sample.label and mask.any():
        yield Problem(path, f"marks a defect, but image {sample.image_path} is good", kind="masks of good images")
    if form == "JPEG" or values > _MASK_VALUES:
        why = (
            "the mask was interpolated or compressed, so its regions are too large, because any non-zero pixel counts "
            "as anomalous"
        )
        text = f"{values} distinct values{' in a JPEG' if form == 'JPEG' else ''}: {why}"
        yield Problem(path, text, kind=f"many distinct values: {why}")


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
            for path in (folder / file for file in sorted(files) if folder / file not in known):
                if path.name.lower() in _OF_THE_SYSTEM or path.name.startswith("._"):
                    yield Problem(path, "a file of Windows or macOS, left out", is_error=False)
                elif path.name.startswith("."):
                    yield Problem(path, "a hidden file, left out", is_error=False)
                elif path.suffix.lower() not in IMAGE_EXTENSIONS:
                    if folder in beside:
                        yield Problem(path, "not an image, left out", is_error=False)
                elif any(path.is_relative_to(mask_folder) for mask_folder in masks):
                    yield Problem(path, "a mask without an image")
                else:
                    yield Problem(path, "belongs to no image of the data set, left out", is_error=False)


def _row(category: str, train: Sequence[Sample], test: Sequence[Sample], facts: Sequence[_Facts]) -> dict[str, Any]:
    kinds = sorted({sample.defect for sample in test} - {NORMAL})
    row: dict[str, Any] = {"category": category, "train": len(train)}
    row |= {f"test {kind}": sum(sample.defect == kind for sample in test) for kind in (NORMAL, *kinds)}
    sizes = sorted({fact.properties.size for fact in facts if fact.properties})
    shown = [f"{h}x{w}" for h, w in (sizes if len(sizes) < 4 else (sizes[0], sizes[-1]))]
    row["masks"] = sum(fact.has_mask for fact in facts)
    row["sizes"] = ", ".join(shown) if len(sizes) < 4 else f"{shown[0]} to {shown[1]} ({len(sizes)} sizes)"
    row["modes"] = ", ".join(sorted({fact.mode for fact in facts if fact.mode}))
    return row
