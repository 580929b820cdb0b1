"""Is ``synthetic_ap`` a better signal when it is measured on more synthetic anomalies?

    python -m experiments.selection.more RUN [RUN ...]   # RUN: folders of trainings of ../ablation

Each model is judged on so many synthetic anomalies of the default synthesis on each held-out normal image. Prints, for
each category and number, the rank correlation with Pixel AP and AUPRO of the test set, and what the choice loses.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from experiments.selection.run import OTHER_SYNTHESIS, loss, rank
from omegaconf import OmegaConf

from squad_lit.metric import average_precision
from squad_lit.run.config import compose
from squad_lit.run.option import make
from squad_lit.system.figures import read_figures
from squad_lit.training import checkpoint

COPIES = (1, 2, 4, 8, 16)


@torch.inference_mode()
def measure(run: Path) -> dict[str, Any]:
    """Category, arm, test metrics in percent, and the signal for each number of anomalies on an image."""
    data = make(OmegaConf.load(run / "config.yaml"), "dataset")
    data.setup()
    module = checkpoint.load(run / "last.ckpt")
    synthesis = make(compose(), "synthesis")
    images = [data.val_set[i]["image"].permute(1, 2, 0).numpy() for i in range(len(data.val_set))]
    maps, masks = [], []
    for copy in range(max(COPIES)):
        made = [synthesis(image, images, np.random.default_rng([83, copy, i])) for i, image in enumerate(images)]
        for start in range(0, len(made), 8):
            chunk = torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image, _ in made[start : start + 8]])
            maps.append(module.predict(chunk)[0])
        masks += [torch.from_numpy(mask) > 0 for _, mask in made]
    found, mask = torch.cat(maps), torch.stack(masks)
    figures = read_figures(run)
    assert figures is not None
    row: dict[str, Any] = {"category": ", ".join(data.categories), "run": run.name}
    row |= {key: 100 * figures[key] for key in ("pixel_ap", "pixel_aupro")}
    for copies in COPIES:
        count = copies * len(images)
        row[f"on {copies}"] = float(average_precision(found[:count].flatten(), mask[:count].flatten()))
    return row


def main(runs: list[Path]) -> None:
    """The table: all runs, and those trained with the default synthesis."""
    every: dict[str, list[dict[str, Any]]] = defaultdict(list)
    other = tuple(arm.replace(" ", "-") for arm in OTHER_SYNTHESIS)
    for run in runs:
        row = measure(run)
        every[f"{row['category']}, all"].append(row)
        if not any(arm in run.name for arm in other):
            every[f"{row['category']}, same synthesis"].append(row)
    print("| runs | anomalies on an image | Pixel AP | AUPRO | loses Pixel AP |\n|---|---|---|---|---|")
    for name, rows in sorted(every.items()):
        for copies in COPIES:
            judged = [{**row, "synthetic_ap": row[f"on {copies}"]} for row in rows]
            cells = [f"{rank(judged, 'synthetic_ap', key):.2f}" for key in ("pixel_ap", "pixel_aupro")]
            cells.append(f"{loss(judged, 'synthetic_ap', 'pixel_ap'):.1f}")
            print(f"| {name} ({len(rows)}) | {copies} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
