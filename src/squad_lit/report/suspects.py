"""Ranks normal training images by anomaly score, because a folder of good parts often holds a few defective ones."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch.utils.data import ConcatDataset, DataLoader
from tqdm import tqdm

from squad_lit.deploy.device import torch_device
from squad_lit.image.picture import Picture, colour_map, panel, stack, to_picture
from squad_lit.report.curve import histogram
from squad_lit.run.option import make
from squad_lit.system.file import write_picture
from squad_lit.system.table import write_rows
from squad_lit.training import checkpoint
from squad_lit.training.detector import Detector

# Number of suspects in the picture, and of images from the middle of the ranking for comparison.
SHOWN = 6


def rank(config: DictConfig, folder: Path) -> list[dict[str, Any]]:
    """Score all normal images with a trained model, including those that were held out from the training.

    The model has partly learned a defective image that it was trained on, whose score is therefore lower than that of
    an unseen one. Trust the order and not the value, and look at the top of the list.

    Args:
        config: Configuration with ``checkpoint``.
        folder: Folder for ``suspects.csv`` and ``suspects.png``. The picture shows, per category, a histogram of the
            scores, the first suspects, and images from the middle of the ranking for comparison.

    Returns:
        One row per image (``image_path``, ``category``, ``anomaly_score``), by category, highest score first.

    Raises:
        ValueError: ``callback.panels`` is null, or the checkpoint does not fit the data.
    """
    if config.callback.panels is None:
        raise ValueError("callback.panels=null: the suspects need callback.panels.scale, so leave this option out")
    everything = {"limit_train": None, "test_fraction": 0}
    data = make(config, "dataset", **{key: value for key, value in everything.items() if key in config.dataset})
    data.prepare_data()
    data.setup()
    device = torch_device("cuda" if config.trainer.accelerator in ("gpu", "cuda") else "cpu")
    module = checkpoint.load(config.checkpoint, trust=config.trust).to(device)
    data.keep_shape(module.multiple)
    module.check_data(data.categories, data.image_size)
    images: ConcatDataset[dict[str, Any]] = ConcatDataset([data.train_set, data.val_set])
    rows: list[dict[str, Any]] = []  # in the order of the images
    with torch.inference_mode():
        for batch in tqdm(DataLoader(images, batch_size=data.batch_size), desc="training images"):
            scores = module.predict(batch["image"].to(device))[1].tolist()
            for path, score in zip(batch["image_path"], scores, strict=True):
                if not math.isfinite(score):
                    raise ValueError(
                        f"the score of {path} is {score}: the checkpoint is damaged, or the model diverged"
                    )
            columns = {"image_path": batch["image_path"], "category": batch["category"], "anomaly_score": scores}
            rows += [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        order = sorted(range(len(rows)), key=lambda i: -rows[i]["anomaly_score"])
        by_category = {category: [i for i in order if rows[i]["category"] == category] for category in data.categories}
        strips = []
        for category, own in by_category.items():
            scores = [rows[i]["anomaly_score"] for i in own]
            shown = min(SHOWN, len(own))
            caption = f"{category}: anomaly score of the good images (red: {shown} suspects)"
            strips.append(histogram(scores, shown, caption))
            middle = max(shown, (len(own) - SHOWN) // 2)
            for place in [*range(shown), *range(middle, min(middle + SHOWN, len(own)))]:
                path, score = rows[own[place]]["image_path"], scores[place]
                name = f"{place + 1} of {len(own)}: {Path(path).name}, score {score:.1f}"
                strips.append(_strip(module, images[own[place]]["image"], name, config.callback.panels.scale))
                if place < shown:
                    print(f"{score:8.2f}  {path}")
    ranked = [rows[i] for own in by_category.values() for i in own]
    write_rows(folder / "suspects.csv", ranked)
    write_picture(folder / "suspects.png", stack(strips))
    print(f"\nscores of all {len(rows)} images: {folder / 'suspects.csv'}\nfirst suspects: {folder / 'suspects.png'}")
    return ranked


def _strip(module: Detector, image: torch.Tensor, name: str, scale: float) -> Picture:
    """An image and its map side by side."""
    heat, _ = module.predict(image[None].to(module.device))
    return panel({name: to_picture(image.numpy()), "": colour_map(heat[0].numpy(), 0, scale)})
