"""Commands that are ended at random moments and repeated: the result is that of an undisturbed one."""

from __future__ import annotations

import json
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from experiments.reliability.command import SMALL, Command, Trial, fault, left, model, moment, parts, places

from squad_lit.system.file import digest
from squad_lit.system.table import read_rows
from squad_lit.training import checkpoint

# Of these, SIGKILL is a power cut, SIGINT Ctrl-C, and SIGTERM what a scheduler sends.
_SIGNALS = {signal.SIGKILL: "killed", signal.SIGTERM: "terminated", signal.SIGINT: "interrupted"}
_OTHER_DISK = Path("/dev/shm")


class Task(NamedTuple):
    """What is interrupted.

    Args:
        start: Begins it in an empty folder.
        again: What its user does after an interruption, in the folder as it was left.
        content: What has to be as without an interruption.
    """

    start: Callable[[Path], Command]
    again: Callable[[Path], Command]
    content: Callable[[Path], Any]


def trials(work: Path, rng: random.Random, count: int) -> Iterator[Trial]:
    """Interrupt each command in turn, at moments between its start and its usual end."""
    with tempfile.TemporaryDirectory(dir=_OTHER_DISK if _OTHER_DISK.is_dir() else None) as elsewhere:
        yield from _trials(work, rng, count, tasks(work / "material", elsewhere))


def _trials(work: Path, rng: random.Random, count: int, made: Mapping[str, Task]) -> Iterator[Trial]:
    order = [name for name, often in _OFTEN.items() for _ in range(often)]
    wholes: dict[str, tuple[float, Any]] = {}
    folders = places(work, "kill")
    for number in range(count):
        name = order[number * 7 % len(order)]  # 7 and 22 have no common factor: a mixture from the start
        task, folder = made[name], next(folders)
        if name not in wholes:
            started = time.perf_counter()
            if wrong := fault(task.start(folder).end(300), 0):
                yield f"{name}, undisturbed", wrong
                continue
            wholes[name] = time.perf_counter() - started, task.content(folder)
            folder = next(folders)
        number_of_signal = rng.choices(list(_SIGNALS), [4, 1, 1])[0]
        trial = f"{name}, {_SIGNALS[number_of_signal]} ({number})"
        try:
            yield trial, _interrupt(task, folder, number_of_signal, wholes[name], rng)
        except Exception as error:  # what is left cannot even be read
            yield trial, f"{type(error).__name__}: {error}"
        shutil.rmtree(folder, ignore_errors=True)


def _interrupt(
    task: Task, folder: Path, number: signal.Signals, whole: tuple[float, Any], rng: random.Random
) -> str | None:
    longest, content = whole
    command = task.start(folder)
    moment(rng, 1.1 * longest)
    command.send(number)
    said = command.end(30)
    if number != signal.SIGKILL and (
        wrong := fault(said, 0, 128 + number, -number) or (said.status and left(folder))  # -number: before it has begun
    ):
        return wrong
    for _ in range(60):
        if "is in use by" not in (said := task.again(folder).end(300)).text:  # by a job of a sweep that was killed
            break
        time.sleep(1)
    if wrong := fault(said, 0):
        return f"afterwards: {wrong}"
    if left(folder):
        return f"afterwards: {left(folder)}"
    return None if task.content(folder) == content else "afterwards the result is another one"


# How often each comes in a round of 22; an export or a sweep takes ten times as long as a prediction.
_OFTEN = {"training": 4, "training, temporary files elsewhere": 4, "prediction": 6, "calibration": 5}
_OFTEN |= {"cache": 1, "export": 1, "sweep": 1}


def tasks(material: Path, other_disk: str) -> dict[str, Task]:
    """The commands, with a model and images for them, and a folder of another file system."""
    trained = model(material)
    data = material / "data"
    new = parts(material / "new", "PPLLPDPLPPLD" * 3, seed=1)
    elsewhere = {"TMPDIR": other_disk}

    def train(folder: Path, *options: str, elsewhere: Mapping[str, str] = MappingProxyType({})) -> Command:
        options = ("model.steps=6", "model.pool.workers=0", *options)
        return Command(
            "squad_lit.train",
            *SMALL,
            f"dataset.root={data}",
            f"hydra.run.dir={folder}",
            *options,
            environment=elsewhere,
        )

    def resume(folder: Path, *options: str, elsewhere: Mapping[str, str] = MappingProxyType({})) -> Command:
        last = folder / "last.ckpt"
        return train(folder, *options, *([f"resume={last}"] if last.exists() else []), elsewhere=elsewhere)

    def cached(folder: Path) -> tuple[str, str]:
        return "dataset.cache=disk", f"dataset.cache_folder={folder / 'cache'}"

    def predict(folder: Path) -> Command:
        return Command("squad_lit.predict", "--checkpoint", trained, "--output", folder, new)

    def calibrate(folder: Path) -> Command:
        line = folder / "line.ckpt"
        if not line.exists():
            shutil.copy(trained, line)
        return Command("squad_lit.calibrate", "--checkpoint", line, "--output", line, new)

    def export(folder: Path) -> Command:
        form, name = "onnx", "model.onnx"
        return Command("squad_lit.export", "--checkpoint", trained, "--format", form, "--output", folder / name)

    def sweep(folder: Path) -> Command:
        options = (f"dataset.root={data}", "model.steps=2", "model.pool.workers=0", f"hydra.sweep.dir={folder}")
        return Command("squad_lit.train", "-m", "seed=0,1", *SMALL, *options)

    return {
        "training": Task(train, resume, _of_training),
        "training, temporary files elsewhere": Task(
            lambda folder: train(folder, elsewhere=elsewhere),
            lambda folder: resume(folder, elsewhere=elsewhere),
            _of_training,
        ),
        "prediction": Task(predict, predict, _of_prediction),
        "calibration": Task(calibrate, calibrate, lambda folder: checkpoint.load(folder / "line.ckpt").state),
        "cache": Task(
            lambda folder: train(folder, *cached(folder)),
            lambda folder: resume(folder, *cached(folder)),
            _of_training,
        ),
        "export": Task(export, export, lambda folder: _score(folder / "model.onnx", new)),
        "sweep": Task(sweep, sweep, lambda folder: [_of_training(one.parent) for one in _jobs(folder)]),
    }


def _jobs(folder: Path) -> list[Path]:
    return sorted(folder.rglob("last.ckpt"))


def _of_training(folder: Path) -> Any:
    """Weights and figures."""
    weights = torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]
    figures = json.loads((folder / "metrics.json").read_text())
    plain = {key: value for key, value in figures.items() if isinstance(value, float) and "/train" not in key}
    plain.pop("peak_memory_mb", None)
    return {key: value.double().sum().item() for key, value in weights.items()}, plain


def _of_prediction(folder: Path) -> Any:
    """Rows without the times of files, and maps."""
    rows = {row["image_path"]: row["anomaly_score"] for row in read_rows(folder / "predictions.csv")}
    return rows, {str(file.relative_to(folder)): digest(file) for file in folder.rglob("*.tiff")}


def _score(path: Path, images: Path) -> list[float]:
    import squad_lit

    predictor = squad_lit.load(path)
    return [predictor.predict(file).anomaly_score for file in sorted(images.iterdir())[:3]]
