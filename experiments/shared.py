"""What the studies share: their arms as jobs, a row of ``results.csv`` for each, and the report's tables of the rows.

The data are looked for as by ``squad_lit.train`` (``SQUAD_LIT_DATA``, else ``data``). A job that has a row is not run
again, and one whose folder has its figures is not either: delete ``results.csv`` to measure anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from squad_lit.report.gather import Result, Run
from squad_lit.report.table import make
from squad_lit.report.text import markdown, result_rows
from squad_lit.run.job import Job
from squad_lit.run.launcher import run_jobs
from squad_lit.system.table import read_rows, write_rows

DATASETS = {"bottle": "mvtec", "screw": "mvtec", "metal_plate": "mpdd"}
# The fusion with which the tables of shortcut, ablation and (in part) larger were measured, before the discriminator
# weighed more.
EQUAL_FUSION = ["anomaly.agreement=0", "anomaly.weight.residual=0.5", "anomaly.weight.discriminator=0.5"]

PERCENT = ("image_a", "image_f1", "pixel_")  # beginnings of the names of figures in percent


def folder_of(category: str, arm: str, seed: int = 0) -> str:
    """Name of a job's folder."""
    return f"{category}_{arm}_{seed}".translate(str.maketrans("= /", "---"))


def measure(
    arms: Mapping[str, Sequence[str]],
    root: Path,
    results: Path,
    *,
    categories: Sequence[str] = tuple(DATASETS),
    seeds: Sequence[int] = (0,),
    jobs: int = 1,
) -> list[dict[str, Any]]:
    """Run what has no row yet, and return all rows.

    Args:
        arms: The options of each arm, which is run with each seed on each category.
        root: The folder that gets a folder per job.
        results: The table, which is written after each job and keeps the rows of other arms.
        categories: Categories of the three real data sets or of the embedded benchmark.
        seeds: The seeds. All arms are run with the first one, then with the next.
        jobs: The number of jobs side by side. With more than one, the study is faster, but its times mean little.
    """
    rows = {(row["category"], row["arm"], row["seed"]): row for row in read(results)}
    wanted = [(category, arm, seed) for seed in seeds for arm in arms for category in categories]
    keys = {root / folder_of(*key): key for key in wanted if key not in rows}

    def keep(job: Job) -> None:
        if job.figures is not None:
            category, arm, seed = keys[job.folder]
            found = Result("", category, arm, seed, job.figures, Run(job.folder, {}, [], job.figures))
            (row,) = result_rows([found], results.parent)
            left_out = {"dataset", "run", "lacks", *(key for key, value in row.items() if value is None)}
            rows[category, arm, seed] = {key: value for key, value in row.items() if key not in left_out}
            write(results, list(rows.values()))

    planned = []
    for folder, (category, arm, seed) in keys.items():
        options = [f"dataset={DATASETS.get(category, 'synthetic')}", f"dataset.category={category}", f"seed={seed}"]
        options += ["logger=none", *(["callback.progress=null"] if jobs > 1 else [])]
        planned.append(Job(folder, [*options, *arms[arm]]))
    if failed := [job.name for job in run_jobs(planned, side_by_side=jobs, on_end=keep) if job.figures is None]:
        raise SystemExit(f"error: these jobs failed, the others are done: {', '.join(failed)}")
    return list(rows.values())


def tables(rows: Sequence[dict[str, Any]], baseline: str | None = None) -> str:
    """The report's tables of some rows, with differences from an arm."""
    results = []
    for row in rows:
        figures = {key: value / 100 if key.startswith(PERCENT) else value for key, value in row.items()}
        results.append(Result("study", row["category"], row["arm"], row["seed"], figures, Run(Path(), {}, [], None)))
    return markdown(make(results, baseline))


def read(results: Path) -> list[dict[str, Any]]:
    """The rows of a table, numbers as numbers."""
    found = read_rows(results) if results.exists() else []
    return [{key: yaml.safe_load(text) for key, text in row.items() if text} for row in found]


def write(results: Path, rows: Sequence[dict[str, Any]]) -> None:
    """A table with the columns that any row has."""
    write_rows(results, rows, list(dict.fromkeys(key for row in rows for key in row)))
