"""Do training images have the scores of normal images that were not trained on? If so, they could give thresholds too.

    python -m experiments.threshold.bias RUN [RUN ...]

Each RUN is the folder of a training on one category. Chance would put half of the training images above the median of
the held-out ones.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from omegaconf import OmegaConf
from scipy.stats import mannwhitneyu

from squad_lit.run.option import make
from squad_lit.training import checkpoint

TRAINING = 100  # images looked at, evenly spread


@torch.inference_mode()
def main(runs: list[Path]) -> None:
    """A table in Markdown."""
    head = ["run", "median: training", "held out", "test, good", "training above the median of held out", "p"]
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    for run in runs:
        data = make(OmegaConf.load(run / "config.yaml"), "dataset")
        data.setup()
        module = checkpoint.load(run / "last.ckpt")
        train = range(0, len(data.train_set), max(1, len(data.train_set) // TRAINING))
        good = [i for i, sample in enumerate(data.test_set.samples) if sample.label == 0]
        parts = [(data.train_set, train), (data.val_set, range(len(data.val_set))), (data.test_set, good)]
        scores = [
            torch.cat([module.predict(dataset[i]["image"][None])[1] for i in chosen]) for dataset, chosen in parts
        ]
        seen, held_out, _ = scores
        cells = [f"{float(s.median()):.2f} ({len(s)})" for s in scores]
        cells.append(f"{100 * float((seen > held_out.median()).float().mean()):.0f} %")
        cells.append(f"{mannwhitneyu(seen, held_out).pvalue:.2g}")
        print(f"| {run.name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
