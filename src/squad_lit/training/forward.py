"""What a forward pass gives, and how large images are cut into tiles and their outputs merged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from squad_lit.image.tile import Grid
from squad_lit.network.generator import Reconstruction


class ForwardOutput(NamedTuple):
    """A forward pass over images: raw maps ``{name: (N, H, W)}``, features, and their reconstruction if there is one.

    Where each image is cut into T tiles, features and reconstruction are those of the N * T tiles, image by image, and
    the maps are those of the whole images.
    """

    maps: dict[str, Tensor]
    features: dict[str, Tensor]
    recon: Reconstruction | None = None


def cut(image: Tensor, grid: Grid) -> Tensor:
    """The tiles of images, image by image: ``(N, C, H, W) -> (N * T, C, height, width)``."""
    return torch.stack([image[..., rows, columns] for rows, columns in grid.windows], 1).flatten(0, 1)


def blend(tiles: Tensor, grid: Grid) -> Tensor:
    """The whole images, or maps, from their tiles: ``(N * T, ..., height, width) -> (N, ..., H, W)``."""
    if len(grid) == 1:
        return tiles
    parts = tiles.unflatten(0, (-1, len(grid)))
    whole = tiles.new_zeros(*parts[:, 0].shape[:-2], *grid.size)
    for number, (rows, columns) in enumerate(grid.windows):
        whole[..., rows, columns] += torch.from_numpy(grid.weight(number)).to(tiles) * parts[:, number]
    return whole


def merge_tiles(parts: Sequence[ForwardOutput], grid: Grid) -> ForwardOutput:
    """The output for whole images from those for their tiles, in the order of :func:`cut`, a few tiles in each part."""
    maps = {name: blend(torch.cat([p.maps[name] for p in parts]), grid) for name in parts[0].maps}
    features = _joined([p.features for p in parts])
    recons = [p.recon for p in parts if p.recon is not None]
    if not recons:
        return ForwardOutput(maps, features)
    names = ("feature_recon", "codes", "indices")
    joined = {name: _joined([getattr(r, name) for r in recons]) for name in names}
    return ForwardOutput(maps, features, Reconstruction(**joined, loss=torch.stack([r.loss for r in recons]).mean()))


def _joined(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """By group; a quantiser without indices has None."""
    return {g: None if first is None else torch.cat([p[g] for p in parts]) for g, first in parts[0].items()}
