"""Look at data before training, and at training images after it: ``python -m squad_lit.check dataset=...``.

Takes the options of ``squad_lit.train``. Without a checkpoint: reads every file, prints what there is and what is
wrong, and exits with 1 if something is. With ``fit=false checkpoint=RUN/last.ckpt``: ranks the training images by their
anomaly score, because a folder of "good" parts often holds a few bad ones, into ``suspects.csv`` and ``suspects.png``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from omegaconf import DictConfig

from squad_lit.command import check_options, check_overrides, exit_with_sentence, instantiate
from squad_lit.output import write_picture, write_rows
from squad_lit.train import CONF
from squad_lit.visual import colour_map, histogram, panel, stack, to_picture

if TYPE_CHECKING:
    from torch.utils.data import Dataset

    from squad_lit.detector import Detector

# Suspects in the picture: the highest scores, and for comparison as many in the middle.
SHOWN = 6


def check(config: DictConfig) -> bool:
    """Read all files of the data set and print what is in it and what is wrong.

    Returns:
        Whether there is no error.
    """
    from squad_lit.dataset.inspection import inspect

    data = instantiate(config.dataset, strict=False)
    data.prepare_data()
    rows, problems = inspect(data, show=True)
    for row in rows:
        print(f"{row.pop('category')}: " + ", ".join(f"{key} {value}" for key, value in row.items()))
    for problem in problems:
        print(problem)
    errors = sum(problem.is_error for problem in problems)
    print(f"errors: {errors}, warnings: {len(problems) - errors}")
    return errors == 0


def rank(config: DictConfig, folder: Path) -> list[dict[str, Any]]:
    """Score all normal training images with a trained model, those included that were held out of the training.

    A bad image that was trained on is partly learned, so its score is lower than it would be unseen: the order is what
    counts, and a second look at the top of the list.

    Args:
        config: With ``checkpoint``.
        folder: Gets ``suspects.csv`` and ``suspects.png``: for each category a histogram of the scores, the first
            suspects, and for comparison images from the middle.

    Returns:
        A row an image, category by category, highest score first: ``image_path``, ``category``, ``anomaly_score``.
    """
    import torch
    from torch.utils.data import ConcatDataset, DataLoader
    from tqdm import tqdm

    from squad_lit import checkpoint

    if config.callback.panels is None:
        raise ValueError("callback.panels=null: the suspects are drawn with callback.panels.scale; leave it out")
    everything = {"limit_train": None} | ({"test_fraction": 0} if "test_fraction" in config.dataset else {})
    data = instantiate(config.dataset, **everything)
    data.prepare_data()
    data.setup()
    module = checkpoint.load(hydra.utils.to_absolute_path(config.checkpoint))
    module.check_data(data.categories, data.image_size)
    images: ConcatDataset[dict[str, Any]] = ConcatDataset([data.train_set, data.val_set])
    rows: list[dict[str, Any]] = []
    with torch.inference_mode():
        for batch in tqdm(DataLoader(images, batch_size=config.dataset.batch_size), desc="training images"):
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
    print(f"\nall {len(rows)} images: {folder / 'suspects.csv'}; pictures of the first: {folder / 'suspects.png'}")
    return rows


def _draw_suspects(
    module: Detector, images: Dataset[dict[str, Any]], rows: list[dict[str, Any]], category: str, scale: float
) -> list[Any]:
    """A category's histogram and strips of images with their maps; prints the first suspects."""
    scores = [row["anomaly_score"] for row in rows]
    shown = min(SHOWN, len(rows))
    strips = [histogram(scores, shown, f"{category}: anomaly score of the good images; red: the {shown} below")]
    middle = max(shown, (len(rows) - SHOWN) // 2)
    for number, row in [*enumerate(rows[:shown]), *enumerate(rows[middle : middle + SHOWN], middle)]:
        image = images[row["at"]]["image"]
        heat, _ = module.predict(image[None])
        name = f"{number + 1} of {len(rows)}: {Path(row['image_path']).name}, score {row['anomaly_score']:.1f}"
        strips.append(panel({name: to_picture(image.numpy()), "": colour_map(heat[0].numpy(), 0, scale)}))
        if number < shown:
            print(f"{row['anomaly_score']:8.2f}  {row['image_path']}")
    return strips


@hydra.main(config_path=str(CONF), config_name="train", version_base="1.3")
def main(config: DictConfig) -> None:
    """Entry point of ``python -m squad_lit.check``."""
    with exit_with_sentence():
        check_overrides(config, list(HydraConfig.get().overrides.task))
        check_options(config)
        if config.checkpoint:
            rank(config, Path(HydraConfig.get().runtime.output_dir))
        elif not check(config):
            # Hydra's own kind, so that in a sweep the other categories are checked too; it prints this text.
            raise CompactHydraException(f"{config.dataset.root}: the data have errors, listed above")


if __name__ == "__main__":
    main()
