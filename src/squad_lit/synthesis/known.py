"""Known defects on other normal images: what was marked is cut out, varied and pasted."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from squad_lit.synthesis.contract import within
from squad_lit.synthesis.defect import Array, Mask
from squad_lit.synthesis.image import changed_pixels, estimate_foreground

# Largest change of size, and of brightness, of a pasted defect.
_ZOOM, _TONE = 1.3, 0.08
# Width in pixels of what is seen around a defect, whose brightness is brought to that of its new place.
_RING = 4


class KnownDefect(NamedTuple):
    """An image ``(H, W, 3)`` float32 in [0, 1] with a defect, and where it is, ``(H, W)`` bool; None: nobody knows."""

    image: Array
    mask: Mask | None


def paste(
    image: Array, known: KnownDefect, rng: np.random.Generator, inside: Mask | None = None
) -> tuple[Array, Mask] | None:
    """Paste a known defect on a normal image, turned, flipped, zoomed, and lighter or darker.

    Half of the time it stays about where it was, and else it lies anywhere on the estimated foreground. Its brightness
    follows what surrounds it.

    Args:
        image: ``(H, W, 3)`` float32 in [0, 1].
        known: Of the same size, with a mask that is not empty.
        rng: The only source of randomness.
        inside: Where the image may change, ``(H, W)``; None: everywhere.

    Returns:
        The changed image, and the mask of the pixels that changed visibly; None if none did.
    """
    assert known.mask is not None
    size = np.array(image.shape[:2])
    centre = np.array(ndimage.center_of_mass(known.mask))
    if rng.random() < 0.5:
        place, angle = centre + rng.normal(0, 0.02, 2) * size, rng.uniform(-0.2, 0.2)
    else:
        foreground, _ = estimate_foreground(image)
        if inside is not None and (foreground & inside).any():
            foreground = foreground & inside
        flat = np.flatnonzero(foreground)
        place = np.array(np.unravel_index(flat[rng.integers(len(flat))], foreground.shape), float)
        angle = rng.uniform(0, 2 * np.pi)
    zoom = np.exp(rng.uniform(-1, 1) * np.log(_ZOOM))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.diag([1, rng.choice([-1, 1])]) / zoom  # from a pixel of the result to one of the source
    offset = centre - matrix @ place

    def moved(plane: Array, order: int = 1, mode: str = "nearest") -> Array:
        found: Array = ndimage.affine_transform(plane, matrix, offset, order=order, mode=mode)
        return found

    shape = moved(known.mask.astype(np.float32), mode="constant")
    rim = moved(ndimage.binary_dilation(known.mask, iterations=_RING).astype(np.float32), mode="constant") > 0.5
    rim &= shape < 0.5
    source = np.stack([moved(known.image[..., channel]) for channel in range(3)], -1)
    shift = (image[rim] - source[rim]).mean(0) if rim.any() else np.zeros(3, np.float32)
    source = np.clip(source + shift + rng.uniform(-_TONE, _TONE), 0, 1)
    opacity = np.clip(ndimage.gaussian_filter(shape, 0.7) * rng.uniform(0.8, 1.0), 0, 1)[..., None]
    changed = (image * (1 - opacity) + source * opacity).astype(np.float32)
    changed = within(changed, image, inside)
    mask = changed_pixels(image, changed) & (shape > 0.1)
    return (changed, mask) if mask.any() else None
