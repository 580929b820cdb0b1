"""How well is a normal image reconstructed? Runs the study, prints its table, and draws reconstructions.

    python -m experiments.reconstruction.run runs/reconstruction

Two categories of the embedded benchmark, 400 steps, one seed; its pictures may be shown.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from experiments.shared import folder_of, measure, tables
from numpy.typing import NDArray
from omegaconf import OmegaConf
from torch.nn import functional as F

from squad_lit.run.option import make
from squad_lit.training import checkpoint

HERE = Path(__file__).parent
CATEGORIES = ("gear", "wood")
ARMS = {
    f"{quantizer}{' and PatchGAN' if patch else ''}": [
        "model.steps=400",
        f"quantizer={quantizer}",
        f"discriminator={'both' if patch else 'segmentation'}",
    ]
    for quantizer in ("fsq", "vq", "none")
    for patch in (False, True)
}


def pictures(root: Path, category: str) -> NDArray[np.uint8]:
    """Rows: a normal test image and one of each of two kinds of defect; columns: the image, then each arm."""
    columns: list[list[NDArray[np.uint8]]] = []
    for arm in ARMS:
        folder = root / folder_of(category, arm)
        config = OmegaConf.load(folder / "config.yaml")
        data: Any = make(config, "dataset")
        data.setup()
        kinds = [item["defect"] for item in (data.test_set[i] for i in range(len(data.test_set)))]
        chosen = [kinds.index(kind) for kind in sorted(set(kinds), key=lambda kind: kind != "good")[:3]]
        images = torch.stack([data.test_set[i]["image"] for i in chosen])
        model = checkpoint.load(folder / "last.ckpt")
        with torch.inference_mode():
            recon = model.image_recon(model(images))
        assert recon is not None
        columns += [] if columns else [to_pixels(images)]
        columns.append(to_pixels(recon))
    return np.concatenate([np.concatenate(column) for column in columns], 1)


def to_pixels(images: torch.Tensor) -> list[NDArray[np.uint8]]:
    """``(N, 3, H, W)`` in [0, 1] as pictures of half the size."""
    small = F.interpolate(images, scale_factor=0.5, mode="bilinear", antialias=True)
    return list((255 * small).round().byte().permute(0, 2, 3, 1).numpy())


if __name__ == "__main__":
    from squad_lit.system.file import write_picture

    place = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/reconstruction").absolute()
    print(tables(measure(ARMS, place, HERE / "results.csv", categories=CATEGORIES, jobs=2)))
    for name in CATEGORIES:
        write_picture(HERE / f"{name}.png", pictures(place, name))
