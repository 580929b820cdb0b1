"""Whether scores have drifted since the calibration: ``python -m squad_lit.drift predictions.csv``.

The rows of ``squad_lit.predict`` or ``squad_lit.watch`` are taken in their order. The command exits with 0 if their
scores are as those of the calibration, 2 if they have drifted and 1 on failure.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from squad_lit.deploy.drift import RUN_LENGTH, RowMonitor
from squad_lit.deploy.known_scores import recall
from squad_lit.system.console import exit_status, say
from squad_lit.system.table import read_rows

NEEDED = {"image_path", "anomaly_score", "threshold", "roi", "model"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m squad_lit.drift``; returns the exit status."""
    options = _parse(arguments)
    return exit_status(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    table: Path = options.table / "predictions.csv" if options.table.is_dir() else options.table
    if not table.is_file():
        raise FileNotFoundError(f"no table {table.absolute()}; squad-lit predict and squad-lit watch write one")
    rows = read_rows(table)
    if rows and not rows[0].keys() >= NEEDED:
        raise ValueError(
            f"{table} is not of squad-lit predict or watch: it lacks {', '.join(sorted(NEEDED - rows[0].keys()))}"
        )
    monitor = RowMonitor(recall(table.parent), run_length=options.run_length, defect_rate=options.defect_rate)
    reports = 0
    for number, row in enumerate(rows, 1):
        if report := monitor.feed(row):
            reports += 1
            say(f"image {number:,} ({row['image_path']}): {report}")
    state = "no drift" if not reports else f"{reports:,} drift" + "s" * (reports > 1)
    print(
        f"{len(rows):,} images, {state}; as long as all is well, a false report comes once in "
        f"{options.run_length:,.0f} images at most, in the mean"
    )
    return 2 if reports else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="squad-lit drift", description=(__doc__ or "").split("\n")[0])
    table = "predictions.csv of squad-lit predict or watch, or its folder"
    parser.add_argument("table", type=Path, metavar="TABLE", help=table)
    defects = "share of defective parts that is usual, so that it is no drift (default: 0)"
    parser.add_argument("--defect-rate", type=float, default=0.0, metavar="SHARE", help=defects)
    length = f"least mean number of normal images before a false report (default: {RUN_LENGTH:,})"
    parser.add_argument("--run-length", type=float, default=RUN_LENGTH, metavar="N", help=length)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
