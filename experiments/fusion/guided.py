"""Does the image sharpen the anomaly map? A guided filter moves the map's edges to those of the image.

    python -m experiments.fusion.guided RUN [RUN ...]   # RUN: folder of a training on one category

For each radius in pixels and each strength: figures of the held-out normal images with and without synthetic anomalies,
which may choose, and of the test set, which judges. Prints a table.

Reference:
    He, Sun and Tang, "Guided Image Filtering", ECCV 2010.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from experiments.fusion.run import SYNTHETIC, Maps, cells, load
from torch import Tensor
from torch.nn import functional as F

# Radius of the windows in pixels (0: no filter), and the variance of grey values in [0, 1] that keeps an edge.
SETTINGS = [(0, 0.0), (1, 1e-3), (2, 1e-4), (2, 1e-3), (2, 1e-2), (3, 1e-3), (4, 1e-3)]


def mean(planes: Tensor, radius: int) -> Tensor:
    """Mean of each pixel's window, ``(N, H, W)``; at the border, of what is there."""
    return F.avg_pool2d(planes[:, None], 2 * radius + 1, 1, radius, count_include_pad=False)[:, 0]


def guided(anomaly_map: Tensor, grey: Tensor, radius: int, variance: float) -> Tensor:
    """The map as a line of the grey values in each window; a pixel takes the mean of the lines of its windows."""
    if not radius:
        return anomaly_map
    of_map, of_grey = mean(anomaly_map, radius), mean(grey, radius)
    slope = mean(grey * anomaly_map, radius) - of_grey * of_map
    slope = slope / (mean(grey * grey, radius) - of_grey * of_grey + variance)
    return mean(slope, radius) * grey + mean(of_map - slope * of_grey, radius)


def collect(module: Any, items: list[tuple[Tensor, Tensor, int]]) -> tuple[Maps, Tensor]:
    """The fused maps, with masks and labels, and the grey images ``(N, H, W)``."""
    fused, grey = [], []
    for image, _, _ in items:
        anomaly_map, _ = module.anomaly(module(image[None]).maps)
        fused.append(anomaly_map[0])
        grey.append(image.mean(0))
    masks, labels = torch.stack([mask for _, mask, _ in items]), torch.tensor([label for _, _, label in items])
    return Maps({"fused": torch.stack(fused)}, masks, labels), torch.stack(grey)


def measure(run: Path) -> None:
    """A line for each setting."""
    config, data, module = load(run)
    plain, test = (
        [(s[i]["image"], s[i]["mask"][0] > 0, s[i]["label"]) for i in range(len(s))]
        for s in (data.val_set, data.test_set)
    )
    arrays = [image.permute(1, 2, 0).numpy() for image, _, _ in plain]
    bad = []
    for copy in range(math.ceil(SYNTHETIC / len(plain))):
        for i, array in enumerate(arrays):
            changed, mask = module.synthesis(array, arrays, np.random.default_rng([71, copy, i]))
            bad.append((torch.from_numpy(changed).permute(2, 0, 1), torch.from_numpy(mask) > 0, 1))
    parts = [collect(module, items) for items in (plain + bad, test)]
    for radius, variance in SETTINGS:
        row = [", ".join(data.categories), str(config.seed), str(radius), f"{variance:g}"]
        for part, grey in parts:
            row += cells(guided(part.raw["fused"], grey, radius, variance), part, module.anomaly.top)
        print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    print("| category | seed | radius | variance | synthetic AUROC | AP | AUPRO | test AUROC | AP | AUPRO |")
    print("|---" * 10 + "|")
    with torch.inference_mode():
        for argument in sys.argv[1:]:
            measure(Path(argument))
