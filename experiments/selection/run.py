"""Do label-free signals rank settings as the test set would? Reads the rows of two other studies.

    python -m experiments.selection.run

For each category: Spearman's rank correlation, over the runs of these studies that have the signal, of each signal with
each test metric; and what a choice by the signal loses: the best run's metric minus that of the run with the best
signal. Then the signal that is best on two of the categories, on the third.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from experiments.ablation.run import KINDS
from experiments.shared import DATASETS, read
from scipy.stats import spearmanr

from squad_lit.report.figures import COLUMNS as METRICS

HERE = Path(__file__).parent
# Studies of one length: a longer training is better, and any signal shows it.
STUDIES = ("shortcut", "ablation")
# Another synthesis: synthetic anomalies are what two of the signals are measured on.
OTHER_SYNTHESIS = {f"no {kind}" for kind in KINDS} | {"with smear", "curriculum"}
OTHER_SYNTHESIS |= {"small anomalies only", "large anomalies only"}

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
    """The rows of these studies, but for arms with another synthesis."""
    found = [row for study in STUDIES for row in read(HERE.parent / study / "results.csv")]
    kept = [row for row in found if row["arm"] not in OTHER_SYNTHESIS and row["seed"] == 0]
    # Studies share runs, and one must not count twice.
    return list({(row["category"], *(row[key] for key in METRICS.values())): row for row in kept}.values())


def having(runs: Sequence[dict[str, Any]], signal: str) -> list[dict[str, Any]]:
    """The runs that have a signal: a model without a group has no copy ratio of it."""
    return [run for run in runs if signal in run]


def good(runs: Sequence[dict[str, Any]], signal: str) -> list[float]:
    """The signal of each run, more of it better."""
    return [row[signal] if SIGNALS[signal] else -row[signal] for row in runs]


def rank(runs: Sequence[dict[str, Any]], signal: str, key: str) -> float:
    """How well a signal orders the runs as a metric does: Spearman's correlation."""
    return float(spearmanr(good(runs, signal), [row[key] for row in runs]).statistic)


def loss(runs: Sequence[dict[str, Any]], signal: str, key: str) -> float:
    """The best run's metric minus that of the run which the signal chooses, in points."""
    values = good(runs, signal)
    return float(max(row[key] for row in runs) - runs[values.index(max(values))][key])


def report(title: str, by_category: dict[str, list[dict[str, Any]]]) -> None:
    """A table of all signals, and what the signal that is best on the other categories does on each."""
    print(f"\n{title}\n\n| category | runs | signal | {' | '.join(METRICS)} | loses Pixel AP | loses AUPRO |")
    print("|" + "---|" * (len(METRICS) + 5))
    for category, runs in by_category.items():
        for signal in SIGNALS:
            own = having(runs, signal)
            cells = [f"{rank(own, signal, key):.2f}" for key in METRICS.values()]
            cells += [f"{loss(own, signal, key):.1f}" for key in ("pixel_ap", "pixel_aupro")]
            print(f"| {category} | {len(own)} | {signal} | " + " | ".join(cells) + " |")
    print("\n| chosen on the other two | for | correlation with Pixel AP there | loses Pixel AP | loses AUPRO |")
    print("|---|---|---|---|---|")
    for category, runs in by_category.items():
        others = [own for name, own in by_category.items() if name != category]
        best = max(SIGNALS, key=lambda s, others=others: mean(rank(having(o, s), s, "pixel_ap") for o in others))
        own = having(runs, best)
        lost = [f"{loss(own, best, key):.1f}" for key in ("pixel_ap", "pixel_aupro")]
        print(f"| {best} | {category} | {rank(own, best, 'pixel_ap'):.2f} | " + " | ".join(lost) + " |")


def main() -> None:
    """Tables in Markdown: of all runs, and of those with a discriminator, which are nearer to each other."""
    every = rows()
    without = ("none none", "patch", "discriminator=none", "fsq none")
    with_discriminator = [r for r in every if not r["arm"].endswith(without) and not r["arm"].startswith("plain")]
    for title, runs in (("All runs", every), ("Runs with a segmentation discriminator", with_discriminator)):
        report(title, {name: [row for row in runs if row["category"] == name] for name in DATASETS})


if __name__ == "__main__":
    main()
