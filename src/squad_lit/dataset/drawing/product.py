"""The products, which are two textures and two parts on a plain background.

Each function draws at coordinates (y, x), which damage may have bent. ``missing`` chooses the piece to leave out and
draws nothing from ``canvas.rng``, so that a damaged picture equals the whole one everywhere else. Each function returns
colours ``(H, W, 3)`` and the share of each pixel that the product covers ``(H, W)``.
"""

import numpy as np
from scipy import ndimage

from squad_lit.dataset.drawing.canvas import LAMP, Array, Canvas, box_distance, over, pose, repeat, rgb, window


def fabric(canvas: Canvas, y: Array, x: Array, missing: int | None) -> tuple[Array, Array]:
    """A plain weave, in which every thread is a cylinder that runs over and under."""
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
    warp, weft = rgb(0.62, 0.66, 0.72) + hue, rgb(0.86, 0.84, 0.78) + hue
    return light[..., None] * np.where(top[..., None], warp, weft), np.ones_like(y)


def wood(canvas: Canvas, y: Array, x: Array, missing: int | None) -> tuple[Array, Array]:
    """A planed board with growth rings cut at a slant, and fibres and pores along y."""
    tilt = canvas.between(-0.07, 0.07)
    across = x + tilt * y
    rings = across / canvas.between(15, 20) + 0.35 * canvas.noise(2) + 0.25 * canvas.streaks(90, 20) + 8
    strength = (
        canvas.between(0.85, 1)
        * canvas.rng.uniform(0.25, 1, size=64).astype(np.float32)[np.floor(rings).astype(int) % 64]
    )
    late = strength * (rings % 1) ** 3.0 * np.clip((1 - rings % 1) / 0.16, 0, 1)  # slow rise to late wood, sharp end
    fibre = canvas.streaks(26, 0.4) * 0.6 + canvas.streaks(50, 1.2) * 0.4
    pores = np.clip(canvas.streaks(9, 0.45) - 1.7, 0, 1.2) * (0.25 + 0.75 * late)
    light = 1 + 0.055 * fibre + 0.025 * canvas.noise(4) - 0.35 * pores + canvas.fuzz(0.012)
    hue = canvas.tint(0.01)
    early, dark = rgb(0.80, 0.62, 0.42) + hue, rgb(0.50, 0.31, 0.16) + hue
    return light[..., None] * over(np.broadcast_to(early, (*y.shape, 3)), late, dark), np.ones_like(y)


def gear(canvas: Canvas, y: Array, x: Array, missing: int | None) -> tuple[Array, Array]:
    """A turned steel gear with bore, keyway and six holes, on a dark mat."""
    teeth = 22
    y, x = pose(canvas, y, x, shift=3, turn=6, scale=0.012)
    radius, angle = np.hypot(y, x), np.arctan2(y, x)
    profile = np.clip(1.9 * np.cos(teeth * angle), -1, 1)
    if missing is not None:
        turned = (angle - 2 * np.pi * (missing % teeth) / teeth + np.pi) % (2 * np.pi) - np.pi
        stump = -0.95 + 0.25 * np.sin(turned * 60 + missing) + 0.12 * np.sin(turned * 171)
        profile = np.where(np.abs(turned) < np.pi / teeth, np.minimum(profile, stump), profile)
    rim = (radius - 88 - 7 * profile) * 0.85
    hole_angle = (angle + np.pi / 6) % (np.pi / 3) - np.pi / 6
    holes = np.hypot(radius * np.sin(hole_angle), radius * np.cos(hole_angle) - 55) - 9.5
    keyway = np.minimum(radius - 22, box_distance(y + 24, x, (7, 5)))
    body = np.maximum(rim, -np.minimum(holes, keyway))
    cover = canvas.inside(body)

    mat = 0.20 + 0.012 * canvas.noise(40) + canvas.fuzz(0.015)
    image = mat[..., None] * (rgb(0.95, 1.0, 1.12) + canvas.tint(0.02))
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
    colour = rgb(0.98, 1.0, 1.03) + canvas.tint(0.006)
    return over(image, cover, steel[..., None] * colour), cover


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
"""Small components of the circuit, as (y, x, 1 if upright)."""


def _print(text: str) -> Array:
    """A line of print, with one array element per dot."""
    rows = [[int(dot) for glyph in text for dot in GLYPHS[glyph].split()[row] + "0"] for row in range(7)]
    return np.pad(np.array(rows, dtype=np.float32), 1)


def circuit(canvas: Canvas, y: Array, x: Array, missing: int | None) -> tuple[Array, Array]:
    """A small circuit board with a chip (pins and print), eight small components, traces, contacts and holes."""
    y, x = pose(canvas, y, x, shift=3, turn=2.5, scale=0.01)
    corner_y, corner_x = np.abs(y) - 72, np.abs(x) - 88
    bolt = np.hypot(corner_y, corner_x)
    board = np.maximum(box_distance(y, x, (84, 100), 8), 4.5 - bolt)
    cover = canvas.inside(board)
    image = (0.74 + 0.008 * canvas.noise(20) + canvas.fuzz(0.008))[..., None] * rgb(1, 1, 1)
    image = image * (1 - 0.5 * canvas.shadow(cover, 4, 3))[..., None]

    hue = canvas.tint(0.008)
    laminate = 1 + 0.05 * np.sin(x * 1.9) * np.sin(y * 1.9) + 0.05 * canvas.noise(5) + 0.03 * canvas.noise(60)
    green = laminate[..., None] * (rgb(0.05, 0.34, 0.20) + hue)
    # Buses are parallel lines with a slanted part, from the chip to the contacts, to both sides and up.
    slanted = x - np.clip((y - 34) * 0.9, 0, 16) * np.sign(x)
    traces = np.maximum(np.abs(repeat(slanted, 8, 10)) - 1.1, box_distance(y - 40, x, (22, 58)))
    slanted = y - np.clip(np.abs(x) - 42, 0, 8) * np.sign(y + 6)
    traces = np.minimum(
        traces, np.maximum(np.abs(repeat(slanted + 6, 8, 6)) - 1.0, box_distance(y + 6, np.abs(x) - 50, (34, 12)))
    )
    traces = np.minimum(traces, np.maximum(np.abs(repeat(x + 4, 12, 4)) - 1.6, box_distance(y + 58, x, (20, 28))))
    green = green + canvas.inside(traces)[..., None] * rgb(0.035, 0.13, 0.07)
    green = green + (0.06 * canvas.relief(traces, 1.0) + 0.07 * canvas.relief(board, 2.0))[..., None]
    silk = np.abs(box_distance(y + 6, x, (40, 44), 3)) - 0.6
    green = over(green, 0.75 * canvas.inside(silk), (0.85, 0.87, 0.84))
    gold = np.minimum(np.abs(bolt - 7) - 2.6, box_distance(y - 70, repeat(x, 11, 10), (8, 3.6), 1.2))
    shine = (1 + 0.06 * canvas.noise(9) + 0.25 * canvas.relief(gold, 1.5))[..., None]
    green = over(green, canvas.inside(gold), shine * rgb(0.80, 0.64, 0.30))

    shades = 0.02 * canvas.normal(len(PIECES))
    jitter = 0.5 * canvas.normal(len(PIECES), 2)
    for i, (place_y, place_x, upright) in enumerate(PIECES):
        at = window(y, x, (place_y, place_x), 15)
        dy, dx = y[at] - place_y - jitter[i, 0], x[at] - place_x - jitter[i, 1]
        if upright:
            dy, dx = dx, dy
        if missing is not None and missing % len(PIECES) == i:
            pads = box_distance(dy, np.abs(dx) - 6.5, (4.5, 2.8), 0.8)
            green[at] = over(green[at], canvas.inside(pads), (0.78, 0.78, 0.76))
            continue
        piece = box_distance(dy, dx, (4.6, 8.4), 1.0)
        ground = green[at] * (1 - 0.45 * canvas.inside(box_distance(dy - 1.2, dx - 1.2, (5.2, 9.0), 1.0)))[..., None]
        resin = rgb(0.16, 0.15, 0.15) if i % 2 else rgb(0.66, 0.52, 0.38)
        ends = canvas.inside(5.4 - np.abs(dx))
        colour = over(np.broadcast_to(resin + shades[i], ground.shape), ends, rgb(0.80, 0.80, 0.79) + shades[i])
        green[at] = over(ground, canvas.inside(piece), colour + 0.16 * canvas.relief(piece, 1.6)[..., None])

    resin_shade, ink = canvas.between(0.115, 0.135), canvas.between(0.5, 0.62)
    print_y, print_x = 0.5 * canvas.normal(2)
    resin_grain = canvas.fuzz(0.008)
    at = window(y, x, (-6, 0), 48)
    dy, dx, ground = y[at] + 6, x[at], green[at]
    pins = box_distance(repeat(dy, 8, 7), np.abs(dx) - 34, (1.9, 5.5), 0.6)
    chip = box_distance(dy, dx, (31, 31), 1.5)
    ground = ground * (1 - 0.5 * canvas.shadow(canvas.inside(np.minimum(chip, pins)), 3, 1.5))[..., None]
    ground = over(ground, canvas.inside(pins), (0.74 + 0.2 * canvas.relief(pins, 1.4))[..., None] * rgb(1, 1, 1))
    top = resin_shade + resin_grain[at] + 0.10 * canvas.relief(chip, 2.5)
    ground = over(ground, canvas.inside(chip), top[..., None] * rgb(1.0, 1.0, 1.04))
    for line, (text, dot) in enumerate((("FSQ-85", 1.35), ("58-F85", 0.95))):
        stamp = _print(text)
        dots_y = (dy + 6 - 16 * line - print_y) / dot + stamp.shape[0] / 2 - 0.5
        dots_x = (dx - print_x) / dot + stamp.shape[1] / 2 - 0.5
        ground = over(ground, 0.9 * ndimage.map_coordinates(stamp, (dots_y, dots_x), order=1), ink * rgb(1, 1, 1))
    green[at] = over(ground, canvas.inside(np.hypot(dy + 24, dx + 24) - 2.4), 0.8 * ink * rgb(1, 1, 1))
    return over(image, cover, green), cover
