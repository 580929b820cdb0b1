"""The Lightning data module that all data sets share.

A data set is a subclass of :class:`AnomalyDataModule` with a name, its categories, a help text and ``scan``.
Options, files and image headers are checked once, at construction; ``squad_lit.check`` reads every file to its end.
"""

import difflib
import itertools
import logging
import math
import statistics
import warnings
import zlib
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import lightning as L
import numpy as np
import torch
from pydantic import Field
from torch.utils.data import DataLoader

from squad_lit.dataset.cache import Cache, DiskCache, MemoryCache
from squad_lit.dataset.corruption import Corruption
from squad_lit.dataset.image import image_size as size_of_file
from squad_lit.dataset.known_defects import check_apart, scan_known_defects
from squad_lit.dataset.region import read_region
from squad_lit.dataset.sample import AnomalyDataset, Sample, check_samples
from squad_lit.system.memory import free_memory
from squad_lit.system.option import Count, Natural, Processes, Side, checked

log = logging.getLogger(__name__)

_PAIR = Field(min_length=2, max_length=2)
_RECTANGLE = Field(min_length=4, max_length=4)


class AnomalyDataModule(L.LightningDataModule):
    """A data set of normal training images, a hold-out of them for validation, and test images.

    Validation images are *normal training images* that are held out before training; nothing is chosen on the test
    set. Images are not augmented here. A model that makes its own training batches of ``train_set``, as ours do from
    a pool of backbone features, has a method ``training_batches``; any other one gets the images, shuffled.

    A subclass defines ``name``, ``CATEGORIES``, ``HELP`` and :meth:`scan`, and may define ``COUNTS``. The attribute
    ``categories`` exists from construction on; ``train_set``, ``val_set`` and ``test_set`` exist after :meth:`setup`.

    Args:
        root: Folder that holds the categories.
        category: A name, a list of names, or ``all``.
        image_size: Height and width of the items in pixels. One number n is a square of that side, or, after
            :meth:`keep_shape`, n x n pixels in the shape of the training images.
        batch_size: Images per batch of the validation and test loaders.
        num_workers: Processes that read images; 0 reads them in the main process.
        validation_fraction: Share of the normal training images per category, in [0, 1), that becomes ``val_set``. It
            is rounded to at least one image and never to all of them; 0 leaves ``val_set`` empty. A data set that has
            validation images takes those instead, unless ``limit_train`` is set.
        limit_train: Number of training images per category, drawn before the hold-out; ``all`` or ``None`` keeps all.
            With one seed, a smaller draw is part of each larger one. A single image is trained on and held out.
        cache: Where decoded, resized images are kept as float32: ``memory``, ``disk`` (shared by runs), ``auto``
            (memory if all images fit into half of the available memory, else disk) or ``off``.
        cache_folder: Folder of the ``disk`` cache.
        intensity_range: Grey values that become 0 and 1 in files of more than 8 bits; ``None`` takes the range of the
            file's type.
        seed: Seed of the draws. Each category has its own stream, so its split does not depend on the other categories.
        skip_unreadable: Whether images that cannot be read are left out with a warning, instead of being an error. To
            find all of them, construction then decodes every file. The attribute ``unreadable`` has the reasons.
        known_defects: Folder of images with defects that a training may learn from, as synthetic anomalies and as
            targets of its discriminator; see :func:`squad_lit.dataset.known_defects.scan_known_defects`. None of them
            may be a test image.
        roi: Region of interest, outside of which nothing is learned, measured or judged: a picture, or a rectangle; see
            :func:`squad_lit.dataset.region.read_region`. The model keeps it.
        corruption: Strength per kind of change of the test images; see :mod:`squad_lit.dataset.corruption`. ``None``
            changes nothing.
        strict: Whether construction fails at the first missing mask or unreadable image. If False, ``scans`` keeps such
            samples, and ``faults`` says which categories cannot be used at all.

    Raises:
        FileNotFoundError: The root, a category or its images are missing. The message says where to get them.
        ValueError: A category is unknown, or a number is out of range.
    """

    name: str
    """Name of the data set, as in ``dataset=NAME``."""
    CATEGORIES: tuple[str, ...]
    """All categories, in the order that ``all`` gives them."""
    HELP: ClassVar[str]
    """Where to get the data, its licence, and the folder tree that is expected under ``root``."""
    COUNTS: ClassVar[dict[str, tuple[int, int, int]]] = {}
    """Official number of images per category: (train, test normal, test anomalous)."""
    HELD_OUT: ClassVar[str] = ""
    """Folder of a category with the authors' validation images; empty: there are none."""
    TEST_OPTIONAL: ClassVar[bool] = False
    """Whether the data set may lack test images."""

    train_set: AnomalyDataset
    val_set: AnomalyDataset
    test_set: AnomalyDataset
    known_set: AnomalyDataset
    """Known defects, which are neither validated nor tested on; mostly empty."""

    @checked
    def __init__(
        self,
        *,
        root: str | Path,
        category: Any,  # checked below: that yaml reads 01 as a number needs a hint
        image_size: Side | Annotated[Sequence[Side], _PAIR],
        batch_size: Annotated[int, Field(ge=1, le=4096)],
        num_workers: Processes,
        validation_fraction: Annotated[float, Field(ge=0, lt=1)],
        limit_train: Count | Literal["all"] | None,
        cache: Literal["auto", "memory", "disk", "off"],
        cache_folder: str | Path,
        intensity_range: Annotated[Sequence[float], _PAIR] | None,
        seed: Natural,
        skip_unreadable: bool = False,
        known_defects: str | Path | None = None,
        roi: str | Path | Annotated[Sequence[int], _RECTANGLE] | None = None,
        corruption: Mapping[str, Annotated[float, Field(ge=0)]] | None = None,
        strict: bool = True,
    ) -> None:
        super().__init__()
        self.root = Path(root).expanduser().absolute()
        self.categories = self._check_category(category)
        self._side = None if isinstance(image_size, Sequence) else image_size
        height, width = image_size if isinstance(image_size, Sequence) else (image_size, image_size)
        self.image_size = height, width
        if limit_train == 1 and validation_fraction > 0:
            log.warning(
                "%s: dataset.limit_train=1 trains on the image that brings the maps to one scale and gives the "
                "threshold: expect more false alarms than stated",
                self.name,
            )
        if intensity_range is not None and not intensity_range[0] < intensity_range[1]:
            raise ValueError(f"intensity_range must be [LOW,HIGH], LOW below HIGH, or null; got {intensity_range!r}")
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.validation_fraction = validation_fraction
        self.limit_train = None if limit_train == "all" else limit_train
        self.corruption = None if corruption is None else Corruption(corruption, seed)
        self.cache, self.cache_folder = cache, Path(cache_folder).expanduser().absolute()
        self.intensity_range = intensity_range
        self.seed, self.strict = seed, strict
        self.skip_unreadable, self.unreadable = skip_unreadable, list[str]()
        self.known_defects = None if known_defects is None else Path(known_defects).expanduser().absolute()
        self.check_files()
        self._known = self._scan_known()
        self.roi = None if roi is None else read_region(roi, self.training_sizes())

    @abstractmethod
    def scan(self, category: str) -> tuple[list[Sample], list[Sample]]:
        """The normal training samples and the test samples of a category, both sorted."""

    def folder_of(self, category: str) -> Path:
        """The folder that holds the images of a category."""
        return self.root / category

    def is_held_out(self, sample: Sample) -> bool:
        """Whether the authors of the data set set this normal training image apart for validation."""
        return bool(self.HELD_OUT) and sample.image_path.is_relative_to(self.folder_of(sample.category) / self.HELD_OUT)

    def places(self, category: str) -> list[Path]:
        """Folders in which every file should belong to a sample."""
        return [self.folder_of(category)]

    def mask_folders(self, category: str) -> list[Path]:
        """Folders that hold masks only."""
        return [self.folder_of(category) / "ground_truth"]

    def companions(self, category: str) -> list[Sample]:
        """Images and masks of the archive that are not used as samples."""
        return []

    def check_files(self) -> None:
        """Fail if data is missing. A data set that draws its own images overrides this."""
        if not self.root.is_dir():
            raise FileNotFoundError(f"{self.name}: no folder {self.root}\n{self._help()}")
        missing = [category for category in self.categories if not self.folder_of(category).is_dir()]
        if missing:
            there = [category for category in self.CATEGORIES if self.folder_of(category).is_dir()]
            names = ",".join(there)
            choice = (
                f"Use only what is there: one model for all of it with dataset.category=[{names}], or a sweep with one "
                f"model each, -m dataset.category={names}\n"
                if there
                else ""
            )
            if self.root.name in self.CATEGORIES:
                choice = f"Did you mean dataset.root={self.root.parent}?\n"
            raise FileNotFoundError(
                f"{self.name}: no folder for category {', '.join(missing)} in {self.root}\n{choice}{self._help()}"
            )
        _ = self.scans

    def keep_shape(self, multiple: int) -> None:
        """Give the items the shape of the training images, as far as ``image_size`` is one number.

        The median of the images' shapes counts, as does each category's number of images. Nothing is changed for square
        images.

        Args:
            multiple: What a model's sides must be multiples of, in pixels.
        """
        if self._side is None:
            return
        shape = math.sqrt(statistics.median(height / width for height, width in self.training_sizes().values()))
        if shape == 1:
            return
        height, width = (max(1, round(side / multiple)) * multiple for side in (self._side * shape, self._side / shape))
        self.image_size = height, width
        text = "%s: images are resized to %d x %d pixels (height x width), the shape of the training images"
        log.info(text, self.name, height, width)

    def training_sizes(self) -> dict[Path, tuple[int, int]]:
        """Height and width of the files of all normal training images."""
        return {s.image_path: size_of_file(s.image_path) for train, _ in self.scans.values() for s in train}

    def setup(self, stage: str | None = None) -> None:
        """Make the three datasets. A second call keeps those of the first one, and their caches."""
        if hasattr(self, "test_set"):
            return
        per_category = [(*self._split(category, normals), tests) for category, (normals, tests) in self.scans.items()]
        parts = [list(itertools.chain.from_iterable(part)) for part in zip(*per_category, strict=True)]
        options: Any = {"cache": self._make_cache(sum(map(len, parts))), "intensity_range": self.intensity_range}
        self.train_set, self.val_set, self.test_set = (AnomalyDataset(p, self.image_size, **options) for p in parts)
        self.test_set.corruption = self.corruption
        normal = [*self.train_set.samples, *self.val_set.samples]
        check_apart(self._known, normal, self.test_set.samples, self.intensity_range)
        self.known_set = AnomalyDataset(self._known, self.image_size, **options)

    def _scan_known(self) -> list[Sample]:
        """The known defects, checked."""
        if self.known_defects is None:
            return []
        if len(self.categories) > 1:
            raise ValueError(
                f"known_defects: expected one category, got {len(self.categories)}; train one model per category, as "
                f"experiment={self.name} does, with dataset.known_defects='DIR/${{dataset.category}}'"
            )
        samples, reasons = check_samples(
            scan_known_defects(self.known_defects, self.categories[0]), self.intensity_range, skip=self.skip_unreadable
        )
        self.unreadable += reasons
        return samples

    def _make_cache(self, count: int) -> Cache | None:
        height, width = self.image_size
        size = count * 3 * height * width * torch.float32.itemsize
        mode = self.cache
        if mode == "auto":
            mode = "memory" if size <= free_memory() / 2 else "disk"
        if mode != "off":
            where = "memory" if mode == "memory" else self.cache_folder
            text = "%s: up to %d images of %d x %d, %.2f GB, will be kept in %s"
            log.info(text, self.name, count, height, width, size / 1e9, where)
        if mode == "disk":
            return DiskCache(self.cache_folder)
        return MemoryCache() if mode == "memory" else None

    def train_dataloader(self) -> Iterable[Any]:
        """What ``training_batches`` of the model in training returns; without such a method images, shuffled."""
        make: Any = getattr(self.trainer and self.trainer.lightning_module, "training_batches", None)
        return make(self) if make else self._loader(self.train_set, shuffle=True)

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Loader of the held-out normal images, in order."""
        return self._loader(self.val_set)

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Loader of the test images, in order."""
        return self._loader(self.test_set)

    def _loader(self, dataset: AnomalyDataset, *, shuffle: bool = False) -> DataLoader[dict[str, Any]]:
        return DataLoader(
            dataset,
            shuffle=shuffle,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            # Otherwise the memory cache of a worker would be lost after each epoch.
            persistent_workers=self.num_workers > 0,
        )

    @cached_property
    def scans(self) -> dict[str, tuple[list[Sample], list[Sample]]]:
        """Normal training samples and test samples of each category, checked, before the hold-out."""
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
        if self.strict:
            if both := {sample.image_path for sample in train} & {sample.image_path for sample in test}:
                raise ValueError(
                    f"{self.name}: {len(both)} images are both training and test images, such as {min(both)}"
                )
            train, test = self._readable(category, train, test)
        for kind, samples in (("normal training", train), ("test", test)):
            if not samples and not (kind == "test" and self.TEST_OPTIONAL):
                place = self.folder_of(category)
                raise FileNotFoundError(
                    f"{self.name}: no {kind} images of category {category} in {place}\n{self._help()}"
                )
        if self.strict and (text := self.count_difference(category, train, test)):
            warnings.warn(text, stacklevel=2)
        if self.validation_fraction > 0 and len(train) < 2:
            raise ValueError(
                f"{self.name}: category {category} has only one normal training image; at least two are needed, "
                f"because one is held out to standardise the maps (dataset.validation_fraction)"
            )
        return train, test

    def _readable(self, category: str, train: list[Sample], test: list[Sample]) -> tuple[list[Sample], list[Sample]]:
        kept, reasons = check_samples([*train, *test], self.intensity_range, skip=self.skip_unreadable)
        if not reasons:
            return train, test
        self.unreadable += reasons
        text = "{}: {} of {} images of category {} cannot be read and are left out (dataset.skip_unreadable=true):\n{}"
        count = len(train) + len(test)
        warnings.warn(text.format(self.name, len(reasons), count, category, "\n".join(reasons)), stacklevel=2)
        of_train = set(train)
        return [s for s in kept if s in of_train], [s for s in kept if s not in of_train]

    def count_difference(self, category: str, train: Sequence[Sample], test: Sequence[Sample]) -> str:
        """A sentence that says how the category's size differs from the published one; empty if it does not."""
        anomalous = sum(sample.label for sample in test)
        found = (len(train), len(test) - anomalous, anomalous)
        expected = self.COUNTS.get(category, found)
        if found == expected:
            return ""
        return (
            f"{self.name}: category {category} has (train, test normal, test anomalous) {found} images, officially "
            f"{expected}; its results are not comparable with published ones"
        )

    def _split(self, category: str, normals: list[Sample]) -> tuple[list[Sample], list[Sample]]:
        """Training and validation samples of a category, each in the order of ``normals``."""
        official = [sample for sample in normals if self.is_held_out(sample)]
        if official and self.limit_train is None and self.validation_fraction > 0:
            return [sample for sample in normals if not self.is_held_out(sample)], official
        # Not hash(), whose value for a text differs between processes.
        order = np.random.default_rng([self.seed, zlib.crc32(category.encode())]).permutation(len(normals))
        order = order[: self.limit_train]
        if len(order) == 1 and self.validation_fraction > 0:
            return [normals[order[0]]], [normals[order[0]]]
        held_out = 0
        if self.validation_fraction > 0:
            held_out = min(max(round(self.validation_fraction * len(order)), 1), len(order) - 1)
        return [normals[i] for i in sorted(order[held_out:])], [normals[i] for i in sorted(order[:held_out])]

    def _check_category(self, category: object) -> list[str]:
        if category == "all":
            return list(self.CATEGORIES)
        given = list(category) if isinstance(category, Sequence) and not isinstance(category, str) else [category]
        if not given:
            raise ValueError(f"category is empty; give a name, a list of names, or all. {self._choice()}")
        names: list[str] = []
        for name in given:
            if not isinstance(name, str):
                hint = " yaml reads an unquoted 01 as a number: quote it." if isinstance(name, int) else ""
                raise ValueError(f"category must be text; got {name!r} ({type(name).__name__}).{hint} {self._choice()}")
            if name not in self.CATEGORIES:
                close = difflib.get_close_matches(name.lower(), self.CATEGORIES, n=1)
                hint = f"; did you mean '{close[0]}'?" if close else "."
                own = f"; images of your own, also in the same layout: dataset=folder dataset.root={self.root / name}"
                own = "" if self.name == "folder" else own
                raise ValueError(f"category: unknown '{name}' for {self.name}{hint} {self._choice()}{own}")
            if name in names:
                raise ValueError(f"category: '{name}' is named twice in {given}")
            names.append(name)
        return names

    def _choice(self) -> str:
        return f"known: {', '.join(self.CATEGORIES)}"

    def _help(self) -> str:
        return f"{self.HELP}\nThen point to it with dataset.root=PATH"
