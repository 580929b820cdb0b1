"""One image file of a benchmark, and the dataset items that are made of such."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from squad_lit.dataset.cache import Cache
from squad_lit.dataset.image import image_size, read_image, read_mask, resize, resize_mask

NORMAL = "good"
"""The ``defect`` of a normal sample, in every benchmark (BTAD's "ok" and VisA's "normal" are renamed to it)."""

_MEANS_NORMAL = {NORMAL, "ok", "normal"}


@dataclass(frozen=True)
class Sample:
    """One image file and what the benchmark says about it.

    Args:
        image_path: The image file.
        category: The benchmark's word for the object or texture, such as ``bottle``.
        defect: The benchmark's word for the kind of defect; ``good`` if there is none.
        label: 0 = normal, 1 = anomalous.
        mask_path: Where the ground-truth mask is, or has to be; ``None`` for a normal image, and where nobody has drawn
            one.
    """

    image_path: Path
    category: str
    defect: str
    label: int
    mask_path: Path | None = None


class AnomalyDataset(Dataset[dict[str, Any]]):
    """Samples as plain dictionaries, resized, not normalised (the backbone knows its own mean and deviation).

    An item holds ``image`` float32 ``(3, H, W)`` in [0, 1], ``mask`` uint8 ``(1, H, W)``, ``label`` int, ``index`` int
    (the position in this dataset), ``category``, ``defect``, ``image_path`` str and ``mask_path`` str ("" if none).

    Args:
        samples: The files, in the order of the items.
        image_size: ``(height, width)`` of the items.
        cache: Keeps decoded, resized images after the first read; ``None`` reads each time.
        intensity_range: See :func:`read_image`.
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

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = self.samples[index]
        index = index % len(self.samples)  # dataset[-1] and dataset[len - 1] are one item
        image, mask = self._read(sample)
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
        if self.cache is None:
            return self._decode(sample)
        paths = [path for path in (sample.image_path, sample.mask_path) if path is not None]
        options = f"{self.image_size} {self.intensity_range}"
        found = self.cache.get(paths, options)
        if found is None:
            # One zero seen from every pixel costs the cache no memory: only a mask that was drawn is kept.
            image, mask = self._decode(sample)
            self.cache.put(paths, options, image if sample.mask_path is None else torch.cat([image, mask.float()]))
            return image.clone(), mask.clone()
        mask = found[3:].to(torch.uint8) if len(found) > 3 else self._no_mask()
        # Copies: a caller that works in place must not change what the next epoch sees.
        return found[:3].clone(), mask.clone()

    def _no_mask(self) -> Tensor:
        return torch.zeros((), dtype=torch.uint8).expand(1, *self.image_size)

    def _decode(self, sample: Sample) -> tuple[Tensor, Tensor]:
        image = read_image(sample.image_path, self.intensity_range)
        if sample.mask_path is None:
            mask = self._no_mask()
        else:
            raw = read_mask(sample.mask_path)
            if raw.shape != image.shape[1:]:
                raise ValueError(
                    f"mask {sample.mask_path} is {raw.shape[0]}x{raw.shape[1]} pixels (height x width), its image "
                    f"{sample.image_path} is {image.shape[1]}x{image.shape[2]}; they must be equal"
                )
            mask = resize_mask(raw, self.image_size)[None]
        return resize(image, self.image_size), mask


def check_kinds(folders: Iterable[Path]) -> None:
    """Refuse folders of defects whose name says that the parts in them are normal, such as ``Good``.

    Raises:
        ValueError: Names the folder.
    """
    for folder in folders:
        if folder.name.lower() in _MEANS_NORMAL:
            raise ValueError(
                f"{folder}: every folder beside {NORMAL!r} is a kind of defect, but this name says that the parts are "
                f"normal; move its images to {NORMAL!r}, or give it another name if they are defective"
            )


def check_headers(samples: Sequence[Sample]) -> None:
    """Fail on a missing or foreign file and on a mask of another size now, and not after the training.

    Raises:
        FileNotFoundError: A mask that is not there.
        OSError: A file that is no image.
        ValueError: A mask of another size than its image.
    """
    for sample in samples:
        size = image_size(sample.image_path)
        if sample.mask_path is None:
            continue
        if not sample.mask_path.is_file():
            raise FileNotFoundError(f"no mask for image {sample.image_path}: expected {sample.mask_path}")
        mask_size = image_size(sample.mask_path)
        if mask_size != size:
            raise ValueError(
                f"mask {sample.mask_path} is {mask_size[0]}x{mask_size[1]} pixels (height x width), its image "
                f"{sample.image_path} is {size[0]}x{size[1]}; they must be equal"
            )
