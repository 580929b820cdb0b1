"""What does the distance to the nearest remembered patch add to SQUAD, and how many patches does it take?

    python -m experiments.fusion.hybrid SQUAD_RUN MEMORY_RUN   # of one category and seed

Prints a row for each number of patches (the first ones of the memory's coreset, which is greedy) and each weight of the
memory: figures of held-out normal images and copies with synthetic anomalies, which may choose, and of the test set.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from experiments.fusion.run import cells, fused, known_and_test, load

PATCHES = (1000, 2500, 10000)
WEIGHTS = (0.1, 0.2, 0.4 / 1.4, 0.4, 0.5)  # of the memory in the sum; the third is the default's
FUSION = (0.6, 0.5)  # the default's: weight of the discriminator, agreement of the residuals


def measure(squad_run: Path, memory_run: Path) -> None:
    """A line for each setting."""
    config, data, squad = load(squad_run)
    _, _, memory = load(memory_run)
    own = [(fused(part.raw, *FUSION), part) for part in known_and_test(squad, data)]
    rows = memory.memory.rows
    for patches in PATCHES:
        memory.memory.rows = rows[:patches]
        distance = [part.raw["memory"] for part in known_and_test(memory, data)]
        for weight in (0.0, *WEIGHTS, 1.0) if patches == PATCHES[-1] else WEIGHTS:
            row = [", ".join(data.categories), str(config.seed), str(patches), f"{weight:.3g}"]
            for (one, part), other in zip(own, distance, strict=True):
                row += cells((1 - weight) * one + weight * other, part, squad.anomaly.top)
            print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    print("| category | seed | patches | weight | synthetic AUROC | AP | AUPRO | test AUROC | AP | AUPRO |")
    print("|---" * 10 + "|")
    with torch.inference_mode():
        measure(Path(sys.argv[1]), Path(sys.argv[2]))
