"""Ranks normal training images by anomaly score, because a folder of good parts often holds a few defective ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from squad_lit.image.picture import colour_map, panel, stack, to_picture
from squad_lit.report.curve import histogram
from squad_lit.run.option import make
from squad_lit.system.file import write_picture, write_rows

if TYPE_CHECKING:
    from torch.utils.data import Dataset

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
    import torch
    from torch.utils.data import ConcatDataset, DataLoader
    from tqdm import tqdm

    from squad_lit.training import checkpoint

    if config.callback.panels is None:
        raise ValueError("callback.panels=null: the suspects need callback.panels.scale, so leave this option out")
    everything = {"limit_train": None, "test_fraction": 0}
    data = make(config, "dataset", **{key: value for key, value in everything.items() if key in config.dataset})
    data.prepare_data()
    data.setup()
    module = checkpoint.load(config.checkpoint, trust=config.trust)
    module.check_data(data.categories, data.image_size)
    images: ConcatDataset[dict[str, Any]] = ConcatDataset([data.train_set, data.val_set])
    rows: list[dict[str, Any]] = []
    with torch.inference_mode():
        for batch in tqdm(DataLoader(images, batch_size=data.batch_size), desc="training images"):
            scores = module.predict(batch["image"])[1].tolist()
            pairs = zip(batch["image_path"], batch["category"], scores, strict=True)
            rows += [
                {"image_path": p, "category": c, "anomaly_score": s, "at": len(rows) + i}
                for i, (p, c, s) in enumerate(pairs)
            ]
        rows.sort(key=lambda row: (data.categories.index(row["category"]), -row["anomaly_score"]))
        strips = []
        for category in data.categories:
            own = [row for row in rows if row["category"] == category]
            strips += _draw_suspects(module, images, own, category, config.callback.panels.scale)
    for row in rows:
        del row["at"]
    write_rows(folder / "suspects.csv", rows)
    write_picture(folder / "suspects.png", stack(strips))
    print(f"\nscores of all {len(rows)} images: {folder / 'suspects.csv'}\nfirst suspects: {folder / 'suspects.png'}")
    return rows


def _draw_suspects(
    module: Detector, images: Dataset[dict[str, Any]], rows: list[dict[str, Any]], category: str, scale: float
) -> list[Any]:
    """Histogram and image strips with maps of a category; also prints the first suspects."""
    scores = [row["anomaly_score"] for row in rows]
    shown = min(SHOWN, len(rows))
    strips = [histogram(scores, shown, f"{category}: anomaly score of the good images (red: {shown} suspects)")]
    middle = max(shown, (len(rows) - SHOWN) // 2)
    for number, row in [*enumerate(rows[:shown]), *enumerate(rows[middle : middle + SHOWN], middle)]:
        image = images[row["at"]]["image"]
        heat, _ = module.predict(image[None])
        name = f"{number + 1} of {len(rows)}: {Path(row['image_path']).name}, score {row['anomaly_score']:.1f}"
        strips.append(panel({name: to_picture(image.numpy()), "": colour_map(heat[0].numpy(), 0, scale)}))
        if number < shown:
            print(f"{row['anomaly_score']:8.2f}  {row['image_path']}")
    return strips
