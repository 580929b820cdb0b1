"""Look at data before training, and at training images after it: ``python -m squad_lit.check dataset=...``.

Takes the options of ``squad_lit.train``. Without a checkpoint: reads every file, prints what there is and what is
wrong, and exits with 1 if something is. With ``fit=false checkpoint=RUN/last.ckpt``: ranks the training images by their
anomaly score, because a folder of "good" parts often holds a few bad ones, into ``suspects.csv`` and ``suspects.png``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from squad_lit.command import exit_with_sentence, instantiate
from squad_lit.output import write_picture, write_rows
from squad_lit.train import CONF

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
    """Score the normal training images with a trained model, the validation share included.

    A bad image that was trained on is partly learned, so its score is lower than it would be unseen: the order is what
    counts, and a second look at the top of the list.

    Args:
        config: With ``checkpoint``.
        folder: Gets ``suspects.csv`` and ``suspects.png``: a histogram of the scores and the first suspects.

    Returns:
        A row an image, highest score first: ``image_path``, ``category``, ``anomaly_score``.
    """
    import torch
    from torch.utils.data import ConcatDataset, DataLoader
    from tqdm import tqdm

    from squad_lit import checkpoint
    from squad_lit.visual import colour_map, histogram, panel, stack, to_picture

    data = instantiate(config.dataset)
    data.prepare_data()
    data.setup()
    module = checkpoint.load(hydra.utils.to_absolute_path(config.checkpoint))
    module.check_data(data.categories, data.image_size)
    images: ConcatDataset[dict[str, Any]] = ConcatDataset([data.train_set, data.val_set])
    rows: list[dict[str, Any]] = []
    with torch.inference_mode():
        for batch in tqdm(DataLoader(images, batch_size=config.dataset.batch_size), desc="training images"):
            _, score = module.anomaly(module.raw_maps(batch["image"])[0])
            pairs = zip(batch["image_path"], batch["category"], score.tolist(), strict=True)
            rows += [{"image_path": p, "category": c, "anomaly_score": s} for p, c, s in pairs]
        order = sorted(range(len(rows)), key=lambda i: -rows[i]["anomaly_score"])
        middle = max(0, len(order) // 2 - SHOWN // 2)
        scores = [row["anomaly_score"] for row in rows]
        strips = [histogram(scores, SHOWN, f"anomaly score of the training images; red: the {SHOWN} below")]
        for i in (*order[:SHOWN], *order[middle : middle + SHOWN]):
            image = images[i]["image"]
            heat, _ = module.anomaly(module.raw_maps(image[None])[0])
            name = f"{Path(rows[i]['image_path']).name}, score {rows[i]['anomaly_score']:.1f}"
            scale = config.callback.panels.scale
            strips.append(panel({name: to_picture(image.numpy()), "": colour_map(heat[0].numpy(), 0, scale)}))
    write_rows(folder / "suspects.csv", [rows[i] for i in order])
    write_picture(folder / "suspects.png", stack(strips))
    for i in order[:SHOWN]:
        print(f"{rows[i]['anomaly_score']:8.2f}  {rows[i]['image_path']}")
    print(
        f"\nall {len(rows)} images: {folder / 'suspects.csv'}; the first {SHOWN}, and {SHOWN} from the middle: "
        f"{folder / 'suspects.png'}"
    )
    return [rows[i] for i in order]


@hydra.main(config_path=str(CONF), config_name="train", version_base="1.3")
def main(config: DictConfig) -> None:
    """Entry point of ``python -m squad_lit.check``."""
    with exit_with_sentence():
        if config.checkpoint:
            rank(config, Path(HydraConfig.get().runtime.output_dir))
        elif not check(config):
            raise SystemExit(1)


if __name__ == "__main__":
    main()
