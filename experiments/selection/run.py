"""Do label-free signals rank settings as the test set would? Reads the rows of the other studies.

    python -m experiments.selection.run

For each category: Spearman's rank correlation, over all runs of the studies that have the signals, of each signal with
each test metric; and what a choice by the signal loses: the best run's metric minus that of the run with the best
signal.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.study import DATASETS, METRICS, read
from scipy.stats import spearmanr

HERE = Path(__file__).parent

# Signal, and whether more of it is better.
SIGNALS = {
    "synthetic_ap": True,
    "synthetic_auroc": True,
    "normal_score": False,
    "copy_ratio/low": False,
    "copy_ratio/high": False,
    "feature_error/low": False,
    "psnr": True,
}


def rows() -> list[dict[str, Any]]:
    """The rows of all studies that have the signals."""
    found = [row for path in sorted(HERE.parent.glob("*/results.csv")) for row in read(path)]
    return [row for row in found if row["category"] in DATASETS and all(signal in row for signal in SIGNALS)]


def main() -> None:
    """A table in Markdown."""
    every = rows()
    print("| category | runs | signal | " + " | ".join(METRICS) + " | loses Pixel AP | loses AUPRO |")
    print("|" + "---|" * (len(METRICS) + 5))
    for category in dict.fromkeys(row["category"] for row in every):
        runs = [row for row in every if row["category"] == category]
        for signal, more_is_better in SIGNALS.items():
            good = [row[signal] if more_is_better else -row[signal] for row in runs]
            rank = [f"{spearmanr(good, [row[key] for row in runs]).statistic:.2f}" for key in METRICS.values()]
            chosen = runs[max(range(len(runs)), key=good.__getitem__)]
            lost = [f"{max(r[key] for r in runs) - chosen[key]:.1f}" for key in ("pixel_ap", "pixel_aupro")]
            print(f"| {category} | {len(runs)} | {signal} | " + " | ".join([*rank, *lost]) + " |")


if __name__ == "__main__":
    main()
