"""Commands that work in one folder, or on one file, at the same time: one at a time has it, and no row is lost."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from experiments.reliability.command import SMALL, Command, Said, Trial, fault, left, model, moment, parts, places
from omegaconf import OmegaConf

from squad_lit.system.table import read_rows
from squad_lit.training import checkpoint

_AT_ONCE = 3


def trials(work: Path, rng: random.Random, count: int) -> Iterator[Trial]:
    """Start three at once, again and again; each start is a trial."""
    trained = model(work / "material")
    new = [parts(work / "material" / f"new{i}", "PPLLPD", seed=i + 1) for i in range(_AT_ONCE)]
    kinds = {"prediction": _predictions, "calibration": _calibrations, "training": _trainings}
    folders = places(work, "concurrent")
    for number in range(0, count, _AT_ONCE):
        name = list(kinds)[number // _AT_ONCE % len(kinds)]
        folder = next(folders)
        wrong, ends = kinds[name](folder, trained, new, rng)
        for i, said in enumerate(ends):
            own = fault(said, 0, 1, names="in use by process")
            yield f"{name} {i + 1} of {_AT_ONCE} at once ({number + i})", own or wrong
        shutil.rmtree(folder)


def _all(commands: Iterator[Command]) -> list[Said]:
    return [command.end(120) for command in list(commands)]


def _predictions(folder: Path, trained: Path, new: list[Path], rng: random.Random) -> tuple[str | None, list[Said]]:
    def start(images: Path) -> Command:
        moment(rng, 0.05)
        return Command("squad_lit.predict", "--checkpoint", trained, "--output", folder, images)

    ends = _all(map(start, new))
    for images, said in zip(new, ends, strict=True):
        if said.status and (wrong := fault(start(images).end(), 0)):
            return f"afterwards: {wrong}", ends
    rows = read_rows(folder / "predictions.csv")
    expected = {str(file) for images in new for file in images.iterdir()}
    if {row["image_path"] for row in rows} != expected or len(rows) != len(expected):
        return f"{len(rows)} rows of {len(expected)}", ends
    maps = {str(file.relative_to(folder / "map")).removesuffix(".tiff") for file in folder.rglob("*.tiff")}
    return left(folder) or (None if maps == {row["name"] for row in rows} else "a map is missing"), ends


def _calibrations(folder: Path, trained: Path, new: list[Path], rng: random.Random) -> tuple[str | None, list[Said]]:
    line = folder / "line.ckpt"
    shutil.copy(trained, line)

    def start(images: Path) -> Command:
        moment(rng, 0.05)
        return Command("squad_lit.calibrate", "--checkpoint", line, "--output", line, images, "--add")

    ends = _all(map(start, new))
    known = len(checkpoint.load(trained).state.normal_scores)
    scores = len(checkpoint.load(line).state.normal_scores)
    wrong = None if scores == known + 6 * sum(said.status == 0 for said in ends) else f"{scores} scores"
    return wrong or left(folder), ends


def _trainings(folder: Path, trained: Path, new: list[Path], rng: random.Random) -> tuple[str | None, list[Said]]:
    def start(steps: int) -> Command:
        moment(rng, 0.05)
        options = [f"dataset.root={trained.parents[1] / 'data'}", f"hydra.run.dir={folder}", f"model.steps={steps}"]
        return Command("squad_lit.train", *SMALL, "model.pool.workers=0", *options)

    ends = _all(map(start, (2, 4, 6)))
    config = OmegaConf.load(folder / "config.yaml")
    state = torch.load(folder / "last.ckpt", weights_only=True)["squad_lit"]
    if not (config.model.steps == state["step"] == state["config"]["steps"]):
        return f"config.yaml has {config.model.steps} steps, and last.ckpt {state['step']}", ends
    hydra = [text for text in OmegaConf.load(folder / ".hydra" / "overrides.yaml") if "model.steps" in text]
    if hydra != [f"model.steps={config.model.steps}"]:
        return f".hydra is of another run: {hydra}", ends
    return left(folder), ends
