"""Hostile use of every command, counted: ``python -m experiments.reliability.run --minutes 30``.

Each kind of trial is a module with ``trials``, which yields a name and None, or what is wrong. The seed is printed, and
the same seed and options repeat the trials, except for the moments at which processes are ended.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

from experiments.reliability.command import Skipped

from squad_lit.system.table import write_rows


class Kind(NamedTuple):
    """How many trials of a kind there are if there is time, and the seconds of one on a free core."""

    count: int
    seconds: float


KINDS = {
    "kill": Kind(110, 12),
    "option": Kind(2100, 0.2),
    "image": Kind(540, 0.3),
    "hostile": Kind(170, 1.5),
    "concurrent": Kind(72, 3),
    "soak": Kind(4000, 0.05),
    "disk": Kind(24, 10),
}
Row = dict[str, str]


class Done(NamedTuple):
    """The trials of a kind, and why there are none."""

    rows: list[Row]
    line: str


def trials(kinds: Sequence[str], work: Path, seed: int, share: float, end: float) -> list[Done]:
    """The trials of some kinds, one after the other; each has a part of the time until the end."""
    made = []
    for number, kind in enumerate(kinds):
        now = time.time()
        left = sum(_seconds(name) for name in kinds[number:])
        made.append(_of_kind(kind, work, seed, share, now + (end - now) * _seconds(kind) / left))
    return made


def _of_kind(kind: str, work: Path, seed: int, share: float, until: float) -> Done:
    rows: list[Row] = []
    started, reason = time.time(), ""
    count = max(1, round(share * KINDS[kind].count))
    try:
        made = importlib.import_module(f"experiments.reliability.{kind}").trials
        for name, fault in made(work / kind, random.Random(f"{kind} {seed}"), count):
            rows.append({"kind": kind, "seed": str(seed), "trial": name, "fault": fault or ""})
            if fault:
                print(f"fault: {kind}: {name}: {fault}", flush=True)
            if len(rows) % 50 == 0:
                print(f"{kind}: {len(rows)} after {time.time() - started:.0f} seconds", flush=True)
            if time.time() > until:
                break
    except Skipped as error:
        reason = f"  skipped: {error}"
    faults = sum(bool(row["fault"]) for row in rows)
    line = f"{kind:12}{len(rows):7}{len(rows) - faults:7}{faults:8}{time.time() - started:9.0f}{reason}"
    print(line, flush=True)
    return Done(rows, line)


def _seconds(kind: str) -> float:
    return KINDS[kind].count * KINDS[kind].seconds


def divide(kinds: Sequence[str], jobs: int) -> list[list[str]]:
    """Kinds for each of some processes, which take about as long as each other."""
    parts: list[list[str]] = [[] for _ in range(jobs)]
    for kind in sorted(kinds, key=_seconds, reverse=True):
        min(parts, key=lambda part: sum(map(_seconds, part))).append(kind)
    return [part for part in parts if part]


def main() -> int:
    """Run the kinds; returns 1 if there is a fault."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=30, help="after which no further trial begins (default: 30)")
    parser.add_argument("--only", default=",".join(KINDS), help=f"kinds, of {','.join(KINDS)}")
    parser.add_argument("--seed", type=int, default=None, help="default: another one each time")
    parser.add_argument("--share", type=float, default=1, help="how much of the usual number of trials (default: 1)")
    parser.add_argument("--jobs", type=int, default=2, help="kinds that run side by side (default: 2)")
    parser.add_argument("--output", type=Path, help="CSV file for all trials")
    options = parser.parse_args()
    kinds = options.only.split(",")
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"--only: expected some of {','.join(KINDS)}, got {','.join(sorted(unknown))}")
    seed = int.from_bytes(os.urandom(3)) if options.seed is None else options.seed
    print(f"--seed {seed}", flush=True)
    end = time.time() + 60 * options.minutes
    with (
        tempfile.TemporaryDirectory(prefix="squad_lit_reliability_", ignore_cleanup_errors=True) as work,
        ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as processes,
    ):
        running = [
            processes.submit(trials, part, Path(work), seed, options.share, end) for part in divide(kinds, options.jobs)
        ]
        done = [one for process in running for one in process.result()]
    rows = [row for one in done for row in one.rows]
    faults = sum(bool(row["fault"]) for row in rows)
    print(f"\n{'kind':12}{'tried':>7}{'fine':>7}{'faults':>8}{'seconds':>9}")
    print("\n".join(one.line for one in done))
    print(f"{'all':12}{len(rows):7}{len(rows) - faults:7}{faults:8}")
    if options.output:
        write_rows(options.output, rows)
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
