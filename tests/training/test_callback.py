"""The truths: a clock that is set by hand, sums by hand, and a training that was not interrupted."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from squad_lit.network.anomaly import Anomaly
from squad_lit.system.table import read_rows
from squad_lit.training import checkpoint
from squad_lit.training.callback import LastCheckpoint, Progress, Timer
from squad_lit.training.detector import Detector
from squad_lit.training.forward import ForwardOutput

STEPS = 5


class Pixels(nn.Module):
    groups, stride = {"a": [1]}, {"a": 1}


class Adding(Detector):
    """Step n adds 2^n to a weight, and each image is as much brighter; ``error`` comes instead of step ``at``."""

    weight: Tensor

    def __init__(self, at: int = STEPS, error: BaseException | None = None, every: int = 2) -> None:
        super().__init__(
            backbone=lambda groups: Pixels(),
            groups={"a": [1]},
            anomaly=lambda names: Anomaly(names, sigma=0.0, top=1.0, weight={"residual": 1.0}),
            maps=["residual"],
            synthesis=lambda image, others, rng: (1 - image, image[..., 0] > 0.5),
            steps=STEPS,
            seed=0,
        )
        self.register_buffer("weight", torch.zeros(()))
        self.at, self.error, self.every, self.local_batch = at, error, every, 4

    def forward_tile(self, image: Tensor) -> ForwardOutput:
        return ForwardOutput({"residual": image.mean(1) + self.weight}, {"a": image})

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return []

    def training_batches(self, data: Any) -> Any:
        super().training_batches(data)
        self.local_batch = 4
        module = self

        class Steps:
            def __iter__(self) -> Any:
                first = module.state.step
                return iter(torch.arange(first, min((first // module.every + 1) * module.every, STEPS)))

        return Steps()

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        step = int(batch)
        assert step == self.state.step
        if step == self.at:
            assert self.error is not None
            raise self.error
        self.weight += 2**step
        self.state.step = step + 1
        self.trainer.should_stop = self.state.step == STEPS


class Images(L.LightningDataModule):
    categories, image_size, train_set, roi = ("x",), (8, 8), (), None

    def __init__(self) -> None:
        super().__init__()
        images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        self.val_set: list[Any] = [{"image": image, "index": i, "category": "x"} for i, image in enumerate(images)]

    def train_dataloader(self) -> Any:
        return self.trainer.lightning_module.training_batches(self)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.val_set, batch_size=4)  # type: ignore[arg-type]


def fit(
    module: Adding,
    *callbacks: L.Callback,
    data: Images | None = None,
    resume: Path | None = None,
    logger: CSVLogger | None = None,
) -> None:
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=-1,
        logger=logger or False,
        callbacks=list(callbacks),
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=any(isinstance(c, Progress) for c in callbacks),
    )
    trainer.fit(module, datamodule=data or Images(), ckpt_path=resume, weights_only=True)


def test_values_of_a_step_are_logged_at_its_end_under_the_models_own_count(tmp_path):
    class Telling(Adding):
        def training_step(self, batch: Tensor, batch_idx: int) -> None:
            super().training_step(batch, batch_idx)
            if self.state.step % 2 == 0:
                self.log_at_end_of_step({"weight": self.weight, "rate": 0.5})

    module = Telling()
    module.state.step = 3  # as after a resumption: Lightning starts to count at 0
    fit(module, logger=CSVLogger(tmp_path, name="", version="log"))
    (row,) = [row for row in read_rows(tmp_path / "log" / "metrics.csv") if row["weight"]]  # beside validations
    assert (row["step"], float(row["weight"]), float(row["rate"])) == ("4", 2**3, 0.5)


# Timer


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("squad_lit.training.callback.time", SimpleNamespace(perf_counter=lambda: self.now))


def test_a_timer_adds_up_the_parts_of_an_interrupted_training(monkeypatch):
    clock = Clock(monkeypatch)
    trainer: Any = SimpleNamespace(world_size=2, log_every_n_steps=2, state=SimpleNamespace(fn="fit"))
    logged: list[float] = []

    def start(at: float, trained: dict[str, float], step: int) -> tuple[Timer, Adding]:
        timer, module = Timer(), Adding()
        module.log_at_end_of_step = lambda values: logged.extend(values.values())  # type: ignore[method-assign, assignment]
        module.state.trained, module.state.step = trained, step
        clock.now = at
        timer.on_fit_start(trainer, module)
        return timer, module

    def train(timer: Timer, module: Adding, at: float) -> None:
        clock.now, module.state.step = at, module.state.step + 1
        timer.on_train_batch_end(trainer, module)

    timer, module = start(100, {"seconds": 0.0, "images": 0}, 0)
    train(timer, module, 103)
    assert module.state.trained == {"seconds": 3, "images": 8}  # 2 processes of 4 images
    train(timer, module, 105)
    clock.now = 107
    timer.on_validation_end(trainer, module)
    assert module.state.trained == {"seconds": 7, "images": 16}  # validation included
    train(timer, module, 120)
    assert timer.figures == {}  # interrupted, and lost since the last checkpoint
    timer, module = start(1000, {"seconds": 7, "images": 16}, 2)
    train(timer, module, 1004)
    train(timer, module, 1005)
    clock.now = 1010
    timer.on_fit_end(trainer, module)
    assert module.state.trained == {"seconds": 17, "images": 32}
    assert timer.figures == {"seconds/train": 17, "images_per_second/train": 32 / 17}
    assert logged == [16 / 5, 16 / 5]  # the first two steps of either part


def test_a_timer_tells_of_a_training_that_had_finished(monkeypatch):
    Clock(monkeypatch)
    timer, module = Timer(), Adding()
    timer.on_test_start(None, module)  # type: ignore[arg-type]
    assert timer.figures == {}
    module.state.trained = {"seconds": 5.0, "images": 20}
    timer.on_test_start(None, module)  # type: ignore[arg-type]
    assert timer.figures == {"seconds/train": 5, "images_per_second/train": 4}


def test_the_time_of_the_last_calibration_is_in_the_checkpoint(monkeypatch, tmp_path):
    clock = Clock(monkeypatch)

    class Slow(Adding):
        def forward_tile(self, image: Tensor) -> ForwardOutput:
            clock.now += 1
            return super().forward_tile(image)

    fit(Slow(every=STEPS), Timer(), LastCheckpoint(folder=str(tmp_path)))
    state = checkpoint.State.load(checkpoint.read(tmp_path / "last.ckpt"))
    assert state.trained == {"seconds": 2 + 2 * 6, "images": STEPS * 4}  # two batches, corrupted six times: 36 images


# LastCheckpoint


def test_a_training_that_an_error_ended_is_continued_as_if_it_had_not(tmp_path):
    whole = Adding()
    fit(whole, LastCheckpoint(folder=str(tmp_path / "whole")))
    assert float(whole.weight) == 2**STEPS - 1
    (tmp_path / "part").mkdir()
    part = Adding(at=3, error=RuntimeError("power cut"))
    with pytest.raises(RuntimeError, match="power cut"):
        fit(part, LastCheckpoint(folder=str(tmp_path / "part")))
    file = tmp_path / "part" / "last.ckpt"
    content = checkpoint.read(file)
    assert checkpoint.State.load(content).step == 3
    # Calibrated at the step of the error, not at the last validation.
    mean = torch.stack([item["image"] for item in Images().val_set]).mean() + 2**3 - 1
    torch.testing.assert_close(content["state_dict"]["anomaly.mean"], mean[None])
    assert content["state_dict"]["anomaly.standardised"]

    rest = Adding()
    rest.on_load_checkpoint(content)  # as squad_lit.train does, which asks at which step it goes on
    fit(rest, LastCheckpoint(folder=str(tmp_path / "rest")), resume=file)
    (a, b) = (torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("whole", "rest"))
    assert a["squad_lit"] == b["squad_lit"]
    assert {key: value.tolist() for key, value in a["state_dict"].items()} == {
        key: value.tolist() for key, value in b["state_dict"].items()
    }


def test_after_an_error_of_a_validation_image_the_weights_are_kept_without_a_scale(tmp_path, capsys):
    class Unreadable(Dataset[Any]):
        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> Any:
            raise OSError("cannot read image 3")

    class Broken(Images):
        def val_dataloader(self) -> DataLoader[Any]:
            return DataLoader(Unreadable())

    module = Adding(every=STEPS, at=4, error=RuntimeError("power cut"))
    with pytest.raises(RuntimeError, match="power cut"):
        fit(module, LastCheckpoint(folder=str(tmp_path)), data=Broken())
    content = checkpoint.read(tmp_path / "last.ckpt")
    assert float(content["state_dict"]["weight"]) == 2**4 - 1
    assert not content["state_dict"]["anomaly.standardised"]
    assert f"stopped at step 4 of 5; continue with resume={tmp_path / 'last.ckpt'}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("at", "error", "said"),
    [
        (0, RuntimeError("at once"), "there is nothing to continue"),
        (3, FloatingPointError("the loss became nan"), ""),  # there is no use in weights that have diverged
    ],
)
def test_what_cannot_be_continued_leaves_no_checkpoint(tmp_path, capsys, at, error, said):
    with pytest.raises(type(error)):
        fit(Adding(at=at, error=error, every=STEPS), LastCheckpoint(folder=str(tmp_path)))
    assert not (tmp_path / "last.ckpt").exists()
    assert said in capsys.readouterr().out


# Progress


def draw_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take standard error for a terminal, where a bar is drawn again and again."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)


def test_the_time_left_does_not_count_what_comes_before_the_first_step(monkeypatch, capsys):
    draw_bars(monkeypatch)
    now = [1000.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])

    class Slow(Adding):
        def training_batches(self, data: Any) -> Any:
            steps = super().training_batches(data)

            class Filled:
                def __iter__(self) -> Any:
                    now[0] += 300  # the features of all images, say
                    return iter(steps)

            return Filled()

        def training_step(self, batch: Tensor, batch_idx: int) -> None:
            now[0] += 10
            super().training_step(batch, batch_idx)

    fit(Slow(every=STEPS), Progress(refresh_every=1e-9))
    shown = re.findall(r"train: [^\r]*\| (\d)/5 \[([\d:]+)<([\d:?]+)", capsys.readouterr().err)
    left = {int(step): time_left for step, _, time_left in shown}
    assert left == {0: "?", 1: "00:40", 2: "00:30", 3: "00:20", 4: "00:10", 5: "00:00"}


def test_one_bar_goes_through_all_epochs_and_says_how_fast(monkeypatch, capsys):
    draw_bars(monkeypatch)
    fit(Adding(), Progress(refresh_every=1e-9))
    shown = capsys.readouterr().err
    assert shown.count("train:   0%") == 1
    assert "| 5/5 [" in shown
    assert "images/s=" in shown
    assert "validation:   0%" in shown


def test_the_bar_of_a_resumed_training_starts_where_that_went_on(monkeypatch, capsys):
    draw_bars(monkeypatch)
    module = Adding()
    module.state.step = 3
    fit(module, Progress(refresh_every=1e-9))
    assert "train:  60%" in capsys.readouterr().err.split("\r")[1]


def test_a_bar_that_is_disabled_shows_nothing_and_an_error_ends_it_with_a_line(monkeypatch, capsys):
    draw_bars(monkeypatch)
    progress = Progress(refresh_every=1e-9)
    progress.disable()
    fit(Adding(), progress)
    assert "train:" not in capsys.readouterr().err
    with pytest.raises(RuntimeError):
        fit(Adding(at=1, error=RuntimeError()), Progress(refresh_every=1e-9))
    assert capsys.readouterr().err.endswith("\n")


def test_a_pause_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"^refresh_every: expected more than 0, got 0"):
        Progress(refresh_every=0)
