"""A user's own images: a folder of good parts and, optionally, folders of defective parts and masks."""

import os
import warnings
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from squad_lit.dataset.core import AnomalyDataModule
from squad_lit.dataset.image import MASK_FOLDERS, list_folders, list_images, pair_masks
from squad_lit.dataset.sample import NORMAL, Sample, check_kinds
from squad_lit.system.option import checked


class Folder(AnomalyDataModule):
    """Images in folders, in one of three layouts.

    1. ``root/good``, and one folder per kind of defect, such as ``root/scratch``.
    2. The layout of MVTec AD: ``root/train/good``, ``root/test/{good,<defect>}``, ``root/ground_truth/<defect>``.
    3. Folders that the ``_dir`` options name, relative to the root or absolute.

    Anomalous images are optional, because neither training nor prediction needs them. Masks are optional too; without
    them the pixel metrics are undefined. A mask has the stem of its image and may add ``_mask``, ``_gt`` or ``_GT``. It
    lies in ``mask_dir``, or in a folder there that is named after the kind of defect.

    Args:
        root: The folder, whose name becomes the category. If it does not exist and ``train_dir`` is absolute, the
            parent of ``train_dir`` is the root.
        train_dir: Folder of normal images to train on.
        normal_test_dir: Folder of normal test images; ``None`` holds out ``test_fraction`` of the normal images.
        anomalous_test_dir: Folder of anomalous test images, or of one folder per kind of defect (a folder ``good`` is
            skipped). ``None`` means no anomalous images if ``train_dir`` is given.
        mask_dir: Folder of masks; ``None`` takes ``ground_truth`` or ``masks`` in the root if one exists.
        test_fraction: Share of the normal images, in [0, 1), that is held out for the test if there is no folder of
            normal test images. The draw depends on the files alone, so runs with different seeds share a test set.
        options: The other arguments of :class:`AnomalyDataModule`.

    Raises:
        FileNotFoundError: A folder is missing, or there is no normal image.
        ValueError: An image has several masks or a mask several images; ``test_fraction`` is out of range; or the name
            of a kind of defect means normal parts.
    """

    name = "folder"
    HELP = """\
Expected: ROOT/good/* (normal parts), and optionally ROOT/<kind of defect>/* and ROOT/masks/<kind of defect>/*;
          or the layout of MVTec AD; or folders named with dataset.train_dir, normal_test_dir, anomalous_test_dir
          and mask_dir"""
    TEST_OPTIONAL: ClassVar = True

    @checked
    def __init__(
        self,
        *,
        root: str | Path,
        category: Any,
        train_dir: str | None,
        normal_test_dir: str | None,
        anomalous_test_dir: str | None,
        mask_dir: str | None,
        test_fraction: Annotated[float, Field(ge=0, lt=1)],
        **options: Any,
    ) -> None:
        place = Path(os.path.abspath(Path(root).expanduser()))
        if train_dir is not None and Path(train_dir).is_absolute() and not place.is_dir():
            place = Path(train_dir).parent
        self.CATEGORIES = (place.name,)
        if train_dir is None and (normal_test_dir or anomalous_test_dir):
            raise ValueError(
                "normal_test_dir and anomalous_test_dir need train_dir: name the folder of training images as well"
            )
        self.test_fraction = test_fraction
        self._places: dict[str, Path] = {}
        names = ("train_dir", "normal_test_dir", "anomalous_test_dir", "mask_dir")
        for name, value in zip(names, (train_dir, normal_test_dir, anomalous_test_dir, mask_dir), strict=True):
            if value is None:
                continue
            self._places[name] = Path(os.path.normpath(place / value))  # one path, however the folder was written
            if not self._places[name].is_dir():
                raise FileNotFoundError(f"{name}: no folder {self._places[name]}")
        super().__init__(root=place, category=category, **options)

    def folder_of(self, category: str) -> Path:
        """The root, whose name is the category."""
        return self.root

    def places(self, category: str) -> list[Path]:
        """The root, or the folders that the options name."""
        return [*self._places.values()] if "train_dir" in self._places else [self.root, *self._places.values()]

    def mask_folders(self, category: str) -> list[Path]:
        """The folder of masks, if it exists."""
        folder = self._mask_dir()
        return [] if folder is None else [folder]

    def companions(self, category: str) -> list[Sample]:
        """Good images that have a mask, which must be black."""
        folder = self._mask_dir()
        if folder is None:
            return []
        train, test = self.scans[category]
        used = {sample.mask_path for sample in test}
        good = [sample.image_path for sample in (*train, *test) if sample.label == 0]
        found = pair_masks(good, folder) | pair_masks(good, folder / NORMAL)
        return [Sample(image, category, NORMAL, 0, mask) for image, mask in found.items() if mask not in used]

    def scan(self, category: str) -> tuple[list[Sample], list[Sample]]:
        """Normal training samples, and normal and anomalous test samples."""
        train_dir, normal_dir, kinds = self._layout()
        normal = list_images(train_dir)
        if not normal:
            raise FileNotFoundError(f"{self.name}: no images in {train_dir}{self._near(train_dir)}\n{self._help()}")
        check_kinds(kinds.values())
        if self.strict and (unread := [f for f in self._sub_folders(train_dir) if list_images(f)]):
            warnings.warn(
                f"{self.name}: images in sub-folders of {train_dir} are not read: {', '.join(f.name for f in unread)}; "
                f"move them up to train on them",
                stacklevel=2,
            )
        if normal_dir is None:
            normal, held_out = self._hold_out(normal)
        else:
            held_out = list_images(normal_dir)
        train = [Sample(path, category, NORMAL, 0) for path in normal]
        test = [Sample(path, category, NORMAL, 0) for path in held_out]
        masks = self._mask_dir()
        images = {kind: list_images(folder) for kind, folder in kinds.items()}
        mask_of = self._pair(images, masks) if masks else {}
        test += [Sample(p, category, kind, 1, mask_of.get(p)) for kind, paths in images.items() for p in paths]
        return train, test

    def _layout(self) -> tuple[Path, Path | None, dict[str, Path]]:
        """Folder of training images, folder of normal test images, and folder of each kind of defect."""
        places = self._places
        if "train_dir" in places:
            bad = places.get("anomalous_test_dir")
            return places["train_dir"], places.get("normal_test_dir"), {} if bad is None else self._kinds(bad)
        if not (self.root / NORMAL).is_dir() and (self.root / "train" / NORMAL).is_dir():
            test = self.root / "test"
            return self.root / "train" / NORMAL, test / NORMAL, self._kinds(test)
        return self.root / NORMAL, None, self._folders_of_kinds(self.root)

    def _kinds(self, folder: Path) -> dict[str, Path]:
        return ({"anomaly": folder} if list_images(folder) else {}) | self._folders_of_kinds(folder)

    def _folders_of_kinds(self, folder: Path) -> dict[str, Path]:
        """The sub-folders that may hold a kind of defect."""
        return {f.name: f for f in self._sub_folders(folder) if f.name != NORMAL}

    def _sub_folders(self, folder: Path) -> list[Path]:
        """The sub-folders that no option names, and that are not of masks."""
        other = [*self._places.values(), self.known_defects, *(self.root / name for name in MASK_FOLDERS)]
        return [f for f in list_folders(folder) if f not in other]

    @staticmethod
    def _near(folder: Path) -> str:
        """A hint at the folder that a user may have meant instead of one without images."""
        alike = [f for f in list_folders(folder.parent) if f.name.lower() == folder.name.lower() and f != folder]
        inside = [f for f in list_folders(folder) if list_images(f)]
        hint = f"; its sub-folders {', '.join(f.name for f in inside)} are not read" if inside else ""
        if list_images(folder.parent):
            return f"; {folder.parent} has images: did you mean dataset.train_dir=. with that root?"
        return hint + "".join(f"; did you mean dataset.train_dir={f}?" for f in alike)

    def _mask_dir(self) -> Path | None:
        given = self._places.get("mask_dir")
        there = [self.root / name for name in MASK_FOLDERS if (self.root / name).is_dir()]
        if given is None and len(there) > 1:
            raise ValueError(f"several folders of masks: {there[0]} and {there[1]}; choose with dataset.mask_dir=PATH")
        return given or (there[0] if there else None)

    @staticmethod
    def _pair(images: dict[str, list[Path]], masks: Path) -> dict[Path, Path]:
        """The mask of each image that has one."""
        flat = [path for kind, paths in images.items() if not (masks / kind).is_dir() for path in paths]
        found = pair_masks(flat, masks)
        for kind, paths in images.items():
            if (masks / kind).is_dir():
                found |= pair_masks(paths, masks / kind)
        return found

    def _hold_out(self, normal: list[Path]) -> tuple[list[Path], list[Path]]:
        count = round(self.test_fraction * len(normal))
        if self.test_fraction > 0:  # keep two images: one to train on, one to standardise the maps
            count = max(0, min(max(count, 1), len(normal) - 2))
        chosen = set(np.random.default_rng(0).permutation(len(normal))[:count].tolist())
        return [p for i, p in enumerate(normal) if i not in chosen], [p for i, p in enumerate(normal) if i in chosen]
