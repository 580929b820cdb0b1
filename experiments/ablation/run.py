"""What does each part bring? One change at a time to the default. Runs the study and prints its tables.

    python -m experiments.ablation.run runs/ablation

400 steps, a ninth of the default, seed 0; the default has seeds 1 and 2, too: read differences against those. Arms that
``results.csv`` has and this file has not are of options that left the code.
"""

from __future__ import annotations

import sys
from pathlib import Path

from experiments.shared import EQUAL_FUSION, measure, tables

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
    "small anomalies only": ["synthesis=fine"],
    **{f"no {kind}": [f"synthesis.kinds.{kind}=0"] for kind in KINDS},
    "with smear": ["synthesis.kinds.smear=1"],
    "large anomalies only": ["synthesis=gross"],
    "no focal loss": ["model.loss_weight.focal=0"],
}


if __name__ == "__main__":
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/ablation").absolute()
    arms = {arm: [*COMMON, *options] for arm, options in ARMS.items()}
    measure(arms, root, HERE / "results.csv", jobs=2)
    rows = measure({"default": COMMON}, root, HERE / "results.csv", seeds=(1, 2), jobs=2)
    print(tables([row for row in rows if row["seed"] == 0], "default"))
    print(tables([row for row in rows if row["arm"] == "default"]))
