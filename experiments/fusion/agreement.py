"""Should what one group of residuals alone finds unusual count for less?

    python -m experiments.fusion.agreement RUN [RUN ...]   # RUN: folder of a training on one category

For each share of the minimum of the two residual maps (the rest is their mean): figures of the held-out normal images
and of copies with synthetic anomalies, which may choose, and of the test set, which judges. Prints a table.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from experiments.fusion.run import cells, fused, known_and_test, load

AGREEMENTS = (0.0, 0.25, 0.5, 0.75, 1.0)
WEIGHTS = (0.5, 0.6)  # of the discriminator


def measure(run: Path) -> None:
    """A line for each setting."""
    config, data, module = load(run)
    parts = known_and_test(module, data)
    for weight in WEIGHTS:
        for agreement in AGREEMENTS:
            row = [", ".join(data.categories), str(config.seed), f"{weight:g}", f"{agreement:g}"]
            for part in parts:
                row += cells(fused(part.raw, weight, agreement), part, module.anomaly.top)
            print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    print("| category | seed | weight | agreement | synthetic AUROC | AP | AUPRO | test AUROC | AP | AUPRO |")
    print("|---" * 10 + "|")
    with torch.inference_mode():
        for argument in sys.argv[1:]:
            measure(Path(argument))
