"""The yardstick: a nearest-neighbour memory on the same features (the idea of PatchCore).

    python experiments/memory/memory.py dataset=mvtec dataset.category=bottle

Takes the overrides of ``squad_lit.train``; of these the data set, the backbone, the groups and the map's smoothing and
score count. Prints and writes the same metrics from the same code.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

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
from squad_lit.train import CONF

PATCHES = 10_000  # random patches of the training images in the memory


def patches(backbone: Backbone, image: Tensor) -> Tensor:
    """3x3-averaged features of all groups on the finest grid: ``(N, C, H, W)``."""
    features = list(backbone(image).values())
    grid = max(f.shape[-2:] for f in features)
    return torch.cat(
        [F.interpolate(F.avg_pool2d(f, 3, 1, 1), size=grid, mode="bilinear", align_corners=False) for f in features], 1
    )


def main(overrides: list[str]) -> None:
    """Fill the memory from the normal training images, test, print."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose("train", overrides, return_hydra_config=False)
    data = hydra.utils.instantiate(config.dataset, _convert_="all")
    data.setup()
    started = time.perf_counter()
    backbone: Backbone = checkpoint.build(OmegaConf.to_container(config.backbone, resolve=True))(
        groups=OmegaConf.to_container(config.model.groups)
    )
    images = [data.train_set[i]["image"][None] for i in range(len(data.train_set))]
    backbone.fit(images)
    rows = torch.cat([patches(backbone, image).permute(0, 2, 3, 1).flatten(0, 2) for image in images])
    memory = rows[torch.from_numpy(np.random.default_rng(config.seed).permutation(len(rows))[:PATCHES])]
    evaluation = Evaluation(fpr_limit=config.metric.fpr_limit)
    for batch in data.test_dataloader():
        found = patches(backbone, batch["image"])
        n, _, h, w = found.shape
        distance = torch.cdist(found.permute(0, 2, 3, 1).reshape(-1, found.shape[1]), memory).min(1).values
        anomaly_map = smooth(resize_map(distance.view(n, 1, h, w), data.image_size), config.anomaly.sigma)[:, 0]
        evaluation.update(batch, anomaly_map, top_mean(anomaly_map, config.anomaly.top))
    figures = evaluation.compute() | {"seconds": time.perf_counter() - started}
    print(json.dumps({k: v for k, v in figures.items() if k != "per_category"}, indent=2))
    if config.get("output"):
        Path(config.output).write_text(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1:])
