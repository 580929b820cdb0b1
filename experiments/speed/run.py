"""How long a training takes, what it keeps busy, and what it reaches, alone and several at once.

    python -m experiments.speed.run runs/speed                             # on the CPU, alone on the machine
    python -m experiments.speed.run runs/speed --trainer gpu --together 4  # on a GPU

Prints tables in Markdown. A training that has its figures is not run again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from experiments.shared import DATASETS, folder_of

from squad_lit.system.figures import read_figures

METRICS = ("image_auroc", "pixel_auroc", "pixel_ap", "pixel_aupro")


class Busy:
    """The share of time in which the GPU computes, as ``nvidia-smi`` sees it each half second, and its memory."""

    def __enter__(self) -> Busy:
        self.use: list[float] = []
        self.memory: list[float] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        if shutil.which("nvidia-smi"):
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _sample(self) -> None:
        query = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits"]
        while not self._end.wait(0.5):
            line = subprocess.run(query, capture_output=True, text=True, check=False).stdout.partition("\n")[0]
            use, memory = line.split(",")
            self.use.append(float(use))
            self.memory.append(float(memory))


def main() -> None:
    """Measure, and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="folder of the trainings")
    parser.add_argument("--trainer", default="cpu", help="cpu, gpu or one of your own")
    parser.add_argument("--categories", nargs="+", default=list(DATASETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--together", type=int, default=0, help="trainings at once on one device, after those alone")
    parser.add_argument("overrides", nargs="*", help="further options of the trainings, after --")
    given = parser.parse_intermixed_args()
    metrics = "image AUROC / pixel AUROC / Pixel AP / AUPRO"
    print(f"| category | seed | whole, s | training, s | images/s | GPU busy, % | GPU MB | {metrics} |")
    print("|---|---|---|---|---|---|---|---|")
    for category in given.categories:
        for seed in given.seeds:
            folder = given.output / folder_of(category, given.trainer, seed)
            with Busy() as busy:
                whole = finish([start(folder, category, seed, given)])
            print(row(category, seed, whole, folder, busy), flush=True)
    if given.together:
        folders = [given.output / f"together_{number}" for number in range(given.together)]
        with Busy() as busy:
            whole = finish([start(f, given.categories[0], i, given) for i, f in enumerate(folders)])
        rates = [(read_figures(folder) or {})["images_per_second/train"] for folder in folders]
        use = f"; GPU busy {statistics.mean(busy.use):.0f} %" if busy.use else ""
        print(f"\n{given.together} at once: {sum(rates):.0f} images/s together, {whole:.0f} s{use}")


def start(folder: Path, category: str, seed: int, given: argparse.Namespace) -> subprocess.Popen[bytes] | None:
    """Start a training, unless it has its figures."""
    if (folder / "metrics.json").exists():
        return None
    data = [f"dataset={DATASETS.get(category, 'synthetic')}", f"dataset.category={category}", f"seed={seed}"]
    run = [f"hydra.run.dir={folder}", f"trainer={given.trainer}", "logger=none", "callback.panels=null"]
    command = [sys.executable, "-m", "squad_lit.train", *data, *run, *given.overrides]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def finish(started: list[subprocess.Popen[bytes] | None]) -> float:
    """Seconds until all have ended; fails if one has failed."""
    begun = time.perf_counter()
    if any(process.wait() for process in started if process):
        raise SystemExit("error: a training failed; its message is above")
    return time.perf_counter() - begun


def row(category: str, seed: int, whole: float, folder: Path, busy: Busy) -> str:
    """A line of the table; a training that was finished before has no whole time."""
    figures: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    metrics = " / ".join(f"{100 * figures[name]:.1f}" for name in METRICS)
    use, memory = (f"{statistics.mean(busy.use):.0f}", f"{max(busy.memory):.0f}") if busy.use else ("-", "-")
    times = f"{figures['seconds/train']:.0f} | {figures['images_per_second/train']:.1f}"
    return f"| {category} | {seed} | {whole:.0f} | {times} | {use} | {memory} | {metrics} |"


if __name__ == "__main__":
    main()
