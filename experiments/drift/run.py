"""How often does the test for drift report normal images, and after how many does it report a shift?

    python -m experiments.drift.run [--lines 20]

Scores of normal images are drawn from a normal distribution: the test sees only which of them exceed two scores of the
calibration, so each continuous distribution gives the same.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from squad_lit.deploy.drift import DriftMonitor
from squad_lit.deploy.threshold import FALSE_ALARM_RATE, from_normals

CALIBRATION = (16, 100, 1000)
IMAGES, LATEST = 100_000, 5_000


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--lines", type=int, default=20, help="simulated lines per row; five times as many for delays")
    lines = parser.parse_args().lines
    print("| images of the calibration | shift | after | delay: median | 95 % | not told within 5,000 |")
    print("|---|---|---|---|---|---|", flush=True)
    for images in CALIBRATION:
        for shift in (2.0, 1.0, 0.5):
            for before in (0, 2000):
                found = [delay(monitor, rng, shift, before) for monitor, rng in monitors(images, 5 * lines)]
                found.sort()
                middle, late = (shown(found[int(share * len(found))]) for share in (0.5, 0.95))
                row = f"| {images:,} | {shift:g} σ | {before:,} | {middle} | {late} |"
                print(f"{row} {found.count(math.inf)} of {len(found)} |", flush=True)
    print("\n| images of the calibration | run length | lines of 100,000 normal images | false reports | bound |")
    print("|---|---|---|---|---|", flush=True)
    for images in CALIBRATION:
        for length in (10_000_000, 100_000):
            found = sum(false_reports(monitor, rng) for monitor, rng in monitors(images, lines, length))
            print(f"| {images:,} | {length:,} | {lines} | {found} | {lines * IMAGES / length:g} |", flush=True)


def shown(delay: float) -> str:
    """A delay as the table has it."""
    return f"{delay:.0f}" if math.isfinite(delay) else "-"


def monitors(images: int, lines: int, length: float = 10_000_000) -> Iterator[tuple[DriftMonitor, np.random.Generator]]:
    """Monitors of calibrations with so many images, each with what draws the scores of its line."""
    for line in range(lines):
        rng = np.random.default_rng([images, line])
        normal = rng.normal(size=images).tolist()
        yield DriftMonitor(normal, from_normals(normal, FALSE_ALARM_RATE).value, run_length=length), rng


def false_reports(monitor: DriftMonitor, rng: np.random.Generator) -> int:
    """The number of reports on normal images."""
    return sum(monitor.feed(score) is not None for score in rng.normal(size=IMAGES).tolist())


def delay(monitor: DriftMonitor, rng: np.random.Generator, shift: float, before: int) -> float:
    """Images of a shift until it is reported, after normal images; infinite if it is not."""
    for score in rng.normal(size=before).tolist():
        monitor.feed(score)
    shifted: NDArray[np.float64] = rng.normal(shift, 1, size=LATEST)
    return next((number for number, score in enumerate(shifted.tolist(), 1) if monitor.feed(score)), math.inf)


if __name__ == "__main__":
    main()
