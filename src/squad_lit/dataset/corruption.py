"""What may change on a line after the training: light, blur, noise and the position of the part."""

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor


def light(image: Tensor, mask: Tensor, strength: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Multiply the brightness by the strength; 1 changes nothing."""
    return (image * strength).clamp(0, 1), mask


def blur(image: Tensor, mask: Tensor, strength: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Blur by a Gaussian whose deviation is the strength in pixels of the resized image."""
    smooth = ndimage.gaussian_filter(image.numpy(), (0, strength, strength), mode="nearest")
    return torch.from_numpy(smooth), mask


def noise(image: Tensor, mask: Tensor, strength: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Add Gaussian noise whose deviation is the strength, as a share of the range of intensities."""
    drawn = torch.from_numpy(rng.normal(0, strength, image.shape).astype(np.float32))
    return (image + drawn).clamp(0, 1), mask


def shift(image: Tensor, mask: Tensor, strength: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Shift image and mask by the strength, as a share of the sides, in a random direction; the border is repeated."""
    angle = rng.uniform(0, 2 * math.pi)
    height, width = image.shape[-2:]
    by = round(strength * height * math.sin(angle)), round(strength * width * math.cos(angle))
    row, column = (torch.arange(side) - offset for side, offset in zip((height, width), by, strict=True))
    moved = image[:, row.clamp(0, height - 1)][:, :, column.clamp(0, width - 1)]
    inside = ((row >= 0) & (row < height))[:, None] & ((column >= 0) & (column < width))
    kept = mask[:, row.clamp(0, height - 1)][:, :, column.clamp(0, width - 1)] * inside
    return moved, kept.to(mask.dtype)


KINDS: Mapping[str, Callable[..., tuple[Tensor, Tensor]]] = {f.__name__: f for f in (light, blur, noise, shift)}
"""The corruptions by name."""

NEUTRAL = {"light": 1.0, "blur": 0.0, "noise": 0.0, "shift": 0.0}
"""The strength of each kind that changes nothing."""


class Corruption:
    """Changes images in the same way each time.

    Args:
        strengths: Strength per kind of :data:`KINDS`, at least 0; the kinds are applied in this order.
        seed: Seed of what is drawn; each image has a stream of its own.

    Raises:
        ValueError: A kind is unknown.
    """

    def __init__(self, strengths: Mapping[str, float], seed: int) -> None:
        if unknown := [kind for kind in strengths if kind not in KINDS]:
            raise ValueError(f"corruption: unknown {', '.join(unknown)}; known: {', '.join(KINDS)}")
        self.strengths, self.seed = dict(strengths), seed

    def __call__(self, image: Tensor, mask: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """Change an image ``(3, H, W)`` in [0, 1], and its mask ``(1, H, W)`` where pixels move.

        Args:
            image: The image.
            mask: Its mask.
            index: Its position in the data set.
        """
        rng = np.random.default_rng([self.seed, index])
        for kind, strength in self.strengths.items():
            image, mask = KINDS[kind](image, mask, strength, rng)
        return image, mask
