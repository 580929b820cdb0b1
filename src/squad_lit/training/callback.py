"""What happens beside the training: progress, checkpoints and time."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ProgressBar

from squad_lit.system.option import Positive, checked
from squad_lit.system.progress import progress
from squad_lit.training.calibration import calibrate
from squad_lit.training.checkpoint import PREVIOUS, RUN_IDS
from squad_lit.training.detector import Detector


class Progress(ProgressBar):
    """One bar for the whole training, with losses and images per second, one for each validation, one for the test.

    Args:
        refresh_every: Seconds between updates.

    Raises:
        ValueError: Not a positive number of seconds.
    """

    @checked
    def __init__(self, *, refresh_every: Positive) -> None:
        super().__init__()
        self.refresh_every = refresh_every
        self._bar: Any = None
        self._validation: Any = None
        self._has_started = False
        self._enabled = True

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Detector)
        self._open("train", pl_module.steps, pl_module.state.step, "step")
        self._has_started = False

    def on_train_batch_start(self, *args: Any) -> None:
        if self._bar is not None and not self._has_started:
            self._bar.unpause()  # what comes before the first step comes once
            self._has_started = True

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        assert isinstance(pl_module, Detector)
        if self._bar is None:
            return
        if not self._bar.update(pl_module.state.step - self._bar.n):
            return  # nothing is shown now, and what follows takes milliseconds
        elapsed = self._bar.format_dict["elapsed"]
        done = pl_module.state.step - self._bar.initial
        logged = {k.removeprefix("train/"): v for k, v in trainer.callback_metrics.items() if k.startswith("train/")}
        shown: dict[str, str] = {
            k: f"{float(logged[k]):.3f}" for k in ("loss", "focal", "dice", "image") if k in logged
        }
        shown["images/s"] = f"{done * pl_module.local_batch * trainer.world_size / max(elapsed, 1e-9):.1f}"
        self._bar.set_postfix(shown, refresh=False)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._close()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._enabled:
            total = int(sum(trainer.num_val_batches))
            self._validation = progress(total=total, desc="validation", unit="batch", leave=False)

    def on_validation_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        if self._validation is not None:
            self._validation.update()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._validation is not None:
            self._validation.close()
            self._validation = None

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._open("test", int(sum(trainer.num_test_batches)), 0, "batch")

    def on_test_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        if self._bar is not None:
            self._bar.update()

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.on_validation_end(trainer, pl_module)
        self._close()

    def _open(self, what: str, total: int, first: int, unit: str) -> None:
        if self._enabled:
            # The time left is estimated by the mean time of all steps: a refresh of the pool is as long as many.
            options: dict[str, Any] = {"unit": unit, "mininterval": self.refresh_every, "smoothing": 0}
            self._bar = progress(total=total, initial=first, desc=what, **options)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class LastCheckpoint(Callback):
    """Keeps ``last.ckpt``: after each validation, which calibrates the model, and after an error or Ctrl-C.

    There is no best checkpoint, because a training has no real defects to choose by.

    Args:
        folder: Where the file is written, whole or not at all.
    """

    def __init__(self, *, folder: str) -> None:
        self.path = Path(folder) / "last.ckpt"

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        # With the number that a dashboard gave to the run, resume= goes on in it.
        checkpoint[RUN_IDS] = {type(logger).__name__: str(logger.version) for logger in trainer.loggers}

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            trainer.save_checkpoint(self.path, weights_only=False)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        assert isinstance(pl_module, Detector)
        if isinstance(exception, FloatingPointError):
            return
        if trainer.state.fn != "fit" or pl_module.state.step == 0:
            where = f"{self.path} has the trained model" if self.path.exists() else "there is nothing to continue"
            if (previous := self.path.with_name(PREVIOUS)).exists():
                where += f", and {previous} has that of the run before"
            print(f"stopped outside of the training; {where}")
            return
        if not trainer.is_global_zero:
            return
        pl_module.anomaly.standardised.fill_(False)  # what there is is of older weights
        images: Any = trainer.val_dataloaders
        if images is not None and trainer.world_size == 1:  # alone, because the others may be gone
            # A validation image that cannot be read may be the error; the precision is that of a validation.
            with contextlib.suppress(OSError, ValueError), trainer.precision_plugin.forward_context():
                pl_module.take(calibrate(pl_module, images, count=len(images.dataset)))
        # Not trainer.save_checkpoint, which waits for the other processes.
        trainer.strategy.save_checkpoint(trainer._checkpoint_connector.dump_checkpoint(weights_only=False), self.path)
        print(f"stopped at step {pl_module.state.step} of {pl_module.steps}; continue with resume={self.path}")


class Timer(Callback):
    """Measures the training: seconds, pool and validation included, and images per second, clean and synthetic.

    The seconds of a training that was interrupted are those of all its parts, each up to its last checkpoint.
    """

    def __init__(self) -> None:
        self.figures: dict[str, float] = {}

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Detector)
        self._start, self._first = time.perf_counter(), pl_module.state.step
        self._logged = self._start, self._first
        self._before = dict(pl_module.state.trained)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        assert isinstance(pl_module, Detector)
        now, step = time.perf_counter(), pl_module.state.step
        if step - self._logged[1] >= trainer.log_every_n_steps:  # type: ignore[attr-defined]
            rate = _images(trainer, pl_module, self._logged[1]) / (now - self._logged[0])
            pl_module.log_at_end_of_step({"train/images_per_second": rate} | _gpu(pl_module))
            self._logged = now, step
        self._count(trainer, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "fit":
            self._count(trainer, pl_module)  # before callback.checkpoint, which comes later, writes the file

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._count(trainer, pl_module)
        self._tell(pl_module)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._tell(pl_module)  # a checkpoint that had finished its steps is not fitted

    def _count(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, Detector)
        new = {"seconds": time.perf_counter() - self._start, "images": _images(trainer, module, self._first)}
        module.state.trained = {key: value + new[key] for key, value in self._before.items()}

    def _tell(self, module: L.LightningModule) -> None:
        assert isinstance(module, Detector)
        seconds, images = module.state.trained["seconds"], module.state.trained["images"]
        if seconds:
            self.figures = {"seconds/train": seconds, "images_per_second/train": images / seconds}


def _gpu(module: Detector) -> dict[str, float]:
    """How busy the GPU is, in percent, and its peak memory in MiB; empty on the CPU."""
    if module.device.type != "cuda":
        return {}
    found = {"train/gpu_memory_mb": torch.cuda.max_memory_allocated(module.device) / 2**20}
    with contextlib.suppress(ImportError, RuntimeError):  # without the package nvidia-ml-py
        found["train/gpu_use"] = float(torch.cuda.utilization(module.device))
    return found


def _images(trainer: L.Trainer, module: Detector, since: int) -> int:
    """How many images all processes have trained on since a step."""
    return (module.state.step - since) * module.local_batch * trainer.world_size
