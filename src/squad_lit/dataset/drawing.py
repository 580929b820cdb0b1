"""How the embedded benchmark is drawn: two textures and two parts, and what can be wrong with them.

A damaged picture is drawn twice from the same random numbers, once whole and once damaged, and its mask is where the
two differ visibly: exact by construction. Lengths are in units of which a picture has 256 by 256; at the default size
these are pixels. Shapes are signed distances (negative inside), which give smooth edges in any pose.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from squad_lit.dataset.core import NORMAL

Array = NDArray[Any]
"""Of float32, unless said otherwise."""
Point = tuple[float, float]

DRAWING = 1
"""Version of the pictures: raise it when they change, so that files of an older version are not taken for them."""
UNITS = 256.0
SPECK = 8
"""Pixels (of 256 x 256) of the smallest region of a mask; per-region metrics give a lone pixel the weight of a hole."""
VISIBLE = 8
"""A pixel is damaged where a channel changes by at least this many of 255: about where an eye begins to see it."""
LEAST_DAMAGE = 24
"""Pixels (of 256 x 256) that a mask has at least; damage that falls where it hardly shows is drawn again."""
LAMP = (-0.8, -0.6)
"""Direction to the lamp in the plane, (y, x): upper left."""


@dataclass(frozen=True)
class Recipe:
    """What is drawn; another recipe goes to another folder.

    Args:
        seed: Of every picture. Not the seed of the run: runs that differ in their seed share the data.
        size: Height and width in pixels.
        train: Normal training images a category.
        test_good: Normal test images a category.
        per_defect: Test images for each kind of defect of a category.
    """

    seed: int
    size: int
    train: int
    test_good: int
    per_defect: int

    def __post_init__(self) -> None:
        for name, least in {"seed": 0, "size": 64, "train": 1, "test_good": 1, "per_defect": 1}.items():
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ValueError(f"recipe.{name} must be an integer of at least {least}; got {value!r}")

    @property
    def folder(self) -> str:
        """Name of the folder of this recipe."""
        counts = f"train{self.train}-good{self.test_good}-defect{self.per_defect}"
        return f"v{DRAWING}-seed{self.seed}-size{self.size}-{counts}"


class Canvas:
    """The pixel grid of a picture, and all chance in it.

    Args:
        size: Height and width in pixels.
        rng: Source of the picture's random numbers.
    """

    def __init__(self, size: int, rng: Generator) -> None:
        self.rng = rng
        self.pitch = UNITS / size
        centres = ((np.arange(size) + 0.5) * self.pitch).astype(np.float32)
        self.y, self.x = np.meshgrid(centres, centres, indexing="ij")

    def between(self, low: float, high: float) -> float:
        """A random number from a range."""
        return float(self.rng.uniform(low, high))

    def side(self) -> int:
        """-1 or 1."""
        return 1 if self.rng.random() < 0.5 else -1

    def noise(self, cells: int) -> Array:
        """Smooth noise with about ``cells`` bumps a side, standard deviation about 1."""
        weight = self._weight(cells)
        return weight @ self.normal(cells + 3, cells + 3) @ weight.T

    def fuzz(self, deviation: float) -> Array:
        """Noise of single pixels."""
        return deviation * self.normal(*self.y.shape)

    def normal(self, *shape: int) -> Array:
        """Standard normal numbers in single precision, which halves the time of all drawing."""
        return self.rng.standard_normal(shape, dtype=np.float32)

    def tint(self, deviation: float) -> Array:
        """A random change of colour."""
        return deviation * self.normal(3)

    def streaks(self, along: float, across: float) -> Array:
        """Fibres: noise that changes over about ``along`` in y and ``across`` in x; standard deviation 1."""
        cells = round(UNITS / along)
        noise = self._weight(cells) @ self.normal(cells + 3, len(self.y))
        noise = ndimage.gaussian_filter1d(noise, across / self.pitch, axis=1)
        return np.divide(noise, noise.std())

    def _weight(self, cells: int) -> Array:
        """Smooth interpolation, as a matrix, from ``cells + 3`` knots to the pixels of a row."""
        knots = np.arange(-1, cells + 2)
        at = np.linspace(0, cells, len(self.y))[:, None]
        weight = np.exp(-((at - knots) ** 2) / 0.7)
        return (weight / np.sqrt((weight**2).sum(axis=1, keepdims=True))).astype(np.float32)

    def inside(self, distance: Array) -> Array:
        """Share of each pixel that lies inside a shape."""
        return np.clip(0.5 - distance / self.pitch, 0, 1)

    def relief(self, distance: Array, width: float) -> Array:
        """Light on the slanted edge of a raised shape, ``width`` wide: positive towards the lamp, up to 1."""
        slope_y, slope_x = np.gradient(np.clip(-distance, 0, width), self.pitch)
        return -(slope_y * LAMP[0] + slope_x * LAMP[1])

    def shadow(self, cover: Array, shift: float, blur: float) -> Array:
        """Soft shadow of a shape, away from the lamp."""
        moved = np.roll(cover, [round(-part * shift / self.pitch) for part in LAMP], axis=(0, 1))
        return ndimage.gaussian_filter(moved, blur / self.pitch, truncate=2.5)


def _over(image: Array, cover: Array, colour: Any) -> Array:
    """A colour (or another image) laid over an image."""
    alpha = cover[..., None]
    return image * (1 - alpha) + alpha * np.asarray(colour, dtype=np.float32)


def _rgb(red: float, green: float, blue: float) -> Array:
    return np.array((red, green, blue), dtype=np.float32)


def _box(y: Array, x: Array, half: Point, radius: float = 0.0) -> Array:
    """Signed distance to a box with rounded corners, centred at 0; ``half`` is half its (height, width)."""
    dy, dx = np.abs(y) - half[0] + radius, np.abs(x) - half[1] + radius
    return np.hypot(np.maximum(dy, 0), np.maximum(dx, 0)) + np.minimum(np.maximum(dy, dx), 0) - radius


def _row(value: Array, step: float, count: int) -> Array:
    """Coordinate folded into ``count`` equal cells of width ``step`` around 0: draws a row of shapes at once."""
    cell = np.clip(np.round(value / step - 0.5 * (count + 1) % 1), -(count // 2), (count - 1) // 2)
    return value - (cell + 0.5 * (count + 1) % 1) * step


def _window(y: Array, x: Array, centre: ArrayLike, reach: ArrayLike) -> tuple[slice, slice]:
    """The rows and columns where a small shape can be: drawing only there is several times as fast."""
    (middle_y, middle_x), (reach_y, reach_x) = np.asarray(centre), np.broadcast_to(reach, 2)
    near = (np.abs(y - float(middle_y)) < float(reach_y)) & (np.abs(x - float(middle_x)) < float(reach_x))
    rows, columns = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _pose(canvas: Canvas, y: Array, x: Array, *, shift: float, turn: float, scale: float) -> tuple[Array, Array]:
    """Coordinates in the frame of a part that lies about the middle, moved, turned (degrees) and scaled by chance."""
    y = y - UNITS / 2 - canvas.between(-shift, shift)
    x = x - UNITS / 2 - canvas.between(-shift, shift)
    angle = math.radians(canvas.between(-turn, turn))
    factor = canvas.between(1 - scale, 1 + scale)
    cos, sin = math.cos(angle) / factor, math.sin(angle) / factor  # not of numpy: its scalars would make all float64
    return cos * y - sin * x, sin * y + cos * x


# Products. Each is drawn at coordinates (y, x), which damage may have bent. `missing` picks the piece to leave out. It
# takes nothing from canvas.rng, so that the damaged picture is the whole one in everything else. Each returns colours
# (H, W, 3) and how much of a pixel is product (H, W).


def _fabric(canvas: Canvas, y: Array, x: Array, missing: int | None) -> tuple[Array, Array]:
    """Plain weave: every thread a cylinder that runs over and under."""
    period = canvas.between(8.8, 9.4)
    tilt = canvas.between(-0.02, 0.02)
    u = (x + tilt * y) / period + canvas.between(0, 1) + 0.10 * canvas.noise(3)
    v = (y - tilt * x) / period + canvas.between(0, 1) + 0.10 * canvas.noise(3)
    left, upper = np.floor(u), np.floor(v)
    columns, rows = left.astype(int) % 64, upper.astype(int) % 64  # numbers of the threads
    column_shade, row_shade = 0.04 * canvas.normal(2, 64)
    width_u, width_v = 0.90 + 0.03 * canvas.normal(2, 64).clip(-2, 2)
    across_u = 2 * (u - left - 0.5) / width_u[columns]  # -1..1 over a thread
    across_v = 2 * (v - upper - 0.5) / width_v[rows]
    parity_u, parity_v = 1 - 2 * (left % 2), 1 - 2 * (upper % 2)
    crest_u = parity_u * np.sin(np.pi * v) * 0.45  # a warp thread is up where the crossing weft is down
    crest_v = -parity_v * np.sin(np.pi * u) * 0.45
    height_u = np.where(np.abs(across_u) < 1, np.sqrt(np.maximum(1 - across_u**2, 0)) + crest_u, -1)
    height_v = np.where(np.abs(across_v) < 1, np.sqrt(np.maximum(1 - across_v**2, 0)) + crest_v, -1)
    fuzz = canvas.fuzz(0.03)
    twist_u = np.sin(2 * np.pi * (v * 3.1 + across_u * 0.9)) * 0.07 + column_shade[columns]
    twist_v = np.sin(2 * np.pi * (u * 3.1 - across_v * 0.9)) * 0.07 + row_shade[rows]
    top = height_u > height_v
    height = np.maximum(np.maximum(height_u, height_v), -0.6)
    slope_y, slope_x = np.gradient(height * period / 2, canvas.pitch)
    light = 0.60 + 0.22 * height - 0.11 * np.clip(slope_y * LAMP[0] + slope_x * LAMP[1], -1.5, 1.5)
    light = light * (1 + np.where(top, twist_u, twist_v) + fuzz)
    hue = canvas.tint(0.006)
    warp, weft = _rgb(0.62, 0.66, 0.72) + hue, _rgb(0.86, 0.84, 0.78) + hue
    return light[..., None] * np.where(top[..., None], warp, weft), np.ones_like(y)


def _wood(canvas: Canvas, y: Array, x: Array, missing: int | None) -> tuple[Array, Array]:
    """A planed board: growth rings cut at a slant, fibres and pores along y."""
    tilt = canvas.between(-0.07, 0.07)
    across = x + tilt * y
    rings = across / canvas.between(15, 20) + 0.35 * canvas.noise(2) + 0.25 * canvas.streaks(90, 20) + 8
    strength = (
        canvas.between(0.85, 1)
        * canvas.rng.uniform(0.25, 1, size=64).astype(np.float32)[np.floor(rings).astype(int) % 64]
    )
    late = strength * (rings % 1) ** 3.0 * np.clip((1 - rings % 1) / 0.16, 0, 1)  # slow rise to late wood, quick end
    fibre = canvas.streaks(26, 0.4) * 0.6 + canvas.streaks(50, 1.2) * 0.4
    pores = np.clip(canvas.streaks(9, 0.45) - 1.7, 0, 1.2) * (0.25 + 0.75 * late)
    light = 1 + 0.055 * fibre + 0.025 * canvas.noise(4) - 0.35 * pores + canvas.fuzz(0.012)
    hue = canvas.tint(0.01)
    early, dark = _rgb(0.80, 0.62, 0.42) + hue, _rgb(0.50, 0.31, 0.16) + hue
    return light[..., None] * _over(np.broadcast_to(early, (*y.shape, 3)), late, dark), np.ones_like(y)


def _gear(canvas: Canvas, y: Array, x: Array, missing: int | None) -> tuple[Array, Array]:
    """A turned steel gear with bore, keyway and six holes, on a dark mat."""
    teeth = 22
    y, x = _pose(canvas, y, x, shift=3, turn=6, scale=0.012)
    radius, angle = np.hypot(y, x), np.arctan2(y, x)
    profile = np.clip(1.9 * np.cos(teeth * angle), -1, 1)
    if missing is not None:
        turned = (angle - 2 * np.pi * (missing % teeth) / teeth + np.pi) % (2 * np.pi) - np.pi
        stump = -0.95 + 0.25 * np.sin(turned * 60 + missing) + 0.12 * np.sin(turned * 171)
        profile = np.where(np.abs(turned) < np.pi / teeth, np.minimum(profile, stump), profile)
    rim = (radius - 88 - 7 * profile) * 0.85
    hole_angle = (angle + np.pi / 6) % (np.pi / 3) - np.pi / 6
    holes = np.hypot(radius * np.sin(hole_angle), radius * np.cos(hole_angle) - 55) - 9.5
    keyway = np.minimum(radius - 22, _box(y + 24, x, (7, 5)))
    body = np.maximum(rim, -np.minimum(holes, keyway))
    cover = canvas.inside(body)

    mat = 0.20 + 0.012 * canvas.noise(40) + canvas.fuzz(0.015)
    image = mat[..., None] * (_rgb(0.95, 1.0, 1.12) + canvas.tint(0.02))
    image = image * (1 - 0.65 * canvas.shadow(cover, 6, 4))[..., None]
    # Turning leaves fine rings, which reflect a lamp as two pairs of bright sectors.
    glare = canvas.between(-0.15, 0.15) - 0.6
    grooves = np.interp(radius, np.arange(190), canvas.normal(190)).astype(np.float32)
    steel = 0.60 + 0.10 * np.cos(2 * (angle - glare)) + 0.03 * np.cos(4 * (angle - glare) + 1) + 0.018 * grooves
    steel = steel + 0.012 * canvas.noise(6) + canvas.fuzz(0.012)
    steel = steel - 0.05 * canvas.inside(np.abs(radius - 56) - 16.5)  # recessed web
    for edge in (39.5, 72.5):
        steel = steel + 0.10 * canvas.relief((1 if edge > 50 else -1) * (edge - radius), 2.0)
    steel = steel + 0.20 * canvas.relief(body, 2.6)
    colour = _rgb(0.98, 1.0, 1.03) + canvas.tint(0.006)
    return _over(image, cover, steel[..., None] * colour), cover


GLYPHS = {
    "F": "11111 10000 10000 11110 10000 10000 10000",
    "S": "01111 10000 10000 01110 00001 00001 11110",
    "Q": "01110 10001 10001 10001 10101 10010 01101",
    "8": "01110 10001 10001 01110 10001 10001 01110",
    "5": "11111 10000 11110 00001 00001 10001 01110",
    "-": "00000 00000 00000 11111 00000 00000 00000",
}
PIECES = (
    (-50, -62, 0),
    (-34, -62, 0),
    (34, -64, 1),
    (-48, 62, 1),
    (-22, 64, 0),
    (30, 62, 0),
    (48, 58, 0),
    (-62, -18, 1),
)
"""Small components of the circuit: (y, x, 1 if it stands upright)."""


def _print(text: str) -> Array:
    """A line of print, one array element a dot."""
    rows = [[int(dot) for glyph in text for dot in GLYPHS[glyph].split()[row] + "0"] for row in range(7)]
    return np.pad(np.array(rows, dtype=np.float32), 1)


def _circuit(canvas: Canvas, y: Array, x: Array, missing: int | None) -> tuple[Array, Array]:
    """A small printed circuit board: a chip with pins and print, eight small components, traces, contacts and holes."""
    y, x = _pose(canvas, y, x, shift=3, turn=2.5, scale=0.01)
    corner_y, corner_x = np.abs(y) - 72, np.abs(x) - 88
    bolt = np.hypot(corner_y, corner_x)
    board = np.maximum(_box(y, x, (84, 100), 8), 4.5 - bolt)
    cover = canvas.inside(board)
    image = (0.74 + 0.008 * canvas.noise(20) + canvas.fuzz(0.008))[..., None] * _rgb(1, 1, 1)
    image = image * (1 - 0.5 * canvas.shadow(cover, 4, 3))[..., None]

    hue = canvas.tint(0.008)
    laminate = 1 + 0.05 * np.sin(x * 1.9) * np.sin(y * 1.9) + 0.05 * canvas.noise(5) + 0.03 * canvas.noise(60)
    green = laminate[..., None] * (_rgb(0.05, 0.34, 0.20) + hue)
    # Buses: parallel lines with a slanted stretch, from the chip to the contacts, to both sides and up.
    slanted = x - np.clip((y - 34) * 0.9, 0, 16) * np.sign(x)
    traces = np.maximum(np.abs(_row(slanted, 8, 10)) - 1.1, _box(y - 40, x, (22, 58)))
    slanted = y - np.clip(np.abs(x) - 42, 0, 8) * np.sign(y + 6)
    traces = np.minimum(
        traces, np.maximum(np.abs(_row(slanted + 6, 8, 6)) - 1.0, _box(y + 6, np.abs(x) - 50, (34, 12)))
    )
    traces = np.minimum(traces, np.maximum(np.abs(_row(x + 4, 12, 4)) - 1.6, _box(y + 58, x, (20, 28))))
    green = green + canvas.inside(traces)[..., None] * _rgb(0.035, 0.13, 0.07)
    green = green + (0.06 * canvas.relief(traces, 1.0) + 0.07 * canvas.relief(board, 2.0))[..., None]
    silk = np.abs(_box(y + 6, x, (40, 44), 3)) - 0.6
    green = _over(green, 0.75 * canvas.inside(silk), (0.85, 0.87, 0.84))
    gold = np.minimum(np.abs(bolt - 7) - 2.6, _box(y - 70, _row(x, 11, 10), (8, 3.6), 1.2))
    shine = (1 + 0.06 * canvas.noise(9) + 0.25 * canvas.relief(gold, 1.5))[..., None]
    green = _over(green, canvas.inside(gold), shine * _rgb(0.80, 0.64, 0.30))

    shades = 0.02 * canvas.normal(len(PIECES))
    jitter = 0.5 * canvas.normal(len(PIECES), 2)
    for i, (place_y, place_x, upright) in enumerate(PIECES):
        at = _window(y, x, (place_y, place_x), 15)
        dy, dx = y[at] - place_y - jitter[i, 0], x[at] - place_x - jitter[i, 1]
        if upright:
            dy, dx = dx, dy
        if missing is not None and missing % len(PIECES) == i:
            pads = _box(dy, np.abs(dx) - 6.5, (4.5, 2.8), 0.8)
            green[at] = _over(green[at], canvas.inside(pads), (0.78, 0.78, 0.76))
            continue
        piece = _box(dy, dx, (4.6, 8.4), 1.0)
        ground = green[at] * (1 - 0.45 * canvas.inside(_box(dy - 1.2, dx - 1.2, (5.2, 9.0), 1.0)))[..., None]
        resin = _rgb(0.16, 0.15, 0.15) if i % 2 else _rgb(0.66, 0.52, 0.38)
        ends = canvas.inside(5.4 - np.abs(dx))
        colour = _over(np.broadcast_to(resin + shades[i], ground.shape), ends, _rgb(0.80, 0.80, 0.79) + shades[i])
        green[at] = _over(ground, canvas.inside(piece), colour + 0.16 * canvas.relief(piece, 1.6)[..., None])

    resin_shade, ink = canvas.between(0.115, 0.135), canvas.between(0.5, 0.62)
    print_y, print_x = 0.5 * canvas.normal(2)
    resin_grain = canvas.fuzz(0.008)
    at = _window(y, x, (-6, 0), 48)
    dy, dx, ground = y[at] + 6, x[at], green[at]
    pins = _box(_row(dy, 8, 7), np.abs(dx) - 34, (1.9, 5.5), 0.6)
    chip = _box(dy, dx, (31, 31), 1.5)
    ground = ground * (1 - 0.5 * canvas.shadow(canvas.inside(np.minimum(chip, pins)), 3, 1.5))[..., None]
    ground = _over(ground, canvas.inside(pins), (0.74 + 0.2 * canvas.relief(pins, 1.4))[..., None] * _rgb(1, 1, 1))
    top = resin_shade + resin_grain[at] + 0.10 * canvas.relief(chip, 2.5)
    ground = _over(ground, canvas.inside(chip), top[..., None] * _rgb(1.0, 1.0, 1.04))
    for line, (text, dot) in enumerate((("FSQ-85", 1.35), ("58-F85", 0.95))):
        stamp = _print(text)
        dots_y = (dy + 6 - 16 * line - print_y) / dot + stamp.shape[0] / 2 - 0.5
        dots_x = (dx - print_x) / dot + stamp.shape[1] / 2 - 0.5
        ground = _over(ground, 0.9 * ndimage.map_coordinates(stamp, (dots_y, dots_x), order=1), ink * _rgb(1, 1, 1))
    green[at] = _over(ground, canvas.inside(np.hypot(dy + 24, dx + 24) - 2.4), 0.8 * ink * _rgb(1, 1, 1))
    return _over(image, cover, green), cover


# Damage. Marks are laid over a picture of the whole product; bends change the coordinates that it is drawn at.


def _place(canvas: Canvas, surface: Array, margin: float) -> Point:
    """A random point on the product, ``margin`` away from its edge where it is that wide."""
    depth = ndimage.distance_transform_edt(np.pad(surface > 0.5, 1))[1:-1, 1:-1] * canvas.pitch
    choices = np.argwhere(depth >= min(margin, 0.9 * depth.max()))
    row, column = choices[canvas.rng.integers(len(choices))]
    return float(canvas.y[row, column]), float(canvas.x[row, column])


def _walk(canvas: Canvas, start: Point, *, length: float, wander: float, pull: float = 0.5) -> list[Point]:
    """A path from a point: steps of 4 units in a random direction, which wanders and is pulled back."""
    main = heading = canvas.between(0, 2 * np.pi)
    points = [start]
    for _ in range(max(round(length / 4), 2)):
        heading += float(canvas.rng.normal(0, wander)) + pull * (main - heading)
        points.append((points[-1][0] + 4 * np.sin(heading), points[-1][1] + 4 * np.cos(heading)))
    return points


def _stroke(canvas: Canvas, points: list[Point], width: float) -> Array:
    """Signed distance to a line along a path, ``width`` wide in the middle and pointed at both ends."""
    distance = np.full_like(canvas.y, UNITS)
    low, high = np.min(points, axis=0), np.max(points, axis=0)
    at = _window(canvas.y, canvas.x, (low + high) / 2, (high - low) / 2 + 12)
    y, x, near = canvas.y[at], canvas.x[at], distance[at]
    for i, ((y0, x0), (y1, x1)) in enumerate(itertools.pairwise(points)):
        dy, dx = y1 - y0, x1 - x0
        along = np.clip(((y - y0) * dy + (x - x0) * dx) / (dy * dy + dx * dx), 0, 1)
        half = 0.5 * width * (0.35 + 0.65 * np.sin(np.pi * (i + along) / (len(points) - 1)))
        np.minimum(near, np.hypot(y - y0 - along * dy, x - x0 - along * dx) - half, out=near)
    return distance


def _blob(canvas: Canvas, centre: Point, radius: float, roughness: float) -> Array:
    """Signed distance, about, to an uneven round shape."""
    dy, dx = canvas.y - centre[0], canvas.x - centre[1]
    angle = np.arctan2(dy, dx)
    edge = np.ones_like(dy)
    for wave in range(2, 9):
        edge += roughness / wave * float(canvas.rng.normal()) * np.cos(wave * angle + canvas.between(0, 2 * np.pi))
    return np.hypot(dy, dx) - radius * np.clip(edge, 0.3, 2.0)


def _crack(canvas: Canvas, image: Array, surface: Array) -> Array:
    """Hair-thin: 1 to 2 units wide, dark, with a lit lower edge and sometimes a branch."""
    path = _walk(canvas, _place(canvas, surface, 18), length=canvas.between(35, 85), wander=0.45)
    width = canvas.between(1.0, 1.9)
    cover = canvas.inside(_stroke(canvas, path, width))
    if canvas.rng.random() < 0.5:
        branch = _walk(canvas, path[len(path) // 2], length=canvas.between(12, 28), wander=0.45)
        cover = np.maximum(cover, canvas.inside(_stroke(canvas, branch, width)))
    cover = cover * surface
    edge = np.clip(np.roll(cover, (1, 1), axis=(0, 1)) - cover, 0, 1) * surface
    return _over(image, 0.9 * cover, 0.35 * image) + 0.06 * edge[..., None]


def _scratch(canvas: Canvas, image: Array, surface: Array) -> Array:
    """A tool's trace: nearly straight, bright with a dark flank, now and then lifted."""
    path = _walk(canvas, _place(canvas, surface, 25), length=canvas.between(45, 110), wander=0.06, pull=0.1)
    cover = canvas.inside(_stroke(canvas, path, canvas.between(1.1, 2.4)))
    cover = cover * surface * np.clip(0.9 + 0.5 * canvas.noise(24), 0.15, 1)
    flank = np.clip(np.roll(cover, (1, 1), axis=(0, 1)) - cover, 0, 1) * surface
    return np.clip(image + (0.26 * cover - 0.14 * flank)[..., None], 0, 1)


def _cut(canvas: Canvas, image: Array, surface: Array) -> Array:
    """A slit through cloth: dark inside, fibres torn at the edges."""
    path = _walk(canvas, _place(canvas, surface, 40), length=canvas.between(28, 60), wander=0.05)
    distance = _stroke(canvas, path, canvas.between(3.0, 5.5)) + 0.6 * canvas.noise(70)
    torn = np.clip(1 - np.abs(distance - 0.8) / 1.6, 0, 1) * (0.5 + 0.5 * (canvas.noise(110) > 0))
    image = np.clip(image + 0.20 * torn[..., None], 0, 1)
    return _over(image, canvas.inside(distance), (0.10, 0.10, 0.11))


def _stain(canvas: Canvas, image: Array, surface: Array) -> Array:
    """A dried liquid: large, of low contrast, a little stronger at its rim."""
    y, x = _place(canvas, surface, 25)
    row, column = int(y / canvas.pitch), int(x / canvas.pitch)
    ground = image[max(row - 6, 0) : row + 7, max(column - 6, 0) : column + 7].mean(axis=(0, 1))
    colours = [np.array(colour) for colour in ((0.34, 0.22, 0.10), (0.20, 0.24, 0.30), (0.90, 0.88, 0.80))]
    gaps = [np.abs(colour - ground).max() for colour in colours]
    choice = canvas.rng.choice(np.flatnonzero(np.array(gaps) > 0.3))  # something that shows on this ground
    distance = _blob(canvas, (y, x), canvas.between(14, 32), 0.35)
    soak = np.clip(0.5 - distance / 5, 0, 1) * (0.8 + 0.35 * np.exp(-((distance + 3) ** 2) / 12)) * surface
    return _over(image, canvas.between(0.08, 0.16) / gaps[choice] * soak, colours[choice])


def _hole(canvas: Canvas, image: Array, surface: Array) -> Array:
    """Through the material: dark, with a lit lower rim."""
    distance = _blob(canvas, _place(canvas, surface, 25), canvas.between(3.5, 11), 0.25) + 0.4 * canvas.noise(60)
    image = np.clip(image - 0.18 * canvas.relief(distance - 2.5, 2.5)[..., None], 0, 1)
    depth = np.clip(-distance / 5, 0, 1)[..., None]
    return _over(image, canvas.inside(distance), _rgb(0.17, 0.13, 0.10) * (1 - 0.6 * depth))


def _contamination(canvas: Canvas, image: Array, surface: Array) -> Array:
    """A foreign body: a crumb, or a hair."""
    colour = np.array(
        ((0.86, 0.84, 0.80), (0.12, 0.12, 0.13), (0.20, 0.34, 0.66), (0.64, 0.18, 0.14), (0.80, 0.62, 0.16))
    )
    colour = colour[canvas.rng.integers(len(colour))]
    if canvas.rng.random() < 0.35:
        path = _walk(canvas, _place(canvas, surface, 15), length=canvas.between(50, 90), wander=0.25, pull=0.02)
        distance, blur = _stroke(canvas, path, canvas.between(1.4, 2.0)), 1.0
    else:
        distance, blur = _blob(canvas, _place(canvas, surface, 15), canvas.between(3.5, 10), 0.4), 2.0
    cover = canvas.inside(distance) * surface
    image = image * (1 - 0.45 * canvas.shadow(cover, 2.5, blur) * surface)[..., None]
    light = 1 + 0.05 * canvas.noise(50) + 0.30 * canvas.relief(distance, 4.0)
    return np.clip(_over(image, cover, light[..., None] * colour), 0, 1)


def _thread_pull(canvas: Canvas) -> tuple[Array, Array]:
    """One thread drawn tight: it bows, and its neighbours with it."""
    y, x = canvas.between(60, 196), canvas.between(70, 186)
    length, size = canvas.between(14, 30), canvas.between(7, 10) * canvas.side()
    bow = size * np.exp(-(((canvas.x - x) / length) ** 2) - ((canvas.y - y) / 8) ** 2)
    return (canvas.y + bow, canvas.x) if canvas.rng.random() < 0.5 else (canvas.y, canvas.x + bow.T)


def _bent_tooth(canvas: Canvas) -> tuple[Array, Array]:
    """Teeth of the gear pushed sideways."""
    angle = canvas.between(0, 2 * np.pi)
    middle = UNITS / 2
    y, x = middle + 93 * np.sin(angle), middle + 93 * np.cos(angle)
    near = np.exp(-((canvas.y - y) ** 2 + (canvas.x - x) ** 2) / 11**2)
    size = canvas.between(4.5, 7.0) * canvas.side()
    return canvas.y + size * np.cos(angle) * near, canvas.x - size * np.sin(angle) * near


def _bent_pin(canvas: Canvas) -> tuple[Array, Array]:
    """Pins of the chip pushed along its side."""
    side = canvas.side()
    y = UNITS / 2 - 6 + 8 * canvas.rng.integers(-3, 4)
    near = np.exp(-(((canvas.y - y) / 6) ** 2) - ((canvas.x - UNITS / 2 - side * 39) / 4) ** 2)
    return canvas.y + canvas.between(3.0, 4.5) * canvas.side() * near, canvas.x


Draw = Callable[[Canvas, Array, Array, int | None], tuple[Array, Array]]
Mark = Callable[[Canvas, Array, Array], Array]
Bend = Callable[[Canvas], tuple[Array, Array]]


@dataclass(frozen=True)
class Product:
    """A category: how it is drawn and what can be wrong with it."""

    draw: Draw
    marks: dict[str, Mark]
    bends: dict[str, Bend]
    pieces: bool
    """Whether a piece can be missing."""

    @property
    def defects(self) -> list[str]:
        """Kinds of defect, sorted."""
        return sorted([*self.marks, *self.bends, *(["missing_part"] if self.pieces else [])])


_SURFACE: dict[str, Mark] = {"contamination": _contamination, "stain": _stain}
_HARD: dict[str, Mark] = {**_SURFACE, "crack": _crack, "scratch": _scratch}
PRODUCTS = {
    "fabric": Product(_fabric, {**_SURFACE, "cut": _cut, "hole": _hole}, {"thread_pull": _thread_pull}, pieces=False),
    "wood": Product(_wood, {**_HARD, "hole": _hole}, {}, pieces=False),
    "gear": Product(_gear, _HARD, {"bent": _bent_tooth}, pieces=True),
    "circuit": Product(_circuit, _HARD, {"bent": _bent_pin}, pieces=True),
}


def _camera(canvas: Canvas, image: Array) -> NDArray[np.uint8]:
    """Uneven light, a lens that is a little soft, a sensor that is a little noisy."""
    across, down = 0.035 * canvas.normal(2)
    light = canvas.between(0.95, 1.05) + across * (canvas.x / UNITS - 0.5) + down * (canvas.y / UNITS - 0.5)
    image = ndimage.gaussian_filter(image * light[..., None], (0.55, 0.55, 0), truncate=3)
    image = image + 0.007 * canvas.normal(*image.shape)
    return np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)


def render(
    recipe: Recipe, category: str, split: str, index: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.bool_]]:
    """One picture, the same product without damage, and the mask of the damage.

    Args:
        recipe: Its seed and size count.
        category: One of ``PRODUCTS``.
        split: ``train``, ``good`` or a kind of defect of the category.
        index: Number of the picture in the split, from 0.

    Returns:
        Picture and undamaged picture ``(H, W, 3)`` (equal for ``train`` and ``good``), mask ``(H, W)``.
    """
    product = PRODUCTS[category]
    number = ["train", NORMAL, *product.defects].index(split)
    key = [recipe.seed, list(PRODUCTS).index(category), number, index]

    def photograph(damage: Canvas | None) -> NDArray[np.uint8]:
        # The same seed each time: whole and damaged share pose, colours, light and noise.
        canvas = Canvas(recipe.size, np.random.default_rng(key))
        y, x = product.bends[split](damage) if damage and split in product.bends else (canvas.y, canvas.x)
        missing = int(damage.rng.integers(1 << 16)) if damage and split == "missing_part" else None
        image, surface = product.draw(canvas, y, x, missing)
        image = np.clip(image, 0, 1)  # before the damage: glare that a mark cuts off would count as damaged
        if damage and split in product.marks:
            image = product.marks[split](damage, image, surface)
        return _camera(canvas, image)

    whole = photograph(None)
    if number < 2:
        return whole, whole, np.zeros(whole.shape[:2], dtype=bool)
    damage = Canvas(recipe.size, np.random.default_rng([*key, 1]))
    scale = (recipe.size / UNITS) ** 2
    while True:
        damaged = photograph(damage)
        mask = _visible(damaged, whole, speck=SPECK * scale)
        if mask.sum() >= LEAST_DAMAGE * scale:
            return damaged, whole, mask


def _visible(damaged: NDArray[np.uint8], whole: NDArray[np.uint8], *, speck: float) -> NDArray[np.bool_]:
    """Where two pictures differ visibly, without regions of fewer than ``speck`` pixels."""
    change = np.abs(damaged.astype(int) - whole).max(axis=2) >= VISIBLE
    # A stain of the colour of one thread leaves gaps of a pixel or two: closed, as a person would.
    change = ndimage.binary_closing(np.pad(change, 2), np.ones((3, 3)))[2:-2, 2:-2]
    regions, _ = ndimage.label(change, np.ones((3, 3)))
    large = np.bincount(regions.ravel()) >= speck
    large[0] = False
    return large[regions]
