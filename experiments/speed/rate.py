"""A callback that times the phases of a training; ``network`` and ``growth`` add it to their trainings."""

from __future__ import annotations

import statistics
from typing import Any

from experiments.speed.network import memory, now
from lightning.pytorch.callbacks import Callback
from torch.utils.flop_counter import FlopCounterMode


class Rate(Callback):
    """Puts times, floating-point operations of a step (on a CPU) and peak memory into ``metrics.json``.

    ``seconds/set_up`` ends where the first step begins, ``seconds/step`` is the median from one step to the next, and
    ``images_per_second/period`` is that of the last period of the pool, its refresh included, if there are several.
    ``seconds/only_step`` is the whole training of a memory.
    """

    def __init__(self) -> None:
        self.figures: dict[str, float] = {}
        self._starts: list[float] = []
        self._period: tuple[float, int] | None = None
        self._counter: FlopCounterMode | None = None

    def setup(self, trainer: Any, module: Any, stage: str) -> None:
        """Note the beginning."""
        self._begun = now(module.device.type)

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        """Note when each step starts; count the operations of the first one."""
        if not self._starts:
            self.figures["seconds/set_up"] = now(module.device.type) - self._begun
            if module.device.type == "cpu" and module.steps > 1:  # a GPU records the first step as a graph
                self._counter = FlopCounterMode(display=False)
                self._counter.__enter__()
        self._starts.append(now("cpu"))

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        """End the counting."""
        if self._counter is not None:
            self._counter.__exit__(None, None, None)
            self.figures["gflop/step"] = self._counter.get_total_flops() / 1e9
            self._counter = None

    def on_validation_start(self, trainer: Any, module: Any) -> None:
        """A validation ends a period."""
        self._begun = now(module.device.type)
        if module.steps == 1:
            self.figures["seconds/only_step"] = self._begun - self._starts[0]
        if self._period:
            begun, first = self._period
            images = (module.state.step - first) * module.local_batch
            self.figures["images_per_second/period"] = images / (self._begun - begun)

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        """The next period begins."""
        self._period = (now(module.device.type), module.state.step)
        self.figures["seconds/validation"] = self._period[0] - self._begun

    def on_train_end(self, trainer: Any, module: Any) -> None:
        """Keep what the training took."""
        between = [b - a for a, b in zip(self._starts[3:], self._starts[4:], strict=False)]
        if between:
            self.figures["seconds/step"] = statistics.median(between)
        self.figures["peak_mb/train"] = memory(module.device.type)

    def on_test_start(self, trainer: Any, module: Any) -> None:
        """Note the beginning."""
        self._begun = now(module.device.type)

    def on_test_end(self, trainer: Any, module: Any) -> None:
        """Keep how long the test took."""
        self.figures["seconds/test"] = now(module.device.type) - self._begun
