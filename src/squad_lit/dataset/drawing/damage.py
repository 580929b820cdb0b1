"""Defects. Marks are laid over the picture of a product; bends change the coordinates at which it is drawn."""

import itertools

import numpy as np
from scipy import ndimage

from squad_lit.dataset.drawing.canvas import UNITS, Array, Canvas, Point, over, rgb, window


def _place(canvas: Canvas, surface: Array, margin: float) -> Point:
    """A random point on the product, ``margin`` away from its edge if the product is that wide."""
    depth = ndimage.distance_transform_edt(np.pad(surface > 0.5, 1))[1:-1, 1:-1] * canvas.pitch
    choices = np.argwhere(depth >= min(margin, 0.9 * depth.max()))
    row, column = choices[canvas.rng.integers(len(choices))]
    return float(canvas.y[row, column]), float(canvas.x[row, column])


def _walk(canvas: Canvas, start: Point, *, length: float, wander: float, pull: float = 0.5) -> list[Point]:
    """A path of steps of 4 units from a point, in a random direction that wanders and is pulled back."""
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
    at = window(canvas.y, canvas.x, (low + high) / 2, (high - low) / 2 + 12)
    y, x, near = canvas.y[at], canvas.x[at], distance[at]
    for i, ((y0, x0), (y1, x1)) in enumerate(itertools.pairwise(points)):
        dy, dx = y1 - y0, x1 - x0
        along = np.clip(((y - y0) * dy + (x - x0) * dx) / (dy * dy + dx * dx), 0, 1)
        half = 0.5 * width * (0.35 + 0.65 * np.sin(np.pi * (i + along) / (len(points) - 1)))
        np.minimum(near, np.hypot(y - y0 - along * dy, x - x0 - along * dx) - half, out=near)
    return distance


def _blob(canvas: Canvas, centre: Point, radius: float, roughness: float) -> Array:
    """Approximate signed distance to an uneven round shape."""
    dy, dx = canvas.y - centre[0], canvas.x - centre[1]
    angle = np.arctan2(dy, dx)
    edge = np.ones_like(dy)
    for wave in range(2, 9):
        edge += roughness / wave * float(canvas.rng.normal()) * np.cos(wave * angle + canvas.between(0, 2 * np.pi))
    return np.hypot(dy, dx) - radius * np.clip(edge, 0.3, 2.0)


def crack(canvas: Canvas, image: Array, surface: Array) -> Array:
    """A dark hairline, 1 to 2 units wide, with a lit lower edge and sometimes a branch."""
    path = _walk(canvas, _place(canvas, surface, 18), length=canvas.between(35, 85), wander=0.45)
    width = canvas.between(1.0, 1.9)
    cover = canvas.inside(_stroke(canvas, path, width))
    if canvas.rng.random() < 0.5:
        branch = _walk(canvas, path[len(path) // 2], length=canvas.between(12, 28), wander=0.45)
        cover = np.maximum(cover, canvas.inside(_stroke(canvas, branch, width)))
    cover = cover * surface
    edge = np.clip(np.roll(cover, (1, 1), axis=(0, 1)) - cover, 0, 1) * surface
    return over(image, 0.9 * cover, 0.35 * image) + 0.06 * edge[..., None]


def scratch(canvas: Canvas, image: Array, surface: Array) -> Array:
    """The nearly straight trace of a tool, bright with a dark flank, and interrupted now and then."""
    path = _walk(canvas, _place(canvas, surface, 25), length=canvas.between(45, 110), wander=0.06, pull=0.1)
    cover = canvas.inside(_stroke(canvas, path, canvas.between(1.1, 2.4)))
    cover = cover * surface * np.clip(0.9 + 0.5 * canvas.noise(24), 0.15, 1)
    flank = np.clip(np.roll(cover, (1, 1), axis=(0, 1)) - cover, 0, 1) * surface
    return np.clip(image + (0.26 * cover - 0.14 * flank)[..., None], 0, 1)


def cut(canvas: Canvas, image: Array, surface: Array) -> Array:
    """A slit through cloth, dark inside, with torn fibres at the edges."""
    path = _walk(canvas, _place(canvas, surface, 40), length=canvas.between(28, 60), wander=0.05)
    distance = _stroke(canvas, path, canvas.between(3.0, 5.5)) + 0.6 * canvas.noise(70)
    torn = np.clip(1 - np.abs(distance - 0.8) / 1.6, 0, 1) * (0.5 + 0.5 * (canvas.noise(110) > 0))
    image = np.clip(image + 0.20 * torn[..., None], 0, 1)
    return over(image, canvas.inside(distance), (0.10, 0.10, 0.11))


def stain(canvas: Canvas, image: Array, surface: Array) -> Array:
    """A large stain of a dried liquid, of low contrast, a little stronger at its rim."""
    y, x = _place(canvas, surface, 25)
    row, column = int(y / canvas.pitch), int(x / canvas.pitch)
    ground = image[max(row - 6, 0) : row + 7, max(column - 6, 0) : column + 7].mean(axis=(0, 1))
    colours = [np.array(colour) for colour in ((0.34, 0.22, 0.10), (0.20, 0.24, 0.30), (0.90, 0.88, 0.80))]
    gaps = [np.abs(colour - ground).max() for colour in colours]
    choice = canvas.rng.choice(np.flatnonzero(np.array(gaps) > 0.3))  # a colour that shows on this ground
    distance = _blob(canvas, (y, x), canvas.between(14, 32), 0.35)
    soak = np.clip(0.5 - distance / 5, 0, 1) * (0.8 + 0.35 * np.exp(-((distance + 3) ** 2) / 12)) * surface
    return over(image, canvas.between(0.08, 0.16) / gaps[choice] * soak, colours[choice])


def hole(canvas: Canvas, image: Array, surface: Array) -> Array:
    """A dark hole through the material, with a lit lower rim."""
    distance = _blob(canvas, _place(canvas, surface, 25), canvas.between(3.5, 11), 0.25) + 0.4 * canvas.noise(60)
    image = np.clip(image - 0.18 * canvas.relief(distance - 2.5, 2.5)[..., None], 0, 1)
    depth = np.clip(-distance / 5, 0, 1)[..., None]
    return over(image, canvas.inside(distance), rgb(0.17, 0.13, 0.10) * (1 - 0.6 * depth))


def contamination(canvas: Canvas, image: Array, surface: Array) -> Array:
    """A foreign body, either a crumb or a hair."""
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
    return np.clip(over(image, cover, light[..., None] * colour), 0, 1)


def thread_pull(canvas: Canvas) -> tuple[Array, Array]:
    """One thread drawn tight, which bows together with its neighbours."""
    y, x = canvas.between(60, 196), canvas.between(70, 186)
    length, size = canvas.between(14, 30), canvas.between(7, 10) * canvas.side()
    bow = size * np.exp(-(((canvas.x - x) / length) ** 2) - ((canvas.y - y) / 8) ** 2)
    return (canvas.y + bow, canvas.x) if canvas.rng.random() < 0.5 else (canvas.y, canvas.x + bow.T)


def bent_tooth(canvas: Canvas) -> tuple[Array, Array]:
    """Teeth of the gear pushed sideways."""
    angle = canvas.between(0, 2 * np.pi)
    middle = UNITS / 2
    y, x = middle + 93 * np.sin(angle), middle + 93 * np.cos(angle)
    near = np.exp(-((canvas.y - y) ** 2 + (canvas.x - x) ** 2) / 11**2)
    size = canvas.between(4.5, 7.0) * canvas.side()
    return canvas.y + size * np.cos(angle) * near, canvas.x - size * np.sin(angle) * near


def bent_pin(canvas: Canvas) -> tuple[Array, Array]:
    """Pins of the chip pushed along its side."""
    side = canvas.side()
    y = UNITS / 2 - 6 + 8 * canvas.rng.integers(-3, 4)
    near = np.exp(-(((canvas.y - y) / 6) ** 2) - ((canvas.x - UNITS / 2 - side * 39) / 4) ** 2)
    return canvas.y + canvas.between(3.0, 4.5) * canvas.side() * near, canvas.x
