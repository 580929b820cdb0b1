"""The yardstick: a nearest-neighbour memory on the same features (the idea of PatchCore).

    python experiments/three_categories/memory.py --output runs/memory_bottle.json dataset=mvtec dataset.category=bottle

Takes the overrides of ``squad_lit.train``; of these the data set, the backbone, the groups, the seed and the map's
smoothing and score count. The metrics come from the same code.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor
from torch.nn import functional as F

from squad_lit import checkpoint
from squad_lit.anomaly import resize_map, smooth, top_mean
from squad_lit.backbone import Backbone
from squad_lit.evaluation import Evaluation
from squad_lit.table import table
from squad_lit.train import CONF

PATCHES = 10_000  # random patches of the training images in the memory


def patches(backbone: Backbone, image: Tensor) -> Tensor:
    """3x3-averaged features of all groups on the finest grid: ``(N, C, H, W)``."""
    features = [F.avg_pool2d(f, 3, 1, 1) for f in backbone(image).values()]
    grid = max(f.shape[-2:] for f in features)
    return torch.cat([F.interpolate(f, size=grid, mode="bilinear", align_corners=False) for f in features], 1)


def evaluate(overrides: list[str]) -> dict[str, Any]:
    """Fill the memory from the normal training images, and test."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose("train", overrides)
    data = hydra.utils.instantiate(config.dataset, _convert_="all")
    data.prepare_data()
    data.setup()
    started = time.perf_counter()
    make = checkpoint.build(OmegaConf.to_container(config.backbone, resolve=True))
    backbone: Backbone = make(groups=OmegaConf.to_container(config.model.groups))
    images = [data.train_set[i]["image"][None] for i in range(len(data.train_set))]
    backbone.fit(images)
    rows = torch.cat([patches(backbone, image).permute(0, 2, 3, 1).flatten(0, 2) for image in images])
    memory = rows[torch.from_numpy(np.random.default_rng(config.seed).permutation(len(rows))[:PATCHES])]
    evaluation = Evaluation(**OmegaConf.to_container(config.metric, resolve=True), seed=config.seed)
    for batch in data.test_dataloader():
        found = patches(backbone, batch["image"])
        n, channels, h, w = found.shape
        distance = torch.cdist(found.permute(0, 2, 3, 1).reshape(-1, channels), memory).min(1).values
        anomaly_map = smooth(resize_map(distance.view(n, 1, h, w), data.image_size), config.anomaly.sigma)[:, 0]
        evaluation.update(batch, anomaly_map, top_mean(anomaly_map, config.anomaly.top))
    return evaluation.compute() | {"seconds": time.perf_counter() - started}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="JSON file for the metrics")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, as for squad_lit.train")
    arguments = parser.parse_args()
    figures = evaluate(arguments.overrides)
    print(table(figures))
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(figures, indent=2) + "\n")
