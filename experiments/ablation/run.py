"""What does each part bring? One change at a time to the default. Runs the study and prints its tables.

    python -m experiments.ablation.run runs/ablation

400 steps, a ninth of the default, seed 0; the default has seeds 1 and 2, too: read differences against those.
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import mean
from typing import Any

from experiments.study import DATASETS, EQUAL_FUSION, METRICS, Job, run

HERE = Path(__file__).parent
COMMON = ["model.steps=400", *EQUAL_FUSION]
KINDS = ("patch", "own", "tone", "stain", "dent", "warp", "scratch", "missing")

ARMS: dict[str, list[str]] = {
    "default": [],
    "quantizer=none": ["quantizer=none"],
    "quantizer=vq": ["quantizer=vq"],
    "discriminator=none": ["discriminator=none"],
    "discriminator sees residuals only": ["discriminator.segmentation.feature_dropout=1"],
    "discriminator always sees features": ["discriminator.segmentation.feature_dropout=0"],
    "gradient of the discriminator reaches the generator": ["model.stop_gradient=false"],
    "no image loss": ["model.loss_weight.image=0"],
    "low group only": ["~model.groups.high"],
    "high group only": ["~model.groups.low"],
    "binary cross-entropy for focal": ["model.focal_gamma=0"],
    "no Dice loss": ["model.loss_weight.dice=0"],
    "no learned upsampling": ["discriminator.segmentation.upsample=0"],
    "small anomalies only": ["synthesis.image.gross=0"],
    "code-level anomalies too": ["synthesis.code.fraction=0.5"],
    "level jitter": ["model.fsq.jitter=0.1"],
    **{f"no {kind}": [f"synthesis.image.kinds.{kind}=0"] for kind in KINDS},
    "with smear": ["synthesis.image.kinds.smear=1"],
    "large anomalies only": ["synthesis.image.gross=1"],
    "no focal loss": ["model.loss_weight.focal=0"],
    "curriculum": ["synthesis.image.curriculum=0.5"],
}


def table(rows: list[dict[str, Any]]) -> str:
    """Each arm: the metrics of the default, then differences from it, averaged over the categories and for each."""
    found = {(row["arm"], row["category"]): row for row in rows if row["seed"] == 0}
    lines = ["| arm | " + " | ".join(METRICS) + " | Pixel AP of " + " | of ".join(DATASETS) + " |"]
    lines.append("|---" * (1 + len(METRICS) + len(DATASETS)) + "|")
    for arm in (arm for arm in ARMS if all((arm, category) in found for category in DATASETS)):
        cells = []
        for key in METRICS.values():
            difference = [_against(found, arm, category, key) for category in DATASETS]
            cells.append(_cell(mean(difference), arm))
        cells += [_cell(_against(found, arm, category, "pixel_ap"), arm) for category in DATASETS]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _against(found: dict[tuple[str, str], dict[str, Any]], arm: str, category: str, key: str) -> float:
    value: float = found[arm, category][key]
    return value - (0 if arm == "default" else found["default", category][key])


def _cell(value: float, arm: str) -> str:
    return f"{value:.1f}" if arm == "default" else f"{value:+.1f}"


if __name__ == "__main__":
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/ablation").absolute()
    jobs = [Job(category, arm, [*COMMON, *options]) for arm, options in ARMS.items() for category in DATASETS]
    jobs += [Job(category, "default", COMMON, seed) for seed in (1, 2) for category in DATASETS]
    print(table(run(jobs, root, HERE / "results.csv", workers=2)))
