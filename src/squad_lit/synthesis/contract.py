"""What a kind of defect, a synthesis or an augmentation of your own must offer to take the place of ours."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from squad_lit.image.tile import Window
from squad_lit.synthesis.defect import Array, Mask, Scene


@runtime_checkable
class Defect(Protocol):
    """A kind of small synthetic defect: ``synthesis.defects.NAME``, with a weight in ``synthesis.kinds.NAME``."""

    def __call__(self, scene: Scene, area: float, opacity: float) -> Array:
        """Draw the defect on an image.

        Args:
            scene: The image ``(H, W, 3)`` float32 in [0, 1], the foreground where the defect should lie, and
                ``scene.rng``, the only source of randomness.
            area: Wanted area in pixels.
            opacity: Wanted opacity in (0, 1].

        Returns:
            The changed image, ``(H, W, 3)`` float32 in [0, 1]. The mask is what differs visibly.
        """
        ...


@runtime_checkable
class ImageSynthesis(Protocol):
    """What makes synthetic anomalies: ``synthesis``.

    One that is to be used with ``dataset.roi`` has one more argument, ``inside``, ``(H, W)`` bool: where to draw.
    """

    def __call__(self, image: Array, others: Sequence[Array], rng: np.random.Generator) -> tuple[Array, Mask]:
        """Corrupt an image.

        Args:
            image: ``(H, W, 3)`` float32 in [0, 1].
            others: Normal images of the same category and size, as a source of displaced parts; may be empty.
            rng: The only source of randomness, so that a sample depends on its seed alone.

        Returns:
            The corrupted image, and the mask ``(H, W)`` bool of the pixels that changed visibly, which is never empty.
        """
        ...


@runtime_checkable
class View(Protocol):
    """What makes another view of a normal training image: ``augmentation``."""

    def __call__(self, image: Tensor, rng: np.random.Generator, window: Window) -> Tensor:
        """Draw a view.

        Args:
            image: ``(3, H, W)`` in [0, 1].
            rng: The only source of randomness.
            window: Rows and columns of the wanted part; of a large image, only these need to be computed.

        Returns:
            The part, ``(3, height, width)`` in [0, 1].
        """
        ...


def corrupt(
    synthesis: ImageSynthesis, image: Array, others: Sequence[Array], rng: np.random.Generator, inside: Mask | None
) -> tuple[Array, Mask]:
    """Draw a synthetic anomaly, inside of a region of interest if there is one; an empty region gets none.

    Raises:
        TypeError: The synthesis knows no region.
    """
    if inside is None:
        return synthesis(image, others, rng)
    if not inside.any():
        return image, np.zeros(inside.shape, bool)
    try:
        changed, mask = synthesis(image, others, rng, inside=inside)  # type: ignore[call-arg]
    except TypeError as error:
        if "inside" not in str(error):
            raise
        raise TypeError(
            f"dataset.roi: the synthesis {type(synthesis).__name__} has no argument inside: {error}"
        ) from None
    return within(changed, image, inside), mask & inside


def within(changed: Array, image: Array, inside: Mask | None) -> Array:
    """The changed image ``(H, W, 3)`` in a region ``(H, W)``, and the image itself outside; None: everywhere."""
    return changed if inside is None else np.where(inside[..., None], changed, image)
