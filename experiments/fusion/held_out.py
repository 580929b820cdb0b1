"""Can the discriminator's weight be chosen on kinds of synthetic anomalies that the training did not know?

    python -m experiments.fusion.held_out RUN [RUN ...]   # RUN: folders of the "no KIND" arms of ../ablation

Each RUN was trained without a kind. Held-out normal images get anomalies of that kind alone, and the fused map is
judged on them for each weight; the mean over the kinds then chooses the weight of a category. Prints a table.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import torch
from experiments.fusion.run import collect, collect_bad, fused, load, z_scores
from torch import Tensor

from squad_lit.metric import average_precision, pixel_metrics
from squad_lit.run.option import make

WEIGHTS = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)


def measure(run: Path) -> tuple[str, str, list[tuple[float, float]]]:
    """Category, the kind left out, and for each weight Pixel AP on that kind and on the test set, in percent."""
    config, data, module = load(run)
    kinds = config.synthesis.kinds
    left_out = next(kind for kind, weight in kinds.items() if weight == 0 and kind != "smear")
    only = {kind: float(kind == left_out) for kind in kinds}
    module.synthesis = make(config, "synthesis", kinds=only, gross=0.0)
    plain, test = collect(module, data.val_set), collect(module, data.test_set)
    bad = collect_bad(module, data)
    z_bad, z_test = z_scores(bad, plain), z_scores(test, plain)
    found = []
    for weight in WEIGHTS:
        on_bad = average_precision(fused(z_bad, weight).flatten(), bad.mask.flatten())
        on_test = pixel_metrics(fused(z_test, weight), test.mask)["pixel_ap"]
        found.append((100 * float(on_bad), 100 * float(on_test)))
    return ", ".join(data.categories), left_out, found


def main(runs: list[Path]) -> None:
    """A row a run, then the mean of each category."""
    print("| category | left out | of | " + " | ".join(f"{w:g}" for w in WEIGHTS) + " |")
    print("|---" * (3 + len(WEIGHTS)) + "|")
    sums: dict[str, list[Tensor]] = defaultdict(list)
    for run in runs:
        category, kind, found = measure(run)
        sums[category].append(torch.tensor(found))
        show(category, kind, sums[category][-1])
    for category, parts in sums.items():
        show(category, f"mean of {len(parts)}", torch.stack(parts).mean(0))


def show(category: str, what: str, found: Tensor) -> None:
    """Two lines: Pixel AP of the kind that was left out, and of the test set, for each weight."""
    for name, values in zip((what, "test set"), found.T.tolist(), strict=True):
        print(f"| {category} | {what} | {name} | " + " | ".join(f"{v:.1f}" for v in values) + " |", flush=True)


if __name__ == "__main__":
    with torch.inference_mode():
        main([Path(argument) for argument in sys.argv[1:]])
