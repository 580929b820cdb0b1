"""Draws synthetic anomalies of each kind, and real defects beside them where there are any.

    python experiments/synthesis/contact_sheet.py --output sheet.png dataset=mvtec dataset.category=screw

Takes the overrides of ``squad_lit.train``. A row is a kind; below, real defects of the test set, to look at: nothing is
chosen by them. White lines are the masks.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from squad_lit.image.picture import outline, panel, stack, to_picture
from squad_lit.run.config import compose
from squad_lit.run.option import make
from squad_lit.synthesis.defect import KINDS
from squad_lit.system.console import exit_status
from squad_lit.system.file import write_picture

COLUMNS = 6


def draw(overrides: list[str], side: int) -> NDArray[np.uint8]:
    """The sheet, each picture cut to the middle ``side`` pixels around its mask."""
    config = compose(overrides)
    data = make(config, "dataset")
    data.prepare_data()
    data.setup()
    normal = [data.train_set[i]["image"].permute(1, 2, 0).numpy() for i in range(min(COLUMNS, len(data.train_set)))]
    rows = []
    for kind in (*KINDS, "gross"):
        weights = dict.fromkeys(KINDS, 1.0) if kind == "gross" else {kind: 1.0}
        synthesis = make(config, "synthesis", kinds=weights, gross=float(kind == "gross"), fine_count=1)
        tiles = {}
        for column in range(COLUMNS):
            image = normal[column % len(normal)]
            changed, mask = synthesis(image, normal, np.random.default_rng([config.seed, column]))
            tiles[kind if column == 0 else " " * column] = _cut(changed, mask, side)
        rows.append(panel(tiles))
    bad = [i for i, sample in enumerate(data.test_set.samples) if sample.label]
    for first in range(0, min(len(bad), 4 * COLUMNS), COLUMNS):
        items = [data.test_set[bad[i * len(bad) // (4 * COLUMNS)]] for i in range(first, first + COLUMNS)]
        tiles = {
            f"{'test: ' if i == 0 else ''}{item['defect']}{' ' * i}": _cut(
                item["image"].permute(1, 2, 0).numpy(), item["mask"][0].numpy() > 0, side
            )
            for i, item in enumerate(items)
        }
        rows.append(panel(tiles))
    return stack(rows)


def _cut(image: NDArray[np.float32], mask: NDArray[np.bool_], side: int) -> NDArray[np.uint8]:
    centre = np.argwhere(mask).mean(0) if mask.any() else np.array(mask.shape) / 2
    y, x = (int(np.clip(c - side / 2, 0, n - side)) for c, n in zip(centre, mask.shape, strict=True))
    picture = outline(to_picture(image.transpose(2, 0, 1)), mask)
    return picture[y : y + side, x : x + side]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("sheet.png"))
    parser.add_argument("--side", type=int, default=128, help="pixels of each picture")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, as for squad_lit.train")
    arguments = parser.parse_args()

    def run() -> int:  # noqa: D103
        write_picture(arguments.output, draw(arguments.overrides, arguments.side))
        print(arguments.output)
        return 0

    raise SystemExit(exit_status(run))
