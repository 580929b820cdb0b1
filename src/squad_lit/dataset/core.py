"""What every benchmark shares: the Lightning data module.

A benchmark is one short file beside this one: a subclass of :class:`AnomalyDataModule` with a name, its categories, a
help text and ``scan``. Options, files and their headers are checked here, once, when the object is made; whether every
file can be read to its end is checked by ``squad_lit.check``.
"""

import difflib
import logging
import math
import warnings
import zlib
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader

from squad_lit.dataset.cache import Cache, DiskCache, MemoryCache, free_memory
from squad_lit.dataset.sample import AnomalyDataset, Sample, check_headers

log = logging.getLogger(__name__)

CACHE_MODES = ("auto", "memory", "disk", "off")


class AnomalyDataModule(L.LightningDataModule):
    """A benchmark: normal training images, a share of them for validation, and the test set.

    ``train_dataloader`` gives no images: the LightningModule fills a pool of backbone features from ``train_set`` once
    and draws its training batches from that. Validation images are *normal training images*, held out before anything
    is trained; the test set chooses nothing. Nothing is augmented here.

    A subclass gives ``name``, ``CATEGORIES``, ``HELP`` and :meth:`scan`, and may give ``COUNTS``.

    After :meth:`setup` there are ``train_set``, ``val_set`` and ``test_set``; ``categories`` is there from the start.

    Args:
        root: Folder that holds the categories.
        category: A name, a list of names, or ``all``.
        image_size: Height and width of the items in pixels, or one number for both.
        batch_size: Images a batch, of the validation and test loaders.
        num_workers: Processes that read images; 0 reads in the main process.
        validation_fraction: Share of the normal training images of each category, in [0, 1), that becomes ``val_set``:
            rounded, but at least one image and never all. 0 leaves ``val_set`` empty.
        limit_train: Keep this many training images a category, drawn before the validation share is taken; ``None``
            keeps all. A smaller draw is part of each larger one with the same seed.
        cache: Where decoded, resized images are kept (float32, so that the numbers stay the same): ``memory``,
            ``disk`` (shared by runs), ``auto`` (memory if all fit into half of what is free, else disk) or ``off``.
        cache_folder: Where ``disk`` keeps them.
        intensity_range: The grey values that become 0 and 1, for files of more than 8 bits; ``None``: the range of
            their type.
        seed: Of the draws. Each category has its own stream, so its split is the same alone and among others.
        strict: Refuse data with a missing mask or a file that is no image, at the first one; ``squad_lit.check`` lists
            them all instead, and what made a category unusable is in ``faults``.

    Raises:
        FileNotFoundError: The root, a category or its images are missing; says where to get them.
        ValueError: An unknown category; a number out of range.
    """

    name: str
    """Name of the benchmark, as in ``dataset=NAME``."""
    CATEGORIES: tuple[str, ...]
    """Every category there is; ``all`` means these, in this order."""
    HELP: ClassVar[str]
    """Where to get the data, its licence, and the tree that is expected under ``root``."""
    COUNTS: ClassVar[dict[str, tuple[int, int, int]]] = {}
    """Official number of images by category: (train, test normal, test anomalous)."""
    TEST_OPTIONAL: ClassVar[bool] = False
    """Whether there may be no test images at all."""

    train_set: AnomalyDataset
    val_set: AnomalyDataset
    test_set: AnomalyDataset

    def __init__(
        self,
        *,
        root: str | Path,
        category: str | Sequence[str],
        image_size: int | Sequence[int],
        batch_size: int,
        num_workers: int,
        validation_fraction: float,
        limit_train: int | None,
        cache: str,
        cache_folder: str | Path,
        intensity_range: Sequence[float] | None,
        seed: int,
        strict: bool = True,
    ) -> None:
        super().__init__()
        check_paths(root=root, cache_folder=cache_folder)
        self.root = Path(root).expanduser().absolute()
        self.categories = self._check_category(category)
        self.image_size = self._check_image_size(image_size)
        self._check_int("batch_size", batch_size, least=1)
        self._check_int("num_workers", num_workers, least=0)
        self._check_int("seed", seed, least=0)
        if type(validation_fraction) not in (int, float) or not 0 <= validation_fraction < 1:
            raise ValueError(f"dataset.validation_fraction must be in [0, 1); got {validation_fraction!r}")
        if limit_train is not None:
            # With a validation share, one image must remain on either side.
            why = "; one of them is held out to standardise the maps" if validation_fraction > 0 else ""
            self._check_int("limit_train", limit_train, least=2 if validation_fraction > 0 else 1, why=why)
        if cache not in CACHE_MODES:
            raise ValueError(f"dataset.cache must be one of {', '.join(CACHE_MODES)}; got {cache!r}")
        if intensity_range is not None and not _is_range(intensity_range):
            raise ValueError(
                f"dataset.intensity_range must be [LOW,HIGH], LOW below HIGH, or null; got {intensity_range!r}"
            )
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.validation_fraction = validation_fraction
        self.limit_train = limit_train
        self.cache, self.cache_folder = cache, Path(cache_folder).expanduser().absolute()
        self.intensity_range = intensity_range
        self.seed, self.strict = seed, strict
        self.check_files()

    @abstractmethod
    def scan(self, category: str) -> tuple[list[Sample], list[Sample]]:
        """The normal training samples and the test samples of a category, each sorted."""

    def folder_of(self, category: str) -> Path:
        """The folder that holds the images of a category."""
        return self.root / category

    def places(self, category: str) -> list[Path]:
        """Folders in which no file should lie that belongs to no sample."""
        return [self.folder_of(category)]

    def mask_folders(self, category: str) -> list[Path]:
        """Folders that hold nothing but masks."""
        return [self.folder_of(category) / "ground_truth"]

    def companions(self, category: str) -> list[Sample]:
        """What the archive has beyond the samples: images that are not used, or masks that are not needed."""
        return []

    def check_files(self) -> None:
        """Fail at construction if data is missing; a benchmark that makes its own data overrides this."""
        if not self.root.is_dir():
            raise FileNotFoundError(f"{self.name}: no folder {self.root}\n{self._help()}")
        missing = [category for category in self.categories if not self.folder_of(category).is_dir()]
        if missing:
            there = [category for category in self.CATEGORIES if self.folder_of(category).is_dir()]
            choice = f"Use only what is there with dataset.category=[{','.join(there)}]\n" if there else ""
            if self.root.name in self.CATEGORIES:
                choice = f"Did you mean dataset.root={self.root.parent}?\n"
            raise FileNotFoundError(
                f"{self.name}: no folder for category {', '.join(missing)} in {self.root}\n{choice}{self._help()}"
            )
        _ = self.scans

    def setup(self, stage: str | None = None) -> None:
        """Make the three datasets; a second call keeps those of the first, and so their caches."""
        if hasattr(self, "test_set"):
            return
        train: list[Sample] = []
        val: list[Sample] = []
        test: list[Sample] = []
        for category, (normals, tests) in self.scans.items():
            kept, held_out = self._split(category, normals)
            train += kept
            val += held_out
            test += tests
        cache = self._make_cache(len(train) + len(val) + len(test))
        options: Any = {"cache": cache, "intensity_range": self.intensity_range}
        self.train_set = AnomalyDataset(train, self.image_size, **options)
        self.val_set = AnomalyDataset(val, self.image_size, **options)
        self.test_set = AnomalyDataset(test, self.image_size, **options)

    def _make_cache(self, count: int) -> Cache | None:
        height, width = self.image_size
        size = count * 3 * height * width * torch.float32.itemsize
        mode = self.cache
        if mode == "auto":
            free = free_memory()
            mode = "memory" if free is None or size <= free / 2 else "disk"
        if mode != "off":
            where = "memory" if mode == "memory" else self.cache_folder
            text = "%s: up to %d images of %d x %d, %.2f GB, will be kept in %s"
            log.info(text, self.name, count, height, width, size / 1e9, where)
        if mode == "disk":
            return DiskCache(self.cache_folder)
        return MemoryCache() if mode == "memory" else None

    def train_dataloader(self) -> Any:
        """What the LightningModule trains from: step numbers, for which its pool of features has the batches.

        Raises:
            RuntimeError: Outside a fit: there are no batches of images to train from.
        """
        if self.trainer is None:
            raise RuntimeError(
                "the LightningModule trains from its own pool of features; iterate over train_set instead"
            )
        return self.trainer.lightning_module.train_dataloader()

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Held-out normal images, in order."""
        return self._loader(self.val_set)

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        """The test set, in order."""
        return self._loader(self.test_set)

    def _loader(self, dataset: AnomalyDataset) -> DataLoader[dict[str, Any]]:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            # The memory cache of a worker dies with it.
            persistent_workers=self.num_workers > 0,
        )

    @cached_property
    def scans(self) -> dict[str, tuple[list[Sample], list[Sample]]]:
        """Normal training samples and test samples by category, checked, before anything is held out."""
        self.faults: dict[str, str] = {}
        scans = {}
        for category in self.categories:
            try:
                scans[category] = self._checked_scan(category)
            except (OSError, ValueError) as error:
                if self.strict:
                    raise
                self.faults[category] = str(error)
        return scans

    def _checked_scan(self, category: str) -> tuple[list[Sample], list[Sample]]:
        train, test = self.scan(category)
        for kind, samples in (("normal training", train), ("test", test)):
            if not samples and not (kind == "test" and self.TEST_OPTIONAL):
                place = self.folder_of(category)
                raise FileNotFoundError(
                    f"{self.name}: no {kind} images of category {category} in {place}\n{self._help()}"
                )
        if self.strict:
            if both := {sample.image_path for sample in train} & {sample.image_path for sample in test}:
                raise ValueError(
                    f"{self.name}: {len(both)} images are both for the training and for the test, such as {min(both)}"
                )
            check_headers([*train, *test])
            if text := self.count_difference(category, train, test):
                warnings.warn(text, stacklevel=2)
        if self.validation_fraction > 0 and len(train) < 2:
            raise ValueError(
                f"{self.name}: category {category} has only one normal training image; two are the least, because "
                f"one is held out to standardise the maps (dataset.validation_fraction)"
            )
        return train, test

    def count_difference(self, category: str, train: Sequence[Sample], test: Sequence[Sample]) -> str:
        """In words, how a category differs in size from the published one; empty if it does not."""
        anomalous = sum(sample.label for sample in test)
        found = (len(train), len(test) - anomalous, anomalous)
        expected = self.COUNTS.get(category, found)
        if found == expected:
            return ""
        return (
            f"{self.name}: category {category} has (train, test normal, test anomalous) {found} images, officially "
            f"{expected}; results on it do not compare with published ones"
        )

    def _split(self, category: str, normals: list[Sample]) -> tuple[list[Sample], list[Sample]]:
        """Training and validation samples of a category, each in the order of ``normals``."""
        # crc32, because Python's own hash of a text differs from process to process.
        order = np.random.default_rng([self.seed, zlib.crc32(category.encode())]).permutation(len(normals))
        order = order[: self.limit_train]
        held_out = 0
        if self.validation_fraction > 0:
            held_out = min(max(round(self.validation_fraction * len(order)), 1), len(order) - 1)
        return [normals[i] for i in sorted(order[held_out:])], [normals[i] for i in sorted(order[:held_out])]

    def _check_category(self, category: object) -> list[str]:
        if category == "all":
            return list(self.CATEGORIES)
        given = list(category) if isinstance(category, Sequence) and not isinstance(category, str) else [category]
        if not given:
            raise ValueError(f"dataset.category is empty; give a name, a list of names, or all. {self._known()}")
        names: list[str] = []
        for name in given:
            if not isinstance(name, str):
                hint = " yaml reads an unquoted 01 as a number: quote it." if isinstance(name, int) else ""
                raise ValueError(
                    f"dataset.category must be text; got {name!r} ({type(name).__name__}).{hint} {self._known()}"
                )
            if name not in self.CATEGORIES:
                close = difflib.get_close_matches(name.lower(), self.CATEGORIES, n=1)
                hint = f"; did you mean '{close[0]}'?" if close else "."
                raise ValueError(f"dataset.category: unknown '{name}' for {self.name}{hint} {self._known()}")
            if name in names:
                raise ValueError(f"dataset.category: '{name}' is named twice in {given}")
            names.append(name)
        return names

    @staticmethod
    def _check_image_size(image_size: int | Sequence[int]) -> tuple[int, int]:
        sides = list(image_size) if isinstance(image_size, Sequence) else [image_size, image_size]
        if len(sides) != 2 or any(type(side) is not int or side < 1 for side in sides):
            raise ValueError(f"dataset.image_size must be one positive integer or [height, width]; got {image_size!r}")
        return sides[0], sides[1]

    @staticmethod
    def _check_int(name: str, value: object, *, least: int, why: str = "") -> None:
        if type(value) is not int or value < least:
            raise ValueError(f"dataset.{name} must be an integer of at least {least}{why}; got {value!r}")

    def _known(self) -> str:
        return f"known: {', '.join(self.CATEGORIES)}"

    def _help(self) -> str:
        return f"{self.HELP}\nThen point to it with dataset.root=PATH"


def check_paths(**options: object) -> None:
    """Refuse options that are no path.

    Raises:
        ValueError: Names the option.
    """
    for name, value in options.items():
        if not isinstance(value, str | Path):
            raise ValueError(f"dataset.{name}: expected a path, got {value!r}")


def _is_range(value: Sequence[float]) -> bool:
    numbers = isinstance(value, Sequence) and all(type(v) in (int, float) and math.isfinite(v) for v in value)
    return numbers and len(value) == 2 and value[0] < value[1]
