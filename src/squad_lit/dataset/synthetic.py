"""The embedded benchmark: drawn on first use (see ``drawing.py``), so that everything runs without a download.

Two textures (``fabric``, ``wood``) and two parts on a plain background (``gear``, ``circuit``), with exact masks. It is
a means to try the whole chain and to compare settings in minutes; it is easier than real inspection, and no result on
it says how good a method is.
"""

import json
import logging
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from squad_lit.dataset.core import AnomalyDataModule
from squad_lit.dataset.drawing import DRAWING, PRODUCTS, Recipe, render
from squad_lit.dataset.mvtec import scan_mvtec_layout
from squad_lit.dataset.sample import NORMAL, Sample

log = logging.getLogger(__name__)


def generate(root: Path, recipe: Recipe) -> Path:
    """Draw the benchmark into a folder, unless it is there; about 20 seconds for the default recipe.

    The folder appears whole or not at all: it is drawn beside its place and renamed. A process that was slower than
    another one drops its own pictures, which are the same.

    Args:
        root: Folder that gets a folder for the recipe.
        recipe: What to draw.

    Returns:
        The recipe's folder: the layout of MVTec AD, and the recipe as ``recipe.json``.

    Raises:
        OSError: It cannot be written.
        FileExistsError: The folder is there, but was not made from this recipe.
    """
    folder = root / recipe.folder
    marker = json.dumps({"drawing": DRAWING, **asdict(recipe)}, indent=2) + "\n"
    if not folder.exists():
        try:
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".drawing-", dir=root) as temporary:
                log.info("drawing the synthetic benchmark, once, into %s", folder)
                # A folder inside: the temporary one can be read by its owner only.
                draft = Path(temporary) / recipe.folder
                _draw_all(draft, recipe)
                (draft / "recipe.json").write_text(marker)
                try:
                    draft.rename(folder)
                except OSError:
                    if not folder.exists():  # else another process was faster
                        raise
        except OSError as error:
            raise OSError(
                f"cannot write the synthetic benchmark to {root}: {error}. Choose another place with dataset.root=PATH"
            ) from error
    found = folder / "recipe.json"
    if not found.is_file() or found.read_text() != marker:
        raise FileExistsError(f"{folder} is not a synthetic benchmark of this recipe; move it away or delete it")
    return folder


def _draw_all(folder: Path, recipe: Recipe) -> None:
    for category, product in PRODUCTS.items():
        counts = {"train": recipe.train, NORMAL: recipe.test_good, **dict.fromkeys(product.defects, recipe.per_defect)}
        for split, count in counts.items():
            images = folder / category / ("train/good" if split == "train" else f"test/{split}")
            masks = folder / category / "ground_truth" / split
            for place in [images] if split in ("train", NORMAL) else [images, masks]:
                place.mkdir(parents=True)
            for index in range(count):
                picture, _, mask = render(recipe, category, split, index)
                # Level 1: the noise does not compress, and level 6 would take as long as the drawing.
                Image.fromarray(picture).save(images / f"{index:03d}.png", compress_level=1)
                if split in product.defects:
                    Image.fromarray(mask.astype(np.uint8) * 255).save(masks / f"{index:03d}_mask.png")


class Synthetic(AnomalyDataModule):
    """The embedded benchmark: two textures and two parts, nine kinds of defect, drawn on first use.

    Args:
        root: Folder that gets a folder for the recipe.
        recipe: What is drawn.
        options: The other arguments of :class:`AnomalyDataModule`.
    """

    name = "synthetic"
    CATEGORIES = tuple(PRODUCTS)
    HELP = "It is drawn on first use; a folder that is not complete can be deleted."

    def __init__(self, *, root: str | Path, recipe: Recipe, **options: Any) -> None:
        super().__init__(root=Path(root) / recipe.folder, **options)
        self.recipe = recipe

    def check_files(self) -> None:
        """Nothing: the files are made by :meth:`prepare_data`."""

    def prepare_data(self) -> None:
        """Draw the benchmark, unless it is there."""
        generate(self.root.parent, self.recipe)

    def setup(self, stage: str | None = None) -> None:
        """Make the three datasets; draws first where Lightning has not called :meth:`prepare_data`."""
        self.prepare_data()
        super().setup(stage)

    def scan(self, category: str) -> tuple[list[Sample], list[Sample]]:
        """See :func:`scan_mvtec_layout`."""
        return scan_mvtec_layout(self.root, category)
