"""How much of what Pixel AP lacks lies at the borders of the masks?

    python -m experiments.three_categories.border RUN [RUN ...]

For each RUN (folder with last.ckpt and config.yaml): Pixel AP of the test set as it is, and without the pixels within
some distance of a mask's border, inside, outside or on both sides: 100 minus it is what is lost elsewhere.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import OmegaConf
from scipy import ndimage

from squad_lit.metric import average_precision
from squad_lit.run.option import make
from squad_lit.training import checkpoint

DISTANCES = (2, 4, 8)


def border(mask: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distance of each pixel of ``(H, W)`` to the border, from inside and from outside; infinite elsewhere."""
    if not mask.any():
        return np.full(mask.shape, np.inf), np.full(mask.shape, np.inf)
    inside, outside = ndimage.distance_transform_edt(mask), ndimage.distance_transform_edt(~mask)
    return np.where(mask, inside, np.inf), np.where(mask, np.inf, outside)


@torch.no_grad()
def main(run: Path) -> None:
    """A line of the table."""
    config = OmegaConf.load(run / "config.yaml")
    data = make(config, "dataset")
    data.setup()
    model = checkpoint.load(run / "last.ckpt")
    maps, masks = [], []
    for start in range(0, len(data.test_set), 8):
        items = [data.test_set[i] for i in range(start, min(start + 8, len(data.test_set)))]
        maps.append(model.predict(torch.stack([item["image"] for item in items]))[0])
        masks.append(torch.stack([item["mask"][0] for item in items]) > 0)
    anomaly_map, mask = torch.cat(maps), torch.cat(masks)
    inside, outside = (torch.from_numpy(np.stack(part)) for part in zip(*map(border, mask.numpy()), strict=True))
    cells = [f"{100 * average_precision(anomaly_map.flatten(), mask.flatten()):.1f}"]
    for distance in DISTANCES:
        kept = [inside > distance, outside > distance, (inside > distance) & (outside > distance)]
        cells += [f"{100 * average_precision(anomaly_map[k], mask[k]):.1f}" for k in kept]
    print(f"| {run.name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    sides = [f"{side} {distance} px" for distance in DISTANCES for side in ("inside", "outside", "both")]
    print("| run | as it is | " + " | ".join(sides) + " |\n" + "|---" * (2 + len(sides)) + "|")
    for folder in sys.argv[1:]:
        main(Path(folder))
