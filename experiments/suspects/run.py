"""Plants bad parts among the good, trains, ranks the training images, and says how high the bad ones come.

    python experiments/suspects/run.py runs/suspects [OPTION=VALUE ...]

The data are looked for as by ``squad_lit.train`` (``SQUAD_LIT_DATA``, else ``data``). For every twenty good training
images of a category, one anomalous test image is linked into a folder with them, with the kinds of defect in turn. A
job whose ranking is in its folder is not run again. Further options are those of the training.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from itertools import chain, zip_longest
from pathlib import Path

import torch

from squad_lit.metric import auroc
from squad_lit.run.job import Job
from squad_lit.run.launcher import run_jobs

HERE = Path(__file__).parent
CATEGORIES = {"bottle": "mvtec", "screw": "mvtec", "metal_plate": "mpdd"}
GOOD_PER_PLANTED = 20
PREFIX = "planted_"


def plant(source: Path, folder: Path) -> int:
    """Link the good training images and some anomalous test images into one folder; returns how many of the latter."""
    folder.mkdir(parents=True, exist_ok=True)
    good = sorted((source / "train" / "good").iterdir())
    kinds = [sorted(kind.iterdir()) for kind in sorted((source / "test").iterdir()) if kind.name != "good"]
    in_turn = [path for path in chain(*zip_longest(*kinds)) if path is not None]
    bad = in_turn[: max(1, round(len(good) / GOOD_PER_PLANTED))]
    links = {path.name: path for path in good} | {f"{PREFIX}{path.parent.name}_{path.name}": path for path in bad}
    for name, path in links.items():
        if not (folder / name).exists():
            (folder / name).symlink_to(path)
    return len(bad)


def rank(source: Path, folder: Path, options: list[str]) -> list[dict[str, str]]:
    """Train on the folder with planted parts and return the rows of suspects.csv, highest score first."""
    plant(source, folder / "images")
    if not (folder / "suspects.csv").exists():
        data = ["dataset=folder", f"dataset.root={folder}", "dataset.train_dir=images", "dataset.test_fraction=0"]
        data += ["logger=none", *options]
        (job,) = run_jobs([Job(folder, data)])
        if job.figures is None:
            raise SystemExit(1)
        more = [f"hydra.run.dir={folder}", "fit=false", f"checkpoint={folder / 'last.ckpt'}"]
        subprocess.run([sys.executable, "-m", "squad_lit.check", *data, *more], check=True)
    with (folder / "suspects.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def main(root: Path, options: list[str]) -> None:
    """All categories, and a table of what came out."""
    data = Path(os.environ.get("SQUAD_LIT_DATA", "data")).absolute()
    lines = [
        "| category | images | planted (k) | AUROC of the ranking | planted among the first k | among the first 2k |"
    ]
    lines += ["|" + "---|" * 6]
    for category, benchmark in CATEGORIES.items():
        rows = rank(data / benchmark / category, root / category, options)
        planted = [Path(row["image_path"]).name.startswith(PREFIX) for row in rows]
        k = sum(planted)
        area = float(auroc(torch.tensor([float(row["anomaly_score"]) for row in rows]), torch.tensor(planted)))
        found = f"{sum(planted[:k])} | {sum(planted[: 2 * k])}"
        lines.append(f"| {category} | {len(rows)} | {k} | {100 * area:.1f} | {found} |")
    print("\n".join(lines))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/suspects").absolute(), sys.argv[2:])
