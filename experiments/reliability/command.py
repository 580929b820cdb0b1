"""What the trials share: commands in processes that start in a moment, their material, and what a fault is."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

Trial = tuple[str, str | None]
"""A name that says what was tried, and what is wrong; None: nothing."""

# A process forks from one that has all imports, which take seconds: a hundred kills take minutes.
_CONTEXT = multiprocessing.get_context("forkserver")
_OURS = ["train", "predict", "calibrate", "export", "view", "check", "run.command", "run.fit", "report.__main__"]
_OURS += ["report.page", "report.gallery", "report.suspects", "deploy.rethreshold", "deploy.export"]
_OURS += ["training.squad", "training.memory"]
_OTHERS = ["lightning.pytorch", "timm", "onnxruntime", "openvino", "onnxscript", "onnx.reference", "networkx"]
_OTHERS += ["torch.onnx._internal.exporter._core", "torch._inductor", "matplotlib.pyplot"]
_CONTEXT.set_forkserver_preload([*(f"squad_lit.{name}" for name in _OURS), *_OTHERS])
SECONDS = 60  # that a command may take, on a busy machine

# The smallest training that has all parts, in under two seconds.
SMALL = ["trainer=smoke", "logger=none", "callback.progress=null", "callback.panels=null", "callback.curves=null"]
SMALL += ["dataset=folder", "dataset.limit_train=null", "dataset.image_size=64", "dataset.batch_size=4"]
SMALL += ["dataset.num_workers=0", "model=squad", "trainer.accelerator=cpu", "dataset.validation_fraction=0.5"]
MEMORY = [*SMALL, "model=memory", "model.memory.patches=100", "model.groups={low: [4], high: [8]}"]


class Skipped(Exception):
    """A kind of trials that cannot be made here, with the reason."""


class Said(NamedTuple):
    """How a command ended, and what it printed; a negative status is the signal that ended it."""

    status: int
    text: str


class Command:
    """A command in a process group of its own, which has started.

    Args:
        module: Its module, which has ``main``.
        arguments: Its arguments.
        environment: Variables to set.
    """

    def __init__(self, module: str, *arguments: object, environment: Mapping[str, str] = {}) -> None:
        descriptor, self._log = tempfile.mkstemp(prefix="squad_lit_trial_")
        os.close(descriptor)
        given = module, [str(argument) for argument in arguments], self._log, dict(environment)
        self._process = _CONTEXT.Process(target=_run, args=given)
        self._process.start()

    def send(self, number: int) -> None:
        """Send a signal to all its processes."""
        try:
            os.killpg(self._process.pid or 0, number)
        except ProcessLookupError:  # it has ended, or not begun
            if self._process.is_alive():
                os.kill(self._process.pid or 0, number)

    def end(self, seconds: float = SECONDS) -> Said:
        """Wait for its end."""
        self._process.join(seconds)
        if late := self._process.is_alive():
            self.send(signal.SIGKILL)
            self._process.join()
        with open(self._log, encoding="utf-8", errors="surrogateescape") as file:
            text = file.read()
        os.unlink(self._log)
        if late:
            return Said(-signal.SIGKILL, f"{text}\nit ran for more than {seconds} seconds")
        return Said(int(self._process.exitcode or 0), text)


def _run(module: str, arguments: list[str], log: str, environment: dict[str, str]) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # as in a command that is being imported
    os.environ.update(environment)
    tempfile.tempdir = None  # it may be another one now
    output = os.open(log, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    sys.exit(importlib.import_module(module).main(arguments))


def run(module: str, *arguments: object, seconds: float = SECONDS, environment: Mapping[str, str] = {}) -> Said:
    """Run a command to its end."""
    return Command(module, *arguments, environment=environment).end(seconds)


def fault(said: Said, *statuses: int, names: str = "") -> str | None:
    """What is wrong with the end of a command: a trace, a signal, another status, or an error without a sentence.

    Args:
        said: How it ended.
        statuses: Those that are right.
        names: What an error has to name.
    """
    last = said.text.strip().rpartition("\n")[2][-300:]
    if "Traceback (most recent call last)" in said.text:
        return f"a trace: {last}"
    if said.status not in statuses:
        return f"ended with {said.status}: {_error(said) or last}"
    if said.status == 1 and not _error(said):
        return f"status 1 without a sentence: {last}"
    if said.status == 1 and names not in said.text:
        return f"does not name {names}: {_error(said)}"
    return None


def _error(said: Said) -> str:
    found = re.search(r"^error: (.+)", said.text, re.MULTILINE)
    return found[1] if found else ""


def parts(folder: Path, names: str = "PPPPLLPPLLPP", seed: int = 0) -> Path:
    """Soft grey textures of 64 pixels, one per letter; D has a defect."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for number, kind in enumerate(names):
        noise = Image.fromarray(rng.integers(90, 150, (16, 16, 3), np.uint8)).resize((64, 64))
        pixels = np.array(noise)
        if kind == "D":
            pixels[20:40, 20:40] = (250, 40, 40)
        Image.fromarray(pixels).save(folder / f"{number:03}.png")
    return folder


def model(folder: Path) -> Path:
    """The checkpoint of a memory of good parts, which is made in a second; those lie in ``good`` beside it."""
    parts(folder / "data" / "good", "P" * 24)
    said = run("squad_lit.train", *MEMORY, f"dataset.root={folder / 'data'}", f"hydra.run.dir={folder / 'run'}")
    if said.status:
        raise RuntimeError(f"the model of the trials cannot be made:\n{said.text}")
    return folder / "run" / "last.ckpt"


def left(folder: Path) -> str | None:
    """Whether temporary files are left in a folder."""
    found = [path.name for path in folder.rglob("*") if ".part" in path.name]
    return f"left {', '.join(found)}" if found else None


def places(work: Path, name: str) -> Iterator[Path]:
    """New empty folders."""
    for number in range(10**6):
        (work / f"{name}{number}").mkdir(parents=True)
        yield work / f"{name}{number}"


def moment(rng: random.Random, longest: float) -> None:
    """Wait for a random part of a time."""
    time.sleep(rng.uniform(0, longest))
