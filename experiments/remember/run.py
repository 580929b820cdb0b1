"""Trains on a part of the good images, lets `calibrate --remember` add the others, and measures before and after.

    python experiments/remember/run.py runs/remember CATEGORY [OPTION=VALUE ...]

The data are looked for as by ``squad_lit.train`` (``SQUAD_LIT_DATA``, else ``data``). A model is trained with 10 good
images of a category, with half of them and, to compare, with all. What is in ``results.csv`` is not measured again.
Further options are those of the training; the model is ``memory``.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from experiments.shared import DATASETS, read

import squad_lit
from squad_lit.calibrate import main as calibrate
from squad_lit.system.table import write_rows

HERE = Path(__file__).parent
PERCENT = ("image_auroc", "pixel_ap", "pixel_aupro", "image_recall", "image_false_alarm_rate")


def measure(category: str, folder: Path, options: list[str]) -> dict[str, Any]:
    """Train or, with ``fit=false``, test, and return what the table has of it."""
    quiet = ["logger=none", "callback.panels=null", "callback.curves=null", "callback.progress=null"]
    given = [f"dataset.category={category}", *quiet, *options]
    started = time.perf_counter()
    model = None if "fit=false" in given else "memory"
    figures = squad_lit.fit(DATASETS[category], model=model, output=folder, overrides=given).figures
    threshold = figures["threshold"]
    found = {key: round(100 * figures[key], 1) for key in PERCENT}
    found |= {"threshold": round(threshold["anomaly_score"], 3), "images": threshold["images"]}
    return found | {"seconds": round(figures.get("seconds/train", time.perf_counter() - started), 1)}


def main() -> None:
    """Measure what has no row yet, and print the table."""
    root, category, options = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    table, rows = HERE / "results.csv", read(HERE / "results.csv")
    good = Path(os.environ.get("SQUAD_LIT_DATA", "data")) / DATASETS[category] / category / "train" / "good"
    every = len(list(good.iterdir()))
    for images in (10, every // 2, every):
        if any((row["category"], row["trained on"]) == (category, images) for row in rows):
            continue
        folder = root / f"{category}_{images}"
        key = {"category": category, "trained on": images}
        rows.append(key | {"state": "trained"} | measure(category, folder, [f"dataset.limit_train={images}", *options]))
        if images < every:
            line, started = folder / "line.ckpt", time.perf_counter()
            command = ["--checkpoint", str(folder / "last.ckpt"), "--output", str(line), "--remember", str(good)]
            assert calibrate(command) in (0, 2)
            seconds = round(time.perf_counter() - started, 1)
            of_data = [option for option in options if not option.startswith("model.")]
            found = measure(category, folder / "after", ["fit=false", f"checkpoint={line}", *of_data])
            rows.append(key | {"state": "remembered"} | found | {"seconds": seconds})
        write_rows(table, rows)
    for row in rows:
        print(*row.values(), sep="  ")


if __name__ == "__main__":
    main()
