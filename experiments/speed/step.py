"""Where the time of a training step goes: its parts alone, the same step inside of Lightning, and synthetic anomalies.

    python -m experiments.speed.step [--device cuda] [--batch 2 16 64]

Prints a table in Markdown: milliseconds per step, medians of ``--repeats`` rounds, and how many synthetic anomalies
threads and worker processes make per second while nothing else is done.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback

from squad_lit.run.config import compose
from squad_lit.run.fit import run
from squad_lit.training.pool import FeaturePool
from squad_lit.training.squad import Squad

OPTIONS = ["dataset.category=fabric", "logger=none", "callback.panels=null", "callback.curves=null"]


class Parts(Callback):
    """Times the parts of a step on the pool of a training, when that has done some steps."""

    def __init__(self, *, repeats: int) -> None:
        self.repeats = repeats
        self.times: list[float] = []
        self.figures: dict[str, float] = {}

    def on_train_batch_start(self, trainer: Any, module: Squad, batch: Any, batch_idx: int) -> None:
        """Note when each step starts; what lies between two starts is a step with all that is around it."""
        self.times.append(time.perf_counter())

    def on_train_epoch_end(self, trainer: Any, module: Squad) -> None:
        """Measure, once."""
        if self.figures:
            return
        between = [b - a for a, b in zip(self.times[10:], self.times[11:], strict=False)]
        step, synthetic = module.state.step - 1, round(module.synthetic_fraction * module.local_batch)
        parts = {"clean": module.local_batch - synthetic, "synthetic": synthetic}
        batch = module.pool.batch(step, **parts, image_every=module.image_every)
        kept = {name: value.clone() for name, value in module.state_dict().items()}
        optimizers = module.optimizers()
        each = optimizers if isinstance(optimizers, list) else [optimizers]
        alone = {
            "batch from the pool": lambda: module.pool.batch(step, **parts, image_every=module.image_every),
            "forward and backward pass": lambda: module._losses_and_gradients(batch, False),
            "clipping and optimisers": lambda: module._optimise(each),
        }
        self.figures = {f"ms/{name}": 1e3 * self._median(call, module.device) for name, call in alone.items()}
        self.figures["ms/all in the training"] = 1e3 * statistics.median(between)
        module.load_state_dict(kept)
        for workers in {0, 1, max(1, torch.get_num_threads() - 1), torch.get_num_threads()}:
            name = f"{workers} processes" if workers else "threads"
            self.figures[f"made/{name}"] = anomalies_per_second(module.pool, workers)

    def _median(self, call: Callable[[], Any], device: torch.device) -> float:
        def seconds() -> float:
            started = time.perf_counter()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize()
            return time.perf_counter() - started

        return statistics.median([seconds() for _ in range(self.repeats)][3:])


def anomalies_per_second(pool: FeaturePool, workers: int) -> float:
    """Images and masks per second, over four periods after the first, in which processes start."""
    pool.close()
    pool.workers, periods = workers, 4
    list(pool._made(1))
    begun = time.perf_counter()
    made = sum(len(mask) for period in range(2, 2 + periods) for _, mask, *_ in pool._made(period))
    return made / (time.perf_counter() - begun)


def main() -> None:
    """Measure each size of a batch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch", type=int, nargs="+", default=[2])
    parser.add_argument("--repeats", type=int, default=40)
    given, own = parser.parse_known_args()
    for size in given.batch:
        options = [*OPTIONS, f"trainer={'gpu' if given.device == 'cuda' else 'cpu'}", f"dataset.batch_size={size}"]
        options += ["model.steps=80", "model.pool.synthetic=80", "model.pool.refresh_every=80"]
        options += [f"+callback.parts={{_target_: experiments.speed.step.Parts, repeats: {given.repeats}}}", *own]
        with tempfile.TemporaryDirectory() as folder:
            figures = run(compose(options, output=folder), Path(folder)).figures
        print(f"\n| {size} images | ms |\n|---|---|")
        for name, value in figures.items():
            if name.startswith("ms/"):
                print(f"| {name.removeprefix('ms/')} | {value:.1f} |")
        print("\n| synthetic anomalies made by | per second |\n|---|---|")
        for name, value in figures.items():
            if name.startswith("made/"):
                print(f"| {name.removeprefix('made/')} | {value:.0f} |")


if __name__ == "__main__":
    main()
