"""The embedded benchmark, which :mod:`.drawing` draws on first use, so that everything runs without a download.

It has two textures (``fabric``, ``wood``), two parts on a plain background (``gear``, ``circuit``), and exact masks. It
serves to try the whole pipeline and to compare settings in minutes. It is easier than real inspection, so no result on
it shows how good a method is.
"""

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from squad_lit.dataset.core import AnomalyDataModule
from squad_lit.dataset.drawing import DRAWING, PRODUCTS, Recipe, render
from squad_lit.dataset.mvtec import scan_mvtec_layout
from squad_lit.dataset.sample import NORMAL, Sample
from squad_lit.system.file import temporary_folder

log = logging.getLogger(__name__)


def generate(root: Path, recipe: Recipe) -> Path:
    """Draw the benchmark into a folder unless it exists; the default recipe takes about 20 seconds.

    The benchmark is drawn into a temporary folder, which is renamed when it is complete. If another process was faster,
    its equal pictures are used.

    Args:
        root: Folder in which the recipe's folder is created.
        recipe: What to draw.

    Returns:
        The recipe's folder, in the layout of MVTec AD, with the recipe as ``recipe.json``.

    Raises:
        OSError: The folder cannot be written.
        FileExistsError: The folder exists but was not made from this recipe.
    """
    folder = root / recipe.folder
    marker = json.dumps({"drawing": DRAWING, **asdict(recipe)}, indent=2) + "\n"
    if not folder.exists():
        try:
            root.mkdir(parents=True, exist_ok=True)
            with temporary_folder(root) as temporary:
                log.info("drawing the synthetic benchmark, once, into %s", folder)
                # A folder inside the temporary one, which only its owner may read.
                draft = temporary / recipe.folder
                _draw_all(draft, recipe)
                (draft / "recipe.json").write_text(marker)
                try:
                    draft.rename(folder)
                except OSError:
                    if not folder.exists():  # otherwise another process was faster
                        raise
        except OSError as error:
            raise OSError(
                f"cannot write the synthetic benchmark to {root}: {error}. Choose another folder with dataset.root=PATH"
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
                # Noise hardly compresses, and the default level 6 would take as long as the drawing.
                Image.fromarray(picture).save(images / f"{index:03d}.png", compress_level=1)
                if split in product.defects:
                    Image.fromarray(mask.astype(np.uint8) * 255).save(masks / f"{index:03d}_mask.png")


class Synthetic(AnomalyDataModule):
    """The embedded benchmark of two textures and two parts with nine kinds of defect, drawn on first use.

    Args:
        root: Folder in which the recipe's folder is created.
        recipe: What to draw.
        options: The other arguments of :class:`AnomalyDataModule`.
    """

    name = "synthetic"
    CATEGORIES = tuple(PRODUCTS)
    HELP = "It is drawn on first use. An incomplete folder can be deleted."

    def __init__(self, *, root: str | Path, recipe: Recipe, **options: Any) -> None:
        self.recipe = recipe
        super().__init__(root=Path(root) / recipe.folder, **options)

    def check_files(self) -> None:
        """Do nothing, because :meth:`prepare_data` makes the files."""

    def training_sizes(self) -> dict[Path, tuple[int, int]]:
        """All images are squares, also before they are drawn."""
        return {self.root: (self.recipe.size, self.recipe.size)}

    def prepare_data(self) -> None:
        """Draw the benchmark unless it exists."""
        generate(self.root.parent, self.recipe)

    def setup(self, stage: str | None = None) -> None:
        """Make the three datasets, after drawing if Lightning has not called :meth:`prepare_data`."""
        self.prepare_data()
        super().setup(stage)

    def scan(self, category: str) -> tuple[list[Sample], list[Sample]]:
        """See :func:`scan_mvtec_layout`."""
        return scan_mvtec_layout(self.root, category)
