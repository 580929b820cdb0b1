"""The kinds of small synthetic defect, their fillings and their shapes.

Images are ``(H, W, 3)`` float32 in [0, 1], shapes are soft masks ``(H, W)`` in [0, 1].
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]


class Scene(NamedTuple):
    """What a defect may use.

    Args:
        image: The normal image ``(H, W, 3)`` float32 in [0, 1].
        foreground: Where the defect should lie, ``(H, W)`` bool.
        background: What lies behind the object, as an image ``(H, W, 3)``.
        others: Normal images of the same category and size; may be empty.
        textures: Texture images of the same size; may be empty.
        rng: The only source of randomness.
    """

    image: Array
    foreground: Mask
    background: Array
    others: Sequence[Array]
    textures: Sequence[Array]
    rng: np.random.Generator


def perlin(shape: Sequence[int], cells: Sequence[float] | NDArray[Any], rng: np.random.Generator) -> Array:
    """Gradient noise ``(H, W)``, in about [-1, 1].

    Args:
        shape: Height and width in pixels.
        cells: Lattice cells along each side; more cells make finer noise.
        rng: Source of the gradients and of the offset of the lattice.

    Reference:
        Perlin, "An Image Synthesizer", SIGGRAPH 1985.
    """
    parts, lattice = [], []
    for count, size in zip(cells, shape, strict=True):
        at = np.linspace(0, count, size, dtype=np.float32) + np.float32(rng.random())
        corner = at.astype(int)
        number = int(corner.max()) + 2
        away = at[:, None] - np.arange(number, dtype=np.float32)  # of each pixel from each line of the lattice
        left = np.clip(1 - np.abs(away), 0, 1)
        fade = left * left * left * (left * (6 * left - 15) + 10)
        parts.append((fade, fade * away))
        lattice.append(number)
    angle = rng.uniform(0, 2 * np.pi, lattice).astype(np.float32)
    (fade_y, ramp_y), (fade_x, ramp_x) = parts
    return np.sqrt(np.float32(2)) * (ramp_y @ np.sin(angle) @ fade_x.T + fade_y @ np.cos(angle) @ ramp_x.T)


# Fillings are functions of the scene that return an image of its size.


def pasted(scene: Scene) -> Array:
    """A plain colour, or a piece of a texture, zoomed, flipped and recoloured."""
    rng, (h, w) = scene.rng, scene.image.shape[:2]
    if rng.random() < 0.2:
        return np.broadcast_to(rng.random(3).astype(np.float32), scene.image.shape).copy()
    texture = scene.textures[int(rng.integers(len(scene.textures)))]
    th, tw = texture.shape[:2]
    side = rng.uniform(0.4, 1.0) * min(th, tw)
    rows = (rng.uniform(0, th - side) + np.linspace(0, side - 1, h)).astype(int)
    cols = (rng.uniform(0, tw - side) + np.linspace(0, side - 1, w)).astype(int)
    piece = texture[rows[:: rng.choice([-1, 1])]][:, cols[:: rng.choice([-1, 1])]]
    if rng.random() < 0.5:
        piece = np.repeat(piece.mean(2, keepdims=True), 3, 2)
    gain, shift = rng.uniform(0.5, 1.5, 3), rng.uniform(-0.25, 0.25) + rng.uniform(-0.1, 0.1, 3)
    return np.clip(piece * gain + shift, 0, 1).astype(np.float32)


def own(scene: Scene) -> Array:
    """A normal image, turned, shifted and slightly recoloured, so that the right texture is in a wrong place."""
    rng = scene.rng
    pick = int(rng.integers(-1, len(scene.others)))
    image = scene.image if pick < 0 else scene.others[pick]
    if image.shape[0] == image.shape[1]:
        image = np.rot90(image, int(rng.integers(4)))
    image = image[:: rng.choice([-1, 1]), :: rng.choice([-1, 1])]
    shift = [int(s) for s in rng.integers(np.array(image.shape[:2]) // 8, np.array(image.shape[:2]))]
    image = np.roll(image, shift, (0, 1))
    return np.clip(image * rng.uniform(0.8, 1.2) + rng.uniform(-0.05, 0.05), 0, 1).astype(np.float32)


# Shapes are soft masks (H, W) in [0, 1].


def _place(scene: Scene, *, rim: bool = False) -> tuple[int, int]:
    """A random foreground pixel, or with ``rim`` a random pixel at the edge of the object."""
    where = scene.foreground
    if rim and not where.all():
        where = where & ~ndimage.binary_erosion(where, iterations=4)
    flat = np.flatnonzero(where)
    y, x = divmod(int(flat[scene.rng.integers(len(flat))]), where.shape[1])
    return y, x


def blob(scene: Scene, area: float, *, rim: bool = False) -> Array:
    """An irregular ellipse of about ``area`` pixels with a soft or sharp edge."""
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
    """A random walk, 1 to 4 pixels wide, of varying strength."""
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
    # Anti-aliasing, because a staircase would give the defect away.
    return np.clip(ndimage.gaussian_filter(canvas, 0.6) * (1.6 if width <= 1.5 else 1.1), 0, 1)


def _disk(radius: float) -> Mask:
    reach = int(np.ceil(radius))
    y, x = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    return np.asarray(y * y + x * x <= radius * radius)


def blend(image: Array, fill: Array, shape: Array, opacity: float) -> Array:
    """Lay ``fill`` over ``image`` in a shape, with an opacity."""
    weight = (shape * np.float32(opacity))[..., None]
    return image + weight * (fill - image)


# Kinds of small defect map the scene, an area in pixels and an opacity to the image with the defect.


def _patch(scene: Scene, area: float, opacity: float) -> Array:
    return blend(scene.image, pasted(scene), blob(scene, area), opacity)


def _own_patch(scene: Scene, area: float, opacity: float) -> Array:
    return blend(scene.image, own(scene), blob(scene, area), opacity)


def _tone(scene: Scene, area: float, opacity: float) -> Array:
    """Lighter, darker or discoloured, with the structure below still visible, like smears, burns or wear."""
    rng = scene.rng
    shift = rng.choice([-1, 1]) * rng.uniform(0.05, 0.5) + rng.uniform(-0.08, 0.08, 3)
    fill = np.clip(scene.image * rng.uniform(0.7, 1.1) + shift, 0, 1).astype(np.float32)
    return blend(scene.image, fill, blob(scene, area), opacity)


def _smear(scene: Scene, area: float, opacity: float) -> Array:
    """Wiped in one direction and a little lighter or darker, as by grease, a wet cloth or a touch of fresh print."""
    rng = scene.rng
    angle, reach = rng.uniform(0, np.pi), rng.uniform(2, 10)
    shifts = [(round(r * np.sin(angle)), round(r * np.cos(angle))) for r in np.linspace(-reach, reach, 7)]
    wiped = np.mean([np.roll(scene.image, shift, (0, 1)) for shift in shifts], axis=0)
    fill = np.clip(wiped + rng.choice([-1, 1]) * rng.uniform(0.03, 0.15), 0, 1).astype(np.float32)
    return blend(scene.image, fill, blob(scene, max(area, 60)), opacity)


def _stain(scene: Scene, area: float, opacity: float) -> Array:
    """A colour broken up by fine noise, like rust, dirt or residue."""
    rng, size = scene.rng, scene.image.shape[:2]
    colour = np.clip(rng.random() * rng.uniform(0.4, 1.0, 3), 0, 1).astype(np.float32)
    grain = perlin(size, rng.uniform(16, 80, 2), rng) + perlin(size, rng.uniform(40, 120, 2), rng)
    shape = blob(scene, area) * np.clip(0.6 + 1.2 * grain, 0, 1)
    return blend(scene.image, np.broadcast_to(colour, scene.image.shape), shape, opacity)


def _dent(scene: Scene, area: float, opacity: float) -> Array:
    """Shading of a pit or a bump that is lit from one side."""
    rng = scene.rng
    height = ndimage.gaussian_filter(blob(scene, area), max(0.8, 0.12 * area**0.5))
    angle = rng.uniform(0, 2 * np.pi)
    gy, gx = np.gradient(height)
    shade = gy * np.sin(angle) + gx * np.cos(angle)
    shade *= rng.uniform(0.25, 0.9) * opacity / max(float(np.abs(shade).max()), 1e-6)
    return np.clip(scene.image + shade[..., None].astype(np.float32), 0, 1)


def _warp(scene: Scene, area: float, opacity: float) -> Array:
    """A local displacement, as of bent, squeezed or swollen parts."""
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
    return blend(scene.image, np.clip(scene.image + tone, 0, 1).astype(np.float32), shape, opacity)


def _missing(scene: Scene, area: float, opacity: float) -> Array:
    """A bite out of the object's edge that shows the background; on a texture, a hole in the colour of its border."""
    rng, image = scene.rng, scene.image
    plain = scene.background + rng.normal(0, 0.01, image.shape)
    return blend(image, np.clip(plain, 0, 1).astype(np.float32), blob(scene, area, rim=True), max(opacity, 0.8))


KINDS: dict[str, Callable[[Scene, float, float], Array]] = {
    "patch": _patch,
    "own": _own_patch,
    "tone": _tone,
    "smear": _smear,
    "stain": _stain,
    "dent": _dent,
    "warp": _warp,
    "scratch": _scratch,
    "missing": _missing,
}
