"""Ranks normal training images by anomaly score, because a folder of good parts often holds a few defective ones.

It also finds images of the same part by their features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch.nn import functional as F
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset

from squad_lit.dataset.duplicates import alike, looks_the_same
from squad_lit.dataset.problem import together
from squad_lit.dataset.sample import Sample
from squad_lit.deploy.device import torch_device
from squad_lit.image.picture import Picture, colour_map, panel, stack, to_picture
from squad_lit.report.curve import histogram
from squad_lit.run.option import make
from squad_lit.system.console import say
from squad_lit.system.file import write_picture
from squad_lit.system.progress import progress
from squad_lit.system.table import write_rows
from squad_lit.training import checkpoint
from squad_lit.training.detector import Detector

# Number of suspects in the picture, and of images from the middle of the ranking for comparison.
SHOWN = 6


def rank(config: DictConfig, folder: Path, device: str = "auto") -> list[dict[str, Any]]:
    """Score all normal images with a trained model, including those that were held out from the training.

    The model has partly learned a defective image that it was trained on, whose score is therefore lower than that of
    an unseen one. Trust the order and not the value, and look at the top of the list.

    Args:
        config: Configuration with ``checkpoint``.
        device: Where the model computes; see :func:`squad_lit.load`.
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
    place = torch_device(device)
    print(f"device {place}")
    module = checkpoint.load(config.checkpoint, trust=config.trust).to(place)
    data.keep_shape(module.multiple)
    module.check_data(data.categories, data.image_size)
    data.prepare_data()
    data.setup()
    good: ConcatDataset[dict[str, Any]] = ConcatDataset([data.train_set, data.val_set])
    normal = [i for i, sample in enumerate(data.test_set.samples) if sample.label == 0]
    rows, vectors = _judge(module, ConcatDataset([good, Subset(data.test_set, normal)]), data.batch_size)
    samples = [*data.train_set.samples, *data.val_set.samples, *(data.test_set.samples[i] for i in normal)]
    ranked, strips = [], []
    for category in data.categories:
        own = [i for i, row in enumerate(rows) if row["category"] == category]
        _tell_alike([samples[i] for i in own], vectors[own], sum(i < len(good) for i in own))
        own = sorted((i for i in own if i < len(good)), key=lambda i: -rows[i]["anomaly_score"])
        ranked += [rows[i] for i in own]
        strips += _strips(module, good, own, [rows[i] for i in own], config.callback.panels.scale)
    write_rows(folder / "suspects.csv", ranked)
    write_picture(folder / "suspects.png", stack(strips))
    say(f"\nscores of all {len(ranked)} images: {folder / 'suspects.csv'}\nfirst suspects: {folder / 'suspects.png'}")
    return ranked


@torch.inference_mode()
def _judge(
    module: Detector, images: Dataset[dict[str, Any]], batch_size: int
) -> tuple[list[dict[str, Any]], NDArray[np.float32]]:
    """A row for each image, in their order, and its features as a vector."""
    rows: list[dict[str, Any]] = []
    vectors = []
    for batch in progress(DataLoader(images, batch_size=batch_size), desc="good images", unit="batch"):
        output = module(batch["image"].to(module.device))
        scores = module.anomaly(output.maps)[1].tolist()
        for path, score in zip(batch["image_path"], scores, strict=True):
            if not math.isfinite(score):
                raise ValueError(f"the score of {path} is {score}: the checkpoint is damaged, or the model diverged")
        columns = {"image_path": batch["image_path"], "category": batch["category"], "anomaly_score": scores}
        rows += [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        # Of all tiles of an image.
        pooled = [F.adaptive_avg_pool2d(f, 4).reshape(len(scores), -1) for f in output.features.values()]
        vectors.append(torch.cat(pooled, 1).float().cpu().numpy())
    return rows, np.concatenate(vectors)


def _tell_alike(samples: Sequence[Sample], vectors: NDArray[np.float32], train: int) -> None:
    """Print which images of a category are probably of the same part, the first ``train`` being training images."""
    pairs = alike(vectors, train)
    for problem in together(
        looks_the_same(samples[old], samples[new], old < train <= new) for new, old in pairs.items()
    ):
        say(problem)


def _strips(
    module: Detector, images: Dataset[dict[str, Any]], own: Sequence[int], rows: Sequence[dict[str, Any]], scale: float
) -> list[Picture]:
    """The pictures of a category, whose images are ranked: the histogram, the suspects, and some from the middle."""
    scores = [row["anomaly_score"] for row in rows]
    shown = min(SHOWN, len(own))
    caption = f"{rows[0]['category']}: anomaly score of the good images (red: {shown} suspects)"
    strips = [histogram(scores, shown, caption)]
    middle = max(shown, (len(own) - SHOWN) // 2)
    for place in [*range(shown), *range(middle, min(middle + SHOWN, len(own)))]:
        path, score = rows[place]["image_path"], scores[place]
        name = f"{place + 1} of {len(own)}: {Path(path).name}, score {score:.1f}"
        strips.append(_strip(module, images[own[place]]["image"], name, scale))
        if place < shown:
            say(f"{score:8.2f}  {path}")
    return strips


@torch.inference_mode()
def _strip(module: Detector, image: torch.Tensor, name: str, scale: float) -> Picture:
    """An image and its map side by side."""
    heat, _ = module.predict(image[None].to(module.device))
    return panel({name: to_picture(image.numpy()), "": colour_map(heat[0].cpu().numpy(), 0, scale)})
