"""A sample is an image file of a data set; an item is its pixels, mask and labels."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from squad_lit.dataset.cache import Cache
from squad_lit.dataset.corruption import Corruption
from squad_lit.dataset.image import image_size, mask_files, read_image, read_mask, resize, resize_mask

NORMAL = "good"
"""The ``defect`` of a normal sample in every data set. BTAD's "ok" and VisA's "normal" are renamed to it."""

_MEANS_NORMAL = {NORMAL, "ok", "normal"}


@dataclass(frozen=True)
class Sample:
    """An image file and what the data set says about it.

    Args:
        image_path: The image file.
        category: The data set's word for the object or texture, such as ``bottle``.
        defect: The data set's word for the kind of defect; ``good`` for a normal image.
        label: 0 is normal, 1 is anomalous.
        mask_path: Where the ground-truth mask is expected, a file, or a folder of masks that are united; ``None`` for a
            normal image, or if there is no mask.
    """

    image_path: Path
    category: str
    defect: str
    label: int
    mask_path: Path | None = None


class AnomalyDataset(Dataset[dict[str, Any]]):
    """Samples as plain dictionaries, resized but not normalised, because each backbone has its own mean and deviation.

    An item holds ``image`` float32 ``(3, H, W)`` in [0, 1], ``mask`` uint8 ``(1, H, W)`` of 0 and 1, ``label`` int,
    ``index`` int (its position in the dataset), and the texts ``category``, ``defect``, ``image_path`` and
    ``mask_path`` (empty if there is no mask).

    Args:
        samples: The samples, in the order of the items.
        image_size: ``(height, width)`` of the items in pixels.
        cache: Keeps decoded, resized images after the first read; ``None`` reads the files each time.
        intensity_range: See :func:`read_image`.

    Attributes:
        corruption: Changes each image and its mask after they are read; None changes nothing.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        image_size: tuple[int, int],
        *,
        cache: Cache | None = None,
        intensity_range: Sequence[float] | None = None,
    ) -> None:
        self.samples = list(samples)
        self.image_size = image_size
        self.cache = cache
        self.intensity_range = intensity_range
        self.corruption: Corruption | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = self.samples[index]
        index = index % len(self.samples)  # dataset[-1] and dataset[len - 1] are one item
        image, mask = self._read(sample)
        if self.corruption is not None:
            image, mask = self.corruption(image, mask, index)
        return {
            "image": image,
            "mask": mask,
            "label": sample.label,
            "index": index,
            "category": sample.category,
            "defect": sample.defect,
            "image_path": str(sample.image_path),
            "mask_path": "" if sample.mask_path is None else str(sample.mask_path),
        }

    def _read(self, sample: Sample) -> tuple[Tensor, Tensor]:
        paths = [sample.image_path, *(mask_files(sample.mask_path) if sample.mask_path is not None else [])]
        options = f"{self.image_size} {self.intensity_range}"
        found = None if self.cache is None else self.cache.get(paths, options)
        if found is None:
            found = self._decode(sample)
            if self.cache is not None:
                self.cache.put(paths, options, found)
        mask = torch.zeros(1, *self.image_size) if sample.mask_path is None else found[3:]
        # Copies, because a caller that works in place must not change the next epoch's items.
        return found[:3].clone(), mask.to(torch.uint8)

    def _decode(self, sample: Sample) -> Tensor:
        """The image and, as a fourth channel, the mask if there is one: ``(3 or 4, height, width)``, float32."""
        image = read_image(sample.image_path, self.intensity_range)
        resized = resize(image, self.image_size)
        if sample.mask_path is None:
            return resized
        mask = read_mask(sample.mask_path)
        _check_sizes(sample, image.shape[1:], sample.mask_path, mask.shape)
        return torch.cat([resized, resize_mask(mask, self.image_size)[None].float()])


def check_kinds(folders: Iterable[Path]) -> None:
    """Refuse folders of defects whose name means normal parts, such as ``Good``.

    Raises:
        ValueError: Names the folder.
    """
    for folder in folders:
        if folder.name.lower() in _MEANS_NORMAL:
            raise ValueError(
                f"{folder}: every folder beside {NORMAL!r} is a kind of defect, but this name means normal parts; move "
                f"its images to {NORMAL!r}, or rename the folder if they are defective"
            )


def check_headers(samples: Sequence[Sample]) -> None:
    """Read the image headers, so that a missing or wrong file is found before the training.

    Raises:
        FileNotFoundError: A mask is missing.
        OSError: A file is no image.
        ValueError: A mask and its image differ in size.
    """
    for sample in samples:
        size = image_size(sample.image_path)
        if sample.mask_path is None:
            continue
        files = mask_files(sample.mask_path)
        if not files or not files[0].is_file():
            raise FileNotFoundError(f"no mask for image {sample.image_path}: expected {sample.mask_path}")
        for file in files:
            _check_sizes(sample, size, file, image_size(file))


def _check_sizes(sample: Sample, image: Sequence[int], path: Path, mask: Sequence[int]) -> None:
    if tuple(image) != tuple(mask):
        raise ValueError(
            f"mask {path} is {mask[0]}x{mask[1]} pixels (height x width), its image {sample.image_path} is "
            f"{image[0]}x{image[1]}; they must be equal"
        )
