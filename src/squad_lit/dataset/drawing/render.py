"""Renders the pictures and masks of a recipe."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage

from squad_lit.dataset.drawing import damage, product
from squad_lit.dataset.drawing.canvas import UNITS, Array, Canvas
from squad_lit.dataset.sample import NORMAL
from squad_lit.system.option import Natural, check_arguments

DRAWING = 1
"""Version of the pictures. Raise it when they change, so that files of an older version are not reused."""
SPECK = 8
"""Least pixels (of 256 x 256) of a region of a mask. Per-region metrics would weigh a lone pixel like a hole."""
VISIBLE = 8
"""Least change of a channel, of 255, that makes a pixel damaged; about the least that an eye sees."""
LEAST_DAMAGE = 24
"""Least pixels (of 256 x 256) of a mask. Damage that shows less is drawn again elsewhere."""


_Images = Annotated[int, Field(ge=1, le=10**5)]


@dataclass(frozen=True)
class Recipe:
    """What is drawn. Each recipe has its own folder.

    Args:
        seed: Seed of all pictures. It is not the run's seed, so that runs with different seeds share the data.
        size: Height and width in pixels, at least 64.
        train: Normal training images per category.
        test_good: Normal test images per category.
        per_defect: Test images per category and kind of defect.

    Raises:
        ValueError: A number is out of range.
    """

    seed: Natural
    size: Annotated[int, Field(ge=64, le=4096)]
    train: _Images
    test_good: _Images
    per_defect: _Images

    def __post_init__(self) -> None:
        check_arguments(type(self), vars(self))

    @property
    def folder(self) -> str:
        """Name of the folder of this recipe."""
        counts = f"train{self.train}-good{self.test_good}-defect{self.per_defect}"
        return f"v{DRAWING}-seed{self.seed}-size{self.size}-{counts}"


Draw = Callable[[Canvas, Array, Array, int | None], tuple[Array, Array]]
Mark = Callable[[Canvas, Array, Array], Array]
Bend = Callable[[Canvas], tuple[Array, Array]]


@dataclass(frozen=True)
class Product:
    """How a category is drawn, and which defects it can have."""

    draw: Draw
    marks: dict[str, Mark]
    bends: dict[str, Bend]
    pieces: bool
    """Whether it has pieces that can be missing."""

    @property
    def defects(self) -> list[str]:
        """Kinds of defect, sorted."""
        return sorted([*self.marks, *self.bends, *(["missing_part"] if self.pieces else [])])


_SURFACE: dict[str, Mark] = {"contamination": damage.contamination, "stain": damage.stain}
_HARD: dict[str, Mark] = {**_SURFACE, "crack": damage.crack, "scratch": damage.scratch}
PRODUCTS = {
    "fabric": Product(
        product.fabric,
        {**_SURFACE, "cut": damage.cut, "hole": damage.hole},
        {"thread_pull": damage.thread_pull},
        pieces=False,
    ),
    "wood": Product(product.wood, {**_HARD, "hole": damage.hole}, {}, pieces=False),
    "gear": Product(product.gear, _HARD, {"bent": damage.bent_tooth}, pieces=True),
    "circuit": Product(product.circuit, _HARD, {"bent": damage.bent_pin}, pieces=True),
}


def _camera(canvas: Canvas, image: Array) -> NDArray[np.uint8]:
    """Add uneven light, the slight blur of a lens, and the slight noise of a sensor."""
    across, down = 0.035 * canvas.normal(2)
    light = canvas.between(0.95, 1.05) + across * (canvas.x / UNITS - 0.5) + down * (canvas.y / UNITS - 0.5)
    image = ndimage.gaussian_filter(image * light[..., None], (0.55, 0.55, 0), truncate=3)
    image = image + 0.007 * canvas.normal(*image.shape)
    return np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)


def render(
    recipe: Recipe, category: str, split: str, index: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.bool_]]:
    """Draw a picture, the same product without damage, and the mask of the damage.

    Args:
        recipe: What to draw; only seed and size matter here.
        category: A key of ``PRODUCTS``.
        split: ``train``, ``good`` or a kind of defect of the category.
        index: Number of the picture in the split, from 0.

    Returns:
        The picture and the undamaged picture, ``(H, W, 3)`` uint8, equal for ``train`` and ``good``; and the mask,
        ``(H, W)`` bool.
    """
    item = PRODUCTS[category]
    number = ["train", NORMAL, *item.defects].index(split)
    key = [recipe.seed, list(PRODUCTS).index(category), number, index]

    def photograph(chance: Canvas | None) -> NDArray[np.uint8]:
        # The same seed each time, so that whole and damaged share pose, colours, light and noise.
        canvas = Canvas(recipe.size, np.random.default_rng(key))
        y, x = item.bends[split](chance) if chance and split in item.bends else (canvas.y, canvas.x)
        missing = int(chance.rng.integers(1 << 16)) if chance and split == "missing_part" else None
        image, surface = item.draw(canvas, y, x, missing)
        image = np.clip(image, 0, 1)  # before the damage; otherwise glare that a mark covers would count as damaged
        if chance and split in item.marks:
            image = item.marks[split](chance, image, surface)
        return _camera(canvas, image)

    whole = photograph(None)
    if number < 2:
        return whole, whole, np.zeros(whole.shape[:2], dtype=bool)
    chance = Canvas(recipe.size, np.random.default_rng([*key, 1]))
    scale = (recipe.size / UNITS) ** 2
    while True:
        damaged = photograph(chance)
        mask = _visible(damaged, whole, speck=SPECK * scale)
        if mask.sum() >= LEAST_DAMAGE * scale:
            return damaged, whole, mask


def _visible(damaged: NDArray[np.uint8], whole: NDArray[np.uint8], *, speck: float) -> NDArray[np.bool_]:
    """Where two pictures differ visibly, without regions smaller than ``speck`` pixels."""
    change = np.abs(damaged.astype(int) - whole).max(axis=2) >= VISIBLE
    # A stain with the colour of one thread leaves gaps of a pixel or two, which a person would close as well.
    change = ndimage.binary_closing(np.pad(change, 2), np.ones((3, 3)))[2:-2, 2:-2]
    regions, _ = ndimage.label(change, np.ones((3, 3)))
    large = np.bincount(regions.ravel()) >= speck
    large[0] = False
    return large[regions]
