"""Runs the jobs of a study side by side and keeps one row a job; an interruption loses the jobs that were running.

A study is a file beside a ``results.csv`` with ``run(jobs, ...)`` and its own tables and plots. The data are looked for
as by ``squad_lit.train`` (``SQUAD_LIT_DATA``, else ``data``). A job that has a row, or whose metrics.json is in its
folder, is not run again: delete results.csv to measure anew.
"""

from __future__ import annotations

import csv
import os
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from squad_lit.system.file import read_figures

DATASETS = {"bottle": "mvtec", "screw": "mvtec", "metal_plate": "mpdd"}
METRICS = {"image AUROC": "image_auroc", "pixel AUROC": "pixel_auroc", "Pixel AP": "pixel_ap", "AUPRO": "pixel_aupro"}
# Beside the metrics, where a model has them: label-free measures first.
MORE = ("synthetic_ap", "synthetic_auroc", "normal_score", "copy_ratio/low", "copy_ratio/high", "feature_error/low")
MORE += ("feature_error/high", "codebook_usage/low", "codebook_usage/high", "perplexity/low", "perplexity/high")
MORE += ("psnr", "ssim", "seconds/train", "peak_memory_mb")

# The fusion with which the tables of shortcut, ablation and (in part) larger were measured, before the discriminator
# weighed more.
EQUAL_FUSION = ["anomaly.agreement=0", "anomaly.weight.residual=0.5", "anomaly.weight.discriminator=0.5"]


class Job(NamedTuple):
    """One training: a category, a name for the setting, the setting, a seed."""

    category: str
    arm: str
    options: Sequence[str] = ()
    seed: int = 0

    @property
    def folder(self) -> str:
        return f"{self.category}_{self.arm}_{self.seed}".replace("=", "-").replace(" ", "-").replace("/", "-")


def each(arms: Mapping[str, tuple[Sequence[str], Sequence[int]]]) -> list[Job]:
    """The jobs of arms, each with its options and seeds, on every category; one seed of each arm first."""
    seeds = sorted({seed for _, own in arms.values() for seed in own})
    return [
        Job(category, arm, options, seed)
        for seed in seeds
        for arm, (options, own) in arms.items()
        if seed in own
        for category in DATASETS
    ]


def run(jobs: Iterable[Job], root: Path, results: Path, workers: int = 1) -> list[dict[str, Any]]:
    """Run what has no row yet, and return the rows in the order of the jobs.

    Args:
        jobs: In the order in which they are started.
        root: Gets a folder for each.
        results: The table, written after each job.
        workers: Jobs side by side, each with its share of the cores. More than one gives more in an hour, but seconds
            that say little.
    """
    jobs = list(jobs)
    known = {(r["category"], r["arm"], r["seed"]): r for r in read(results)}
    lock = threading.Lock()

    def measure(job: Job) -> None:
        key = (job.category, job.arm, job.seed)
        if key in known:
            return
        row = _row(job, _metrics(job, root, workers))
        with lock:
            known[key] = row
            write(results, [known[k] for j in jobs if (k := (j.category, j.arm, j.seed)) in known])

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(measure, jobs))
    return [known[job.category, job.arm, job.seed] for job in jobs]


def _metrics(job: Job, root: Path, workers: int) -> dict[str, Any]:
    folder = root / job.folder
    if read_figures(folder) is None:
        command = [
            sys.executable,
            "-m",
            "squad_lit.train",
            f"hydra.run.dir={folder}",
            "logger=none",
            f"seed={job.seed}",
        ]
        dataset = DATASETS.get(job.category, "synthetic")
        command += [f"dataset={dataset}", f"dataset.category={job.category}", *job.options]
        environment = dict(os.environ)
        if workers > 1:
            command += ["callback.progress=null"]
            environment["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // workers))
        subprocess.run(command, check=True, env=environment)
    found = read_figures(folder)
    assert found is not None
    return found


def _row(job: Job, found: dict[str, Any]) -> dict[str, Any]:
    """Metrics in percent, and the rest as it is."""
    row: dict[str, Any] = {"category": job.category, "arm": job.arm, "seed": job.seed}
    row |= {key: round(100 * found[key], 2) for key in METRICS.values()}
    return row | {key: round(found[key], 4) for key in MORE if found.get(key) is not None}


def read(results: Path) -> list[dict[str, Any]]:
    """The rows of a table, numbers as numbers."""
    if not results.exists():
        return []
    with results.open(newline="") as file:
        return [{key: _number(text) for key, text in row.items() if text} for row in csv.DictReader(file)]


def write(results: Path, rows: Sequence[dict[str, Any]]) -> None:
    """A table, whole or not at all."""
    part = results.with_suffix(".part")
    with part.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(part, results)


def markdown(rows: Sequence[dict[str, Any]], more: dict[str, str] | None = None) -> str:
    """A line for each category and arm: means and, over several seeds, half the range; ``more`` are further columns."""
    columns = METRICS | (more or {})
    lines = ["| category | arm | " + " | ".join(columns) + " |", "|---|---|" + "---|" * len(columns)]
    for category, arm in dict.fromkeys((row["category"], row["arm"]) for row in rows):
        runs = [row for row in rows if (row["category"], row["arm"]) == (category, arm)]
        cells = [_cell([run[key] for run in runs if key in run], key in METRICS.values()) for key in columns.values()]
        lines.append(f"| {category} | {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(values: list[float], is_metric: bool) -> str:
    if not values:
        return ""
    spread = f" ± {(max(values) - min(values)) / 2:.1f}" if len(values) > 1 and is_metric else ""
    mean = statistics.mean(values)
    return f"{mean:.1f}{spread}" if is_metric else f"{mean:.3g}" if abs(mean) < 100 else f"{mean:.0f}"


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
