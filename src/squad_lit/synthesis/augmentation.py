"""Views of normal training images, which are small changes of pose and light that leave a good part good."""

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from squad_lit.image.tile import Window
from squad_lit.system.option import checked

Half = Annotated[float, Field(ge=0, le=0.5)]
Angle = Annotated[float, Field(ge=0, le=180)]
_WHOLE = slice(None), slice(None)


class Augmentation:
    """Random flips, rotation, shift, zoom and brightness; pixels from beyond the border are mirrored.

    Args:
        flip: Any of ``horizontal`` and ``vertical``; each is applied to half of the views.
        rotation: Largest angle in degrees, up to 180.
        shift: Largest shift as a share of the side, up to 0.5.
        zoom: Largest change of scale as a share, up to 0.5.
        brightness: Largest change of brightness as a share, up to 0.5.
    """

    @checked
    def __init__(
        self,
        *,
        flip: Sequence[Literal["horizontal", "vertical"]],
        rotation: Angle,
        shift: Half,
        zoom: Half,
        brightness: Half,
    ) -> None:
        self.flip, self.rotation, self.shift, self.zoom, self.brightness = flip, rotation, shift, zoom, brightness

    def __call__(self, image: Tensor, rng: np.random.Generator, window: Window = _WHOLE) -> Tensor:
        """Draw a view; see :class:`squad_lit.synthesis.contract.View`."""
        flip = [d for d, name in ((-1, "horizontal"), (-2, "vertical")) if name in self.flip and rng.random() < 0.5]
        image = image.flip(flip) if flip else image
        angle = np.deg2rad(rng.uniform(-self.rotation, self.rotation))
        scale = 1 + rng.uniform(-self.zoom, self.zoom)
        shift = rng.uniform(-2 * self.shift, 2 * self.shift, 2)
        factor = 1 + rng.uniform(-self.brightness, self.brightness)
        if self.rotation or self.zoom or self.shift:
            h, w = image.shape[-2:]
            c, s = np.cos(angle) / scale, np.sin(angle) / scale
            matrix = torch.tensor([[[c, -s * h / w, shift[0]], [s * w / h, c, shift[1]]]], dtype=image.dtype)
            grid = F.affine_grid(matrix, [1, 3, h, w], align_corners=False)[:, *window]
            part = F.grid_sample(image[None], grid, mode="bilinear", padding_mode="reflection", align_corners=False)[0]
        else:
            part = image[:, *window]
        return (part * factor).clamp(0, 1)
