"""The pixel grid of a picture, its random numbers, and shapes on it."""

import math
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

Array = NDArray[Any]
"""An array of float32, unless stated otherwise."""
Point = tuple[float, float]

UNITS = 256.0
LAMP = (-0.8, -0.6)
"""Direction (y, x) in the plane to the lamp, which stands at the upper left."""


class Canvas:
    """The pixel grid of a picture, and its source of random numbers.

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
        """A uniform random number."""
        return float(self.rng.uniform(low, high))

    def side(self) -> int:
        """-1 or 1, at random."""
        return 1 if self.rng.random() < 0.5 else -1

    def noise(self, cells: int) -> Array:
        """Smooth noise with about ``cells`` bumps per side and a standard deviation of about 1."""
        weight = self._weight(cells)
        return weight @ self.normal(cells + 3, cells + 3) @ weight.T

    def fuzz(self, deviation: float) -> Array:
        """Independent noise per pixel."""
        return deviation * self.normal(*self.y.shape)

    def normal(self, *shape: int) -> Array:
        """Standard normal numbers in single precision, which halves the time of all drawing."""
        return self.rng.standard_normal(shape, dtype=np.float32)

    def tint(self, deviation: float) -> Array:
        """A random change of colour."""
        return deviation * self.normal(3)

    def streaks(self, along: float, across: float) -> Array:
        """Fibres, as noise of standard deviation 1 with a scale of about ``along`` units in y and ``across`` in x."""
        cells = round(UNITS / along)
        noise = self._weight(cells) @ self.normal(cells + 3, len(self.y))
        noise = ndimage.gaussian_filter1d(noise, across / self.pitch, axis=1)
        return np.divide(noise, noise.std())

    def _weight(self, cells: int) -> Array:
        """The matrix that interpolates smoothly from ``cells + 3`` knots to the pixels of a row."""
        knots = np.arange(-1, cells + 2)
        at = np.linspace(0, cells, len(self.y))[:, None]
        weight = np.exp(-((at - knots) ** 2) / 0.7)
        return (weight / np.sqrt((weight**2).sum(axis=1, keepdims=True))).astype(np.float32)

    def inside(self, distance: Array) -> Array:
        """Share of each pixel that lies inside a shape, in [0, 1]."""
        return np.clip(0.5 - distance / self.pitch, 0, 1)

    def relief(self, distance: Array, width: float) -> Array:
        """Light on the slanted edge, ``width`` wide, of a raised shape; positive towards the lamp, up to 1."""
        slope_y, slope_x = np.gradient(np.clip(-distance, 0, width), self.pitch)
        return -(slope_y * LAMP[0] + slope_x * LAMP[1])

    def shadow(self, cover: Array, shift: float, blur: float) -> Array:
        """Soft shadow of a shape, away from the lamp."""
        moved = np.roll(cover, [round(-part * shift / self.pitch) for part in LAMP], axis=(0, 1))
        return ndimage.gaussian_filter(moved, blur / self.pitch, truncate=2.5)


def over(image: Array, cover: Array, colour: Any) -> Array:
    """Lay a colour or another image over an image."""
    alpha = cover[..., None]
    return image * (1 - alpha) + alpha * np.asarray(colour, dtype=np.float32)


def rgb(red: float, green: float, blue: float) -> Array:
    """A colour."""
    return np.array((red, green, blue), dtype=np.float32)


def box_distance(y: Array, x: Array, half: Point, radius: float = 0.0) -> Array:
    """Signed distance to a box with rounded corners around 0; ``half`` is half of its (height, width)."""
    dy, dx = np.abs(y) - half[0] + radius, np.abs(x) - half[1] + radius
    return np.hypot(np.maximum(dy, 0), np.maximum(dx, 0)) + np.minimum(np.maximum(dy, dx), 0) - radius


def repeat(value: Array, step: float, count: int) -> Array:
    """Fold a coordinate into ``count`` equal cells of width ``step`` around 0, which draws a row of shapes at once."""
    cell = np.clip(np.round(value / step - 0.5 * (count + 1) % 1), -(count // 2), (count - 1) // 2)
    return value - (cell + 0.5 * (count + 1) % 1) * step


def window(y: Array, x: Array, centre: ArrayLike, reach: ArrayLike) -> tuple[slice, slice]:
    """The rows and columns that a small shape can reach. Drawing there only is several times faster."""
    (middle_y, middle_x), (reach_y, reach_x) = np.asarray(centre), np.broadcast_to(reach, 2)
    near = (np.abs(y - float(middle_y)) < float(reach_y)) & (np.abs(x - float(middle_x)) < float(reach_x))
    rows, columns = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def pose(canvas: Canvas, y: Array, x: Array, *, shift: float, turn: float, scale: float) -> tuple[Array, Array]:
    """Coordinates in the frame of a part near the middle, at random shifted, turned (degrees) and scaled."""
    y = y - UNITS / 2 - canvas.between(-shift, shift)
    x = x - UNITS / 2 - canvas.between(-shift, shift)
    angle = math.radians(canvas.between(-turn, turn))
    factor = canvas.between(1 - scale, 1 + scale)
    cos, sin = math.cos(angle) / factor, math.sin(angle) / factor  # scalars of NumPy would make everything float64
    return cos * y - sin * x, sin * y + cos * x
