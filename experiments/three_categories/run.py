"""Runs the jobs of this experiment one after the other and writes results.csv.

    python experiments/three_categories/run.py runs/three_categories

The data are looked for as by ``squad_lit.train`` (``SQUAD_LIT_DATA``, else ``data``). A job whose row is in results.csv
or whose metrics.json is in its folder is not run again: an interruption loses one job at most. Delete results.csv to
measure anew.
"""

from __future__ import annotations

import csv
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results.csv"
CATEGORIES = {"bottle": "mvtec", "screw": "mvtec", "metal_plate": "mpdd"}
ARMS = {
    "memory": ([], [0]),
    "squad": ([], [0, 1, 2]),
    "quantizer=none": (["quantizer=none"], [0]),
    "discriminator=none": (["discriminator=none"], [0]),
}
FIGURES = ("image_auroc", "pixel_auroc", "pixel_ap", "pixel_aupro")
MORE = ("copy_ratio/low", "copy_ratio/high", "codebook_usage/low", "codebook_usage/high", "psnr", "ssim")
MORE += ("peak_memory_mb",)
TIME = {"memory": "seconds"}  # key of the seconds; else "seconds/train"


def job(root: Path, category: str, arm: str, options: list[str], seed: int) -> dict[str, Any]:
    """Run a job unless it is done, and read its metrics."""
    folder = root / f"{category}_{arm.replace('=', '-')}_{seed}"
    data = [f"dataset={CATEGORIES[category]}", f"dataset.category={category}", f"seed={seed}"]
    if not (folder / "metrics.json").exists():
        if arm == "memory":
            output = ["--output", str(folder / "metrics.json")]
            command = [sys.executable, str(HERE / "memory.py"), *output, *data]
        else:
            command = [sys.executable, "-m", "squad_lit.train", f"hydra.run.dir={folder}", "logger=none"]
            command += [*data, *options]
        subprocess.run(command, check=True)
    figures: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return figures


def main(root: Path) -> None:
    """All jobs: one seed of each arm first, so that there is something to read early."""
    rows: list[dict[str, Any]] = []
    known = {(row["category"], row["arm"], row["seed"]): row for row in read()}
    for seed in range(3):
        for arm, (options, seeds) in ARMS.items():
            for category in CATEGORIES if seed in seeds else ():
                row = known.get((category, arm, seed)) or measure(root, category, arm, options, seed)
                rows.append(row)
                write(rows + [r for r in known.values() if r not in rows])
    print(markdown(rows))


def measure(root: Path, category: str, arm: str, options: list[str], seed: int) -> dict[str, Any]:
    """A row of results.csv: metrics in percent, seconds of the training, and the label-free measures."""
    found = job(root, category, arm, options, seed)
    row: dict[str, Any] = {"category": category, "arm": arm, "seed": seed}
    row |= {key: round(100 * found[key], 2) for key in FIGURES}
    row |= {"seconds": round(found[TIME.get(arm, "seconds/train")])}
    return row | {key: round(found[key], 3) for key in MORE if key in found}


def read() -> list[dict[str, Any]]:
    """The rows of results.csv, numbers as numbers."""
    if not RESULTS.exists():
        return []
    with RESULTS.open(newline="") as file:
        return [{key: _number(text) for key, text in row.items() if text} for row in csv.DictReader(file)]


def _number(text: str) -> Any:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return text


def write(rows: list[dict[str, Any]]) -> None:
    """All rows so far, to results.csv."""
    with RESULTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def markdown(rows: list[dict[str, Any]]) -> str:
    """A table with mean and, over several seeds, half the range."""
    lines = ["| category | arm | image AUROC | pixel AUROC | Pixel AP | AUPRO 0.3 | seconds |", "|" + "---|" * 7]
    for category in CATEGORIES:
        for arm in ARMS:
            runs = [row for row in rows if (row["category"], row["arm"]) == (category, arm)]
            cells = []
            for key in (*FIGURES, "seconds"):
                values = [run[key] for run in runs]
                spread = f" ± {(max(values) - min(values)) / 2:.1f}" if len(values) > 1 and key != "seconds" else ""
                cells.append(f"{statistics.mean(values):.{0 if key == 'seconds' else 1}f}{spread}")
            lines.append(f"| {category} | {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/three_categories").absolute())
