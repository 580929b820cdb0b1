"""Hostile use of every command, counted: ``python -m experiments.reliability.run --minutes 30``.

Each kind of trial is a module with ``trials``, which yields a name and None, or what is wrong. The seed is printed, and
the same seed and options repeat the trials, except for the moments at which processes are ended.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from experiments.reliability.command import Skipped

from squad_lit.system.table import write_rows

# Kinds, and how many trials of each there are if there is time.
COUNTS = {"option": 1200, "image": 600, "hostile": 300, "concurrent": 90, "disk": 120, "soak": 4000, "kill": 120}


def trials(kind: str, work: Path, seed: int, count: int, until: float) -> tuple[list[dict[str, str]], str]:
    """The rows of the trials of a kind that there is time for, and why there are none."""
    rows: list[dict[str, str]] = []
    made = importlib.import_module(f"experiments.reliability.{kind}").trials
    try:
        for name, fault in made(work / kind, random.Random(f"{kind} {seed}"), count):
            rows.append({"kind": kind, "seed": str(seed), "trial": name, "fault": fault or ""})
            if fault:
                print(f"fault: {kind}: {name}: {fault}", flush=True)
            if time.monotonic() > until:
                break
    except Skipped as reason:
        return rows, str(reason)
    return rows, ""


def main() -> int:
    """Run the kinds one after the other; returns 1 if there is a fault."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=30, help="after which no further trial begins (default: 30)")
    parser.add_argument("--only", default=",".join(COUNTS), help=f"kinds, of {','.join(COUNTS)}")
    parser.add_argument("--seed", type=int, default=None, help="default: another one each time")
    parser.add_argument("--share", type=float, default=1, help="how much of the usual number of trials (default: 1)")
    parser.add_argument("--output", type=Path, help="CSV file for all trials")
    options = parser.parse_args()
    kinds = options.only.split(",")
    if unknown := set(kinds) - set(COUNTS):
        parser.error(f"--only: expected some of {','.join(COUNTS)}, got {','.join(sorted(unknown))}")
    seed = int.from_bytes(os.urandom(3)) if options.seed is None else options.seed
    print(f"--seed {seed}", flush=True)
    end = time.monotonic() + 60 * options.minutes
    rows, table = [], [f"{'kind':12}{'tried':>7}{'fine':>7}{'faults':>8}{'seconds':>9}"]
    with tempfile.TemporaryDirectory(prefix="squad_lit_reliability_", ignore_cleanup_errors=True) as work:
        for number, kind in enumerate(kinds):
            now = time.monotonic()
            until = now + (end - now) / (len(kinds) - number)
            made, reason = trials(kind, Path(work), seed, max(1, round(options.share * COUNTS[kind])), until)
            faults = sum(bool(row["fault"]) for row in made)
            line = f"{kind:12}{len(made):7}{len(made) - faults:7}{faults:8}{time.monotonic() - now:9.0f}"
            table.append(f"{line}  skipped: {reason}" if reason else line)
            print(table[-1], flush=True)
            rows += made
            if options.output:
                write_rows(options.output, rows)
    print("\n" + "\n".join(table))
    return int(any(row["fault"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
