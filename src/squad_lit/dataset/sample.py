"""A sample is an image file of a data set; an item is its pixels, mask and labels."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from squad_lit.dataset.cache import Cache
from squad_lit.dataset.corruption import Corruption
from squad_lit.dataset.image import image_size, mask_files, read_image, read_mask, resize, resize_mask
from squad_lit.image.intact import check_image

NORMAL = "good"
"""The ``defect`` of a normal sample in every data set. BTAD's "ok" and VisA's "normal" are renamed to it."""

_MEANS_NORMAL = {NORMAL, "ok", "normal"}

# Faulty files that an error lists.
_LISTED = 20


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
        try:
            image = read_image(sample.image_path, self.intensity_range)
            mask = None if sample.mask_path is None else read_mask(sample.mask_path)
        except OSError as error:  # damaged in the middle, which only decoding finds
            raise OSError(f"{error}; {_HINT}") from error
        resized = resize(image, self.image_size)
        if mask is None or sample.mask_path is None:
            return resized
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


_HINT = "squad-lit check names all such files, and dataset.skip_unreadable=true goes on without them"


def check_samples(
    samples: Sequence[Sample], intensity_range: Sequence[float] | None, *, skip: bool
) -> tuple[list[Sample], list[str]]:
    """Look for missing and wrong files, so that they are found before the training.

    Args:
        samples: The samples.
        intensity_range: See :func:`read_image`.
        skip: Whether samples with a file that cannot be read are left out, instead of being an error. All files are
            decoded to find them.

    Returns:
        The samples that can be read, and why the others cannot.

    Raises:
        OSError: Files are no images, or damaged, or masks are missing. The message names all of them.
        ValueError: A mask and its image differ in size, or pixels are of a kind that is not taken.
    """
    with ThreadPoolExecutor() as threads:
        unreadable = list(threads.map(lambda sample: _unreadable(sample, intensity_range, decode=skip), samples))
    faults = [error or _mismatch(sample) for sample, error in zip(samples, unreadable, strict=True)]
    if skip:
        faults = [None if error else fault for fault, error in zip(faults, unreadable, strict=True)]
    if found := [fault for fault in faults if fault]:
        text = str(found[0])
        if len(found) > 1:
            more = f"\n... and {len(found) - _LISTED:,} more" if len(found) > _LISTED else ""
            text = f"{len(found):,} files are wrong:\n" + "\n".join(map(str, found[:_LISTED])) + more
        raise type(found[0])(f"{text}; {_HINT}" if any(unreadable) and not skip else text)
    return [s for s, e in zip(samples, unreadable, strict=True) if not e], [str(error) for error in unreadable if error]


def _unreadable(sample: Sample, intensity_range: Sequence[float] | None, *, decode: bool) -> Exception | None:
    """Why the image or the mask of a sample cannot be read."""
    try:
        check_image(sample.image_path, intensity_range, decode=decode)
        for file in () if sample.mask_path is None else mask_files(sample.mask_path):
            if file.is_file():
                check_image(file, is_mask=True, decode=decode)
    except (OSError, ValueError) as error:
        return error
    return None


def _mismatch(sample: Sample) -> Exception | None:
    """Why an image and its mask do not go together."""
    if sample.mask_path is None:
        return None
    files = mask_files(sample.mask_path)
    if not files or not files[0].is_file():
        text = "no mask for image {}: expected {}; dataset=folder also takes defective images without a mask"
        return FileNotFoundError(text.format(sample.image_path, sample.mask_path))
    try:
        for file in files:
            _check_sizes(sample, image_size(sample.image_path), file, image_size(file))
    except ValueError as error:
        return error
    return None


def _check_sizes(sample: Sample, image: Sequence[int], path: Path, mask: Sequence[int]) -> None:
    if tuple(image) != tuple(mask):
        raise ValueError(
            f"mask {path} is {mask[0]}x{mask[1]} pixels (height x width), its image {sample.image_path} is "
            f"{image[0]}x{image[1]}; they must be equal"
        )
