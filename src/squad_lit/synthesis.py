"""Synthetic anomalies for training: on the image, and on the code.

Everything here is numpy in, numpy out with an explicit generator, so that a sample depends on its seed alone; images
are ``(H, W, 3)`` float32 in [0, 1]. Code-level moves are torch, because codes live on the training device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import skimage
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]

# Images that come inside the scikit-image wheel and hold texture rather than a drawing.
_TEXTURES = [
    "brick",
    "grass",
    "gravel",
    "camera",
    "coins",
    "moon",
    "page",
    "text",
    "cell",
    "astronaut",
    "chelsea",
    "coffee",
    "rocket",
    "retina",
]
_TEXTURES += ["hubble_deep_field", "immunohistochemistry"]
# A pixel counts as changed from this mean absolute difference on: about what an inspector can see.
VISIBLE = 0.025


class Scene(NamedTuple):
    """What a defect may use: the image, where the object is, other normal images, and the randomness."""

    image: Array
    foreground: Mask
    background: Array
    others: Sequence[Array]
    textures: Sequence[Array]
    rng: np.random.Generator


class Synthesis:
    """Draws synthetic anomalies that span gross to hair-thin.

    A sample is, with probability ``gross``, one texture in a Perlin mask of up to ``gross_area`` of the image;
    otherwise it is one to ``fine_count`` small defects on the estimated foreground, whose areas are log-uniform.

    Args:
        kinds: Weight of each kind of small defect: any of ``patch, own, tone, stain, dent, warp, scratch, missing``.
        gross: Probability of a gross defect.
        gross_area: Largest share of the image that a gross defect covers.
        fine_area: Smallest area in px and largest area as a share of the image, of a small defect.
        fine_count: Most small defects in an image.
        opacity: Range of the opacity of what is pasted.
        texture_dir: A folder of texture images, such as DTD, used instead of scikit-image's packaged ones.

    Raises:
        ValueError: An unknown kind, no kind with a weight, or a number out of range.
        FileNotFoundError: ``texture_dir`` does not exist or holds no image.
    """

    def __init__(
        self,
        *,
        kinds: Mapping[str, float],
        gross: float,
        gross_area: float,
        fine_area: Sequence[float],
        fine_count: int,
        opacity: Sequence[float],
        texture_dir: str | None = None,
    ) -> None:
        if unknown := sorted(set(kinds) - set(KINDS)):
            raise ValueError(f"synthesis.kinds: unknown {unknown}; known: {sorted(KINDS)}")
        if min(kinds.values(), default=0) < 0 or sum(kinds.values()) <= 0:
            raise ValueError(f"synthesis.kinds: expected weights of at least 0 with a positive sum, got {dict(kinds)}")
        for name, value in {"gross": gross, "gross_area": gross_area, "fine_area[1]": fine_area[1]}.items():
            if not 0 <= value <= 1:
                raise ValueError(f"synthesis.{name}: expected a share in [0, 1], got {value}")
        if fine_count < 1 or fine_area[0] < 1:
            raise ValueError(f"synthesis: fine_count and fine_area[0] must be >= 1, got {fine_count}, {fine_area[0]}")
        if not 0 < opacity[0] <= opacity[1] <= 1:
            raise ValueError(f"synthesis.opacity: expected a range in (0, 1], got {list(opacity)}")
        self.names = list(kinds)
        self.weights = np.array([kinds[name] for name in self.names]) / sum(kinds.values())
        self.gross, self.gross_area = gross, gross_area
        self.fine_area, self.fine_count, self.opacity = fine_area, fine_count, (opacity[0], opacity[1])
        self.textures = _load_textures(texture_dir)

    def __call__(self, image: Array, others: Sequence[Array], rng: np.random.Generator) -> tuple[Array, Mask]:
        """Corrupt an image.

        Args:
            image: ``(H, W, 3)`` float32 in [0, 1].
            others: Normal images of the same category and size, as a source of displaced parts; may be empty.
            rng: The only source of randomness.

        Returns:
            The corrupted image, and the mask ``(H, W)`` of the pixels that changed visibly; never empty.
        """
        foreground, background = estimate_foreground(image)
        scene = Scene(image, foreground, background, others, self.textures, rng)
        for _ in range(8):  # a draw may change nothing, e.g. a grey tone on grey
            changed = (self._gross(scene) if rng.random() < self.gross else self._fine(scene)).astype(np.float32)
            mask = changed_pixels(image, changed)
            if mask.sum() >= self.fine_area[0] / 2:
                return changed, mask
        opposite = (image < 0.5).astype(np.float32)  # black or white, whichever is far: this changes any image
        changed = _blend(image, opposite, _blob(scene, 4 * self.fine_area[0]), 1.0).astype(np.float32)
        return changed, changed_pixels(image, changed)

    def _gross(self, scene: Scene) -> Array:
        rng = scene.rng
        noise = perlin(scene.image.shape[:2], 2.0 ** rng.uniform(1, 5, 2), rng)
        shape = noise > np.quantile(noise, 1 - rng.uniform(min(0.02, self.gross_area), self.gross_area))
        if not scene.foreground.all() and rng.random() < 0.7:
            shape &= scene.foreground
        fill = _pasted(scene) if rng.random() < 0.7 else _own(scene)
        return _blend(scene.image, fill, shape.astype(np.float32), rng.uniform(*self.opacity))

    def _fine(self, scene: Scene) -> Array:
        rng = scene.rng
        smallest = self.fine_area[0]
        low, high = np.log(smallest), np.log(max(smallest, self.fine_area[1] * scene.foreground.size))
        for _ in range(rng.integers(1, self.fine_count + 1)):
            kind = KINDS[self.names[rng.choice(len(self.names), p=self.weights)]]
            area = float(np.exp(rng.uniform(low, high)))
            scene = scene._replace(image=kind(scene, area, rng.uniform(*self.opacity)))
        return scene.image


def perlin(shape: Sequence[int], cells: Sequence[float] | NDArray[Any], rng: np.random.Generator) -> Array:
    """Gradient noise, about in [-1, 1].

    Args:
        shape: ``(H, W)`` in px.
        cells: Lattice cells along each side; more cells, finer noise.
        rng: Source of the gradients and of the lattice's offset.

    Reference:
        Perlin, "An Image Synthesizer", SIGGRAPH 1985.
    """
    axis = [
        np.linspace(0, c, n, dtype=np.float32) + np.float32(rng.random()) for c, n in zip(cells, shape, strict=True)
    ]
    corner = [a.astype(int) for a in axis]
    angle = rng.uniform(0, 2 * np.pi, [int(c.max()) + 2 for c in corner]).astype(np.float32)
    gradient = np.exp(1j * angle).astype(np.complex64)  # one array: the look-ups below are what takes time
    y, x = axis[0] - corner[0], axis[1] - corner[1]
    fade_y, fade_x = (t * t * t * (t * (6 * t - 15) + 10) for t in (y, x))

    def ramp(dy: int, dx: int) -> Array:
        found = gradient[np.ix_(corner[0] + dy, corner[1] + dx)]
        return found.imag * (y - dy)[:, None] + found.real * (x - dx)[None, :]

    top = ramp(0, 0) + fade_x[None, :] * (ramp(0, 1) - ramp(0, 0))
    bottom = ramp(1, 0) + fade_x[None, :] * (ramp(1, 1) - ramp(1, 0))
    return np.asarray(np.sqrt(2) * (top + fade_y[:, None] * (bottom - top)), np.float32)


def estimate_foreground(image: Array) -> tuple[Mask, Array]:
    """Where the object is, if it lies on a plain background; everywhere otherwise.

    The background is a quadratic surface, because lighting is rarely even, fitted to the colours along the border.

    Args:
        image: ``(H, W, 3)`` float32 in [0, 1].

    Returns:
        Mask ``(H, W)``, and the background ``(H, W, 3)``.
    """
    h, w = image.shape[:2]
    y, x = (a.astype(np.float32) for a in np.meshgrid(np.linspace(-1, 1, h), np.linspace(-1, 1, w), indexing="ij"))
    surface = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], -1)
    border = np.zeros((h, w), bool)
    border[::4, [1, -2]] = border[[1, -2], ::4] = True
    terms, colours = surface[border], image[border]
    keep = np.ones(len(terms), bool)
    for _ in range(2):  # the second fit leaves out what crosses the border: a part of the object, a hook, a shadow
        weights = np.linalg.lstsq(terms[keep], colours[keep], rcond=None)[0]
        error = np.abs(terms @ weights - colours).mean(1)
        keep = error <= max(0.03, float(np.median(error)) * 3)
    background = (surface.reshape(-1, 6) @ weights).reshape(image.shape).clip(0, 1).astype(np.float32)
    everywhere = np.ones((h, w), bool)
    if keep.mean() < 0.7:
        return everywhere, background
    noise = float(np.median(error[keep]))
    # At half the resolution: this is done for every synthetic image.
    found = ndimage.uniform_filter(np.abs(image - background)[::2, ::2].mean(2), 3) > max(0.06, 4 * noise)
    found = ndimage.binary_fill_holes(ndimage.binary_closing(found))
    found = found.repeat(2, 0).repeat(2, 1)[:h, :w]
    return (found, background) if 0.02 < found.mean() < 0.95 else (everywhere, background)


def changed_pixels(before: Array, after: Array) -> Mask:
    """Pixels that changed visibly, with pinholes closed; both images ``(H, W, 3)`` in [0, 1]."""
    changed = np.abs(after - before).mean(2) > VISIBLE
    return changed | ndimage.binary_closing(changed, np.ones((3, 3), bool))


def _load_textures(folder: str | None) -> list[Array]:
    if folder is None:
        return _packaged_textures()
    root = Path(folder)
    files = [p for p in sorted(root.rglob("*")) if p.suffix.lower() in {".png", ".jpg", ".jpeg", ".bmp"}]
    if not files:
        raise FileNotFoundError(f"synthesis.texture_dir: no png, jpg or bmp image under {root.resolve()}")
    return [_to_texture(skimage.io.imread(p)) for p in files]


@lru_cache(maxsize=1)
def _packaged_textures() -> list[Array]:
    return [_to_texture(getattr(skimage.data, name)()) for name in _TEXTURES]


def _to_texture(image: NDArray[Any]) -> Array:
    """8-bit or float, grey or colour, to ``(H, W, 3)`` float32 with a shorter side of 256 px."""
    image = skimage.util.img_as_float32(image)
    image = np.repeat(image[..., None], 3, -1) if image.ndim == 2 else image[..., :3]
    scale = 256 / min(image.shape[:2])
    size = (round(image.shape[0] * scale), round(image.shape[1] * scale))
    return skimage.transform.resize(image, size, anti_aliasing=True).astype(np.float32)


# What fills a defect: functions of the scene that return an image of its size.


def _pasted(scene: Scene) -> Array:
    """A piece of a texture, zoomed, flipped, recoloured; or a plain colour."""
    rng, (h, w) = scene.rng, scene.image.shape[:2]
    if rng.random() < 0.2:
        return np.broadcast_to(rng.random(3).astype(np.float32), scene.image.shape).copy()
    texture = scene.textures[int(rng.integers(len(scene.textures)))]
    th, tw = texture.shape[:2]
    side = rng.uniform(0.4, 1.0) * min(th, tw)
    rows = (rng.uniform(0, th - side) + np.linspace(0, side - 1, h)).astype(int)
    cols = (rng.uniform(0, tw - side) + np.linspace(0, side - 1, w)).astype(int)
    piece = texture[np.ix_(rows[:: rng.choice([-1, 1])], cols[:: rng.choice([-1, 1])])]
    if rng.random() < 0.5:
        piece = np.repeat(piece.mean(2, keepdims=True), 3, 2)
    gain, shift = rng.uniform(0.5, 1.5, 3), rng.uniform(-0.25, 0.25) + rng.uniform(-0.1, 0.1, 3)
    return np.clip(piece * gain + shift, 0, 1).astype(np.float32)


def _own(scene: Scene) -> Array:
    """A normal image, turned, shifted and slightly recoloured: right texture in a wrong place."""
    rng = scene.rng
    pick = int(rng.integers(-1, len(scene.others)))
    image = scene.image if pick < 0 else scene.others[pick]
    if image.shape[0] == image.shape[1]:
        image = np.rot90(image, int(rng.integers(4)))
    image = image[:: rng.choice([-1, 1]), :: rng.choice([-1, 1])]
    shift = [int(s) for s in rng.integers(np.array(image.shape[:2]) // 8, np.array(image.shape[:2]))]
    image = np.roll(image, shift, (0, 1))
    return np.clip(image * rng.uniform(0.8, 1.2) + rng.uniform(-0.05, 0.05), 0, 1).astype(np.float32)


# Shapes: soft masks (H, W) in [0, 1].


def _place(scene: Scene, *, rim: bool = False) -> tuple[int, int]:
    """A random foreground pixel; with ``rim`` one at the edge of the object."""
    where = scene.foreground
    if rim and not where.all():
        where = where & ~ndimage.binary_erosion(where, iterations=4)
    flat = np.flatnonzero(where)
    y, x = divmod(int(flat[scene.rng.integers(len(flat))]), where.shape[1])
    return y, x


def _blob(scene: Scene, area: float, *, rim: bool = False) -> Array:
    """An irregular ellipse of about ``area`` px with soft or sharp edge."""
    rng, (h, w) = scene.rng, scene.image.shape[:2]
    cy, cx = _place(scene, rim=rim)
    stretch = np.exp(rng.uniform(-0.9, 0.9))
    a, b = np.sqrt(area / np.pi) * stretch, np.sqrt(area / np.pi) / stretch
    angle = rng.uniform(0, np.pi)
    y, x = np.arange(h, dtype=np.float32)[:, None] - cy, np.arange(w, dtype=np.float32)[None, :] - cx
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    radius = np.sqrt((u / a) ** 2 + (v / b) ** 2)
    wobble = perlin((h, w), np.maximum(np.array([h, w]) / (1.5 * max(a, b)), 2.0).clip(max=64), rng)
    edge = rng.uniform(0.3, 2.5) / min(a, b)
    return np.clip((1 + 0.5 * wobble - radius) / max(edge, 1e-3) + 0.5, 0, 1)


def _line(scene: Scene, area: float) -> Array:
    """A random walk of 1 to 4 px width, with varying strength along it."""
    rng, (h, w) = scene.rng, scene.image.shape[:2]
    width = rng.uniform(1, 4) if area > 40 else 1.0
    length = float(np.clip(area / width, 8, 0.7 * max(h, w)))
    points = np.arange(int(length * 2))
    bend = ndimage.gaussian_filter1d(rng.normal(0, rng.uniform(0.0, 0.25), len(points)), 4)
    angle = rng.uniform(0, 2 * np.pi) + np.cumsum(bend)
    y0, x0 = _place(scene)
    y, x = y0 + np.cumsum(np.sin(angle)) / 2, x0 + np.cumsum(np.cos(angle)) / 2
    keep = (y >= 0) & (y < h - 1) & (x >= 0) & (x < w - 1)
    canvas = np.zeros((h, w), np.float32)
    strength = 0.6 + 0.4 * np.sin(points / length * rng.uniform(2, 20) + rng.uniform(0, 6))
    np.maximum.at(canvas, (y[keep].astype(int), x[keep].astype(int)), strength[keep].astype(np.float32))
    if width > 1.5:
        canvas = ndimage.grey_dilation(canvas, footprint=_disk(width / 2))
    # Anti-aliasing: the drawn staircase would give the defect away.
    return np.clip(ndimage.gaussian_filter(canvas, 0.6) * (1.6 if width <= 1.5 else 1.1), 0, 1)


def _disk(radius: float) -> Mask:
    reach = int(np.ceil(radius))
    y, x = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    return np.asarray(y * y + x * x <= radius * radius)


def _blend(image: Array, fill: Array, shape: Array, opacity: float) -> Array:
    weight = (shape * np.float32(opacity))[..., None]
    return image + weight * (fill - image)


# Kinds of small defect: (scene, area in px, opacity) -> the image with the defect.


def _patch(scene: Scene, area: float, opacity: float) -> Array:
    return _blend(scene.image, _pasted(scene), _blob(scene, area), opacity)


def _own_patch(scene: Scene, area: float, opacity: float) -> Array:
    return _blend(scene.image, _own(scene), _blob(scene, area), opacity)


def _tone(scene: Scene, area: float, opacity: float) -> Array:
    """Lighter, darker or discoloured, the structure below still visible: smears, burns, wear."""
    rng = scene.rng
    shift = rng.choice([-1, 1]) * rng.uniform(0.05, 0.5) + rng.uniform(-0.08, 0.08, 3)
    fill = np.clip(scene.image * rng.uniform(0.7, 1.1) + shift, 0, 1).astype(np.float32)
    return _blend(scene.image, fill, _blob(scene, area), opacity)


def _stain(scene: Scene, area: float, opacity: float) -> Array:
    """A colour broken up by fine noise: rust, dirt, residue."""
    rng, size = scene.rng, scene.image.shape[:2]
    colour = np.clip(rng.random() * rng.uniform(0.4, 1.0, 3), 0, 1).astype(np.float32)
    grain = perlin(size, rng.uniform(16, 80, 2), rng) + perlin(size, rng.uniform(40, 120, 2), rng)
    shape = _blob(scene, area) * np.clip(0.6 + 1.2 * grain, 0, 1)
    return _blend(scene.image, np.broadcast_to(colour, scene.image.shape), shape, opacity)


def _dent(scene: Scene, area: float, opacity: float) -> Array:
    """Shading of a pit or a bump that is lit from one side."""
    rng = scene.rng
    height = ndimage.gaussian_filter(_blob(scene, area), max(0.8, 0.12 * area**0.5))
    angle = rng.uniform(0, 2 * np.pi)
    gy, gx = np.gradient(height)
    shade = gy * np.sin(angle) + gx * np.cos(angle)
    shade *= rng.uniform(0.25, 0.9) * opacity / max(float(np.abs(shade).max()), 1e-6)
    return np.clip(scene.image + shade[..., None].astype(np.float32), 0, 1)


def _warp(scene: Scene, area: float, opacity: float) -> Array:
    """A local displacement: bent, squeezed or swollen parts."""
    del opacity  # a displacement has a length instead
    rng, (h, w) = scene.rng, scene.image.shape[:2]
    reach = np.sqrt(max(area, 80) / np.pi) * 1.5
    cy, cx = _place(scene, rim=rng.random() < 0.5)
    y, x = np.mgrid[:h, :w].astype(np.float32)
    weight = np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * (reach / 1.5) ** 2))
    if rng.random() < 0.5:  # shift
        angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(0.4, 1.0) * reach
        dy, dx = length * np.sin(angle) * weight, length * np.cos(angle) * weight
    else:  # swell or squeeze
        zoom = rng.choice([-0.6, 0.7]) * rng.uniform(0.5, 1)
        dy, dx = zoom * (y - cy) * weight, zoom * (x - cx) * weight
    rows = slice(max(int(cy - 3 * reach), 0), int(cy + 3 * reach) + 1)
    cols = slice(max(int(cx - 3 * reach), 0), int(cx + 3 * reach) + 1)
    at = [(y - dy)[rows, cols], (x - dx)[rows, cols]]
    out = scene.image.copy()
    for channel in range(3):
        out[rows, cols, channel] = ndimage.map_coordinates(scene.image[..., channel], at, order=1, mode="nearest")
    return out


def _scratch(scene: Scene, area: float, opacity: float) -> Array:
    rng, shape = scene.rng, _line(scene, area)
    if rng.random() < 0.4:  # a groove: one bright and one dark flank
        shade = (shape - np.roll(shape, rng.integers(-2, 3, 2) | 1, (0, 1))) * rng.uniform(0.2, 0.6)
        return np.clip(scene.image + (opacity * shade)[..., None], 0, 1).astype(np.float32)
    tone = rng.choice([-1, 1]) * rng.uniform(0.15, 0.8) + rng.uniform(-0.08, 0.08, 3)
    return _blend(scene.image, np.clip(scene.image + tone, 0, 1).astype(np.float32), shape, opacity)


def _missing(scene: Scene, area: float, opacity: float) -> Array:
    """A bite out of the object's edge that shows the background; on a texture a hole of its border's colour."""
    rng, image = scene.rng, scene.image
    plain = scene.background + rng.normal(0, 0.01, image.shape)
    return _blend(image, np.clip(plain, 0, 1).astype(np.float32), _blob(scene, area, rim=True), max(opacity, 0.8))


KINDS: dict[str, Callable[[Scene, float, float], Array]] = {
    "patch": _patch,
    "own": _own_patch,
    "tone": _tone,
    "stain": _stain,
    "dent": _dent,
    "warp": _warp,
    "scratch": _scratch,
    "missing": _missing,
}


def level_change(
    codes: Tensor, region: Tensor, levels: Sequence[int], *, largest: int, total: int, generator: torch.Generator
) -> Tensor:
    """Code-level anomaly: how many levels each scalar of a code is to move.

    Inside the region every code moves by at least ``total`` levels in sum, so that the change is no normal variation,
    and no scalar by more than ``largest``. The direction is turned where it would leave the grid. In every other image
    all cells of the region move alike.

    Args:
        codes: ``(N, dim, H, W)`` on the grid of :class:`squad_lit.quantizer.FSQ`.
        region: ``(N, 1, H, W)`` bool.
        levels: Levels of each scalar.
        largest: Most levels for one scalar; at most half of the smallest grid, so that one direction always has room.
        total: Least sum of moves of a code.
        generator: Source of randomness, on the CPU.

    Returns:
        ``(N, dim, H, W)`` whole numbers as float; zero outside the region.

    Raises:
        ValueError: Moves that do not fit the grid.
    """
    dim = len(levels)
    if not 1 <= largest <= (min(levels) - 1) // 2 or not 1 <= total <= largest * dim:
        raise ValueError(
            f"code-level synthesis: with levels {list(levels)} the largest move must be in "
            f"[1, {(min(levels) - 1) // 2}] and the total in [1, {largest * dim}], got {largest} and {total}"
        )
    shape = codes.shape
    size = torch.randint(0, largest + 1, shape, generator=generator)
    sign = torch.randint(0, 2, shape, generator=generator) * 2 - 1
    order = torch.rand(shape, generator=generator).argsort(1)
    # What is missing to the total is added scalar by scalar in a random order, as far as each has room.
    room = (largest - size).gather(1, order)
    short = (total - size.sum(1, keepdim=True)).clamp_min(0)
    extra = (short - (room.cumsum(1) - room)).clamp_min(0).minimum(room)
    size.scatter_add_(1, order, extra)
    alike = torch.arange(shape[0]).view(-1, 1, 1, 1) % 2 == 0
    size, sign = (torch.where(alike, t[:, :, :1, :1], t) for t in (size, sign))
    change = (size * sign).to(codes)
    count = torch.tensor(levels, device=codes.device).view(1, -1, 1, 1)
    half = count // 2
    target = (codes.detach() * half).round() + change
    change = torch.where((target < -half) | (target > count - 1 - half), -change, change)
    return change * region.to(change)
