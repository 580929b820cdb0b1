"""Does a narrow code keep the network from copying the anomaly? Runs the study, its tables and its plot.

    python -m experiments.shortcut.run runs/shortcut

Two jobs side by side, 400 steps each, a ninth of the default; results.csv has the rows.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

from experiments.shared import EQUAL_FUSION, measure, tables

HERE = Path(__file__).parent
CATEGORIES = ("bottle", "screw")
COMMON = ["model.steps=400", *EQUAL_FUSION]
# Levels of about 2^4, 2^8, 2^10, 2^12 and 2^16 codes; VQ has as many codes as FSQ.
LEVELS = ([4, 4], [8, 6, 5], [8, 5, 5, 5], [7, 5, 5, 5, 5], [8, 8, 8, 5, 5, 5])
DISCRIMINATORS = ("none", "segmentation", "patch", "both")


def arms() -> dict[str, list[str]]:
    """Widths of the bottleneck for each quantiser, and the discriminators at one width."""
    found: dict[str, list[str]] = {}
    found["none"] = ["quantizer=none"]
    for levels in LEVELS:
        size = math.prod(levels)
        found[f"fsq {size}"] = [f"model.fsq.levels={levels}".replace(" ", "")]
        if size < 2**15:
            found[f"vq {size}"] = ["quantizer=vq", f"model.vq.codebook_size={size}"]
    for quantizer in ("fsq", "none"):
        for discriminator in DISCRIMINATORS:
            if discriminator != "segmentation":  # that one is among the widths
                found[f"{quantizer} {discriminator}"] = [f"quantizer={quantizer}", f"discriminator={discriminator}"]
    # No synthetic anomaly in the training: a plain autoencoder, in which nothing but the code stands against copying.
    plain = ["discriminator=none", "model.synthetic_fraction=0"]
    found["plain none"] = ["quantizer=none", *plain]
    for levels in ([4, 4], [8, 5, 5, 5], [8, 8, 8, 5, 5, 5]):
        found[f"plain fsq {math.prod(levels)}"] = [f"model.fsq.levels={levels}".replace(" ", ""), *plain]
    found["plain vq 1000"] = ["quantizer=vq", *plain]
    # 128 numbers a cell: next to no bottleneck.
    found["none 128"] = ["quantizer=none", "model.none.dim=128"]
    found["plain none 128"] = ["quantizer=none", "model.none.dim=128", *plain]
    found["vq both"] = ["quantizer=vq", "discriminator=both"]
    found["vq 64000"] = ["quantizer=vq", "model.vq.codebook_size=64000"]  # last: by far the dearest
    return {arm: [*COMMON, *options] for arm, options in found.items()}


def plot(rows: list[dict[str, Any]]) -> None:
    """Copy ratio, Pixel AP and AUPRO against the number of codes."""
    from matplotlib.figure import Figure

    keys = {"copy ratio, low group": "copy_ratio/low", "Pixel AP (%)": "pixel_ap", "AUPRO (%)": "pixel_aupro"}
    figure = Figure(figsize=(10, 3.2 * len(CATEGORIES)), layout="constrained")
    axes = figure.subplots(len(CATEGORIES), len(keys), squeeze=False)
    for line, category in zip(axes, CATEGORIES, strict=True):
        found = {row["arm"]: row for row in rows if row["category"] == category}
        for ax, (label, key) in zip(line, keys.items(), strict=True):
            for quantizer, marker in (("fsq", "o"), ("vq", "s")):
                points = [(math.prod(lv), found.get(f"{quantizer} {math.prod(lv)}")) for lv in LEVELS]
                there = [(size, row[key]) for size, row in points if row is not None]
                ax.plot(*zip(*there, strict=True), marker=marker, label=quantizer)
            if "none" in found:
                ax.axhline(found["none"][key], color="0.5", linestyle="--", label="none")
            ax.set_xscale("log", base=2)
            ax.set_xlabel("codes")
            ax.set_title(f"{category}: {label}", fontsize=9)
            ax.legend(fontsize=8)
    figure.savefig(HERE / "width.png", dpi=90)


if __name__ == "__main__":
    where = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/shortcut").absolute()
    rows = measure(arms(), where, HERE / "results.csv", categories=CATEGORIES, jobs=2)
    print(tables(rows))
    plot(rows)
