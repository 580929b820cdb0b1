"""Should what one group of residuals alone finds unusual count for less?

    python -m experiments.fusion.agreement RUN [RUN ...]   # RUN: folder of a training on one category

For each share of the minimum of the two residual maps (the rest is their mean): figures of the held-out normal images
and of copies with synthetic anomalies, which may choose, and of the test set, which judges. Prints a table.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import torch
from experiments.fusion.run import SYNTHETIC, collect, fused, joined, load, z_scores

from squad_lit.anomaly import top_mean
from squad_lit.metric import image_metrics, pixel_metrics

AGREEMENTS = (0.0, 0.25, 0.5, 0.75, 1.0)
WEIGHTS = (0.5, 0.6)  # of the discriminator


def measure(run: Path) -> None:
    """A line for each setting."""
    config, data, module = load(run)
    plain, test = collect(module, data.val_set), collect(module, data.test_set)
    bad = collect(module, data.val_set, copies=math.ceil(SYNTHETIC / len(data.val_set)))
    parts = [(z_scores(part, plain), part) for part in (joined(plain, bad), test)]
    for weight in WEIGHTS:
        for agreement in AGREEMENTS:
            cells = [", ".join(data.categories), str(config.seed), f"{weight:g}", f"{agreement:g}"]
            for z, part in parts:
                anomaly_map = fused(z, weight, agreement)
                pixel = pixel_metrics(anomaly_map, part.mask)
                image = image_metrics(top_mean(anomaly_map, module.anomaly.top), part.label)
                found = (image["image_auroc"], pixel["pixel_ap"], pixel["pixel_aupro"])
                cells += [f"{100 * float(value):.2f}" for value in found]
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    print("| category | seed | weight | agreement | synthetic AUROC | AP | AUPRO | test AUROC | AP | AUPRO |")
    print("|---" * 10 + "|")
    with torch.inference_mode():
        for argument in sys.argv[1:]:
            measure(Path(argument))
