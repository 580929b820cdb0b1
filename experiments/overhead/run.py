"""What a run and a sweep cost beside the training: seconds to the first batch, and a sweep's share of a job.

    python -m experiments.overhead.run   # from the top of the repository, about 5 minutes, alone on the machine

Medians of ``--repeats``; the embedded benchmark, ``trainer=smoke``. Drawing the benchmark is not measured.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import lightning as L

OPTIONS = ["trainer=smoke", "dataset.category=fabric", "logger=none"]
# In the order in which they build on each other.
IMPORTS = {
    "compose (imports of the command, Hydra)": "import squad_lit.run.config as t, hydra\n"
    "with hydra.initialize_config_dir(str(t.CONF), version_base='1.3'): hydra.compose('train')",
    "torch": "import torch",
    "lightning (with torch, torchmetrics, torchvision)": "import lightning",
    "all of a training (with lightning, timm)": "import squad_lit.training.squad\n"
    "import squad_lit.training.callback, squad_lit.training.evaluation",
}


class FirstBatch(L.Callback):
    """Writes the time of the first batch into a file."""

    def __init__(self, *, file: str) -> None:
        self.file = Path(file)

    def on_train_batch_start(self, *args: Any) -> None:
        if not self.file.exists():
            self.file.write_text(str(time.time()))


def main() -> None:
    """Measure and print two tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=3, help="of the sweep")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        train(f"hydra.run.dir={folder / 'warm'}", "seed=0")  # draws the benchmark, fills the system's page cache
        print("| until | s |\n|---|---|")
        for name, code in IMPORTS.items():
            print(f"| {name} | {median(given.repeats, lambda _, c=code: python('-c', c)):.1f} |", flush=True)
        print(f"| the first batch | {median(given.repeats, lambda i: first_batch(folder / f'first{i}')):.1f} |\n")
        alone = median(given.repeats, lambda i: train(f"hydra.run.dir={folder / f'alone{i}'}", "seed=0"))
        seeds = f"seed=range({given.jobs})"
        swept = median(given.repeats, lambda i: train("-m", seeds, f"hydra.sweep.dir={folder / f'sweep{i}'}"))
        print("| a job alone, s | a job in a sweep, s | difference, s |\n|---|---|---|")
        print(f"| {alone:.1f} | {swept / given.jobs:.1f} | {swept / given.jobs - alone:.1f} |")


def median(repeats: int, measure: Any) -> float:
    """The median of what ``measure(number)`` returns."""
    return statistics.median(measure(i) for i in range(repeats))


def python(*arguments: str) -> float:
    """Seconds of a Python process."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - started


def train(*arguments: str) -> float:
    """Seconds of a training, or of a sweep."""
    return python("-m", "squad_lit.train", *arguments, *OPTIONS)


def first_batch(folder: Path) -> float:
    """Seconds from the start of the command to its first batch."""
    file, started = folder.with_suffix(".time"), time.time()
    clock = f"+callback.clock={{_target_:experiments.overhead.run.FirstBatch,file:'{file}'}}"
    train(f"hydra.run.dir={folder}", "seed=0", clock)
    return float(file.read_text()) - started


if __name__ == "__main__":
    main()
