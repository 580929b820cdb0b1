"""Finds runs, and tells by their configurations what was varied."""

from __future__ import annotations

import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf
from yaml import YAMLError

from squad_lit.network.quantizer import chosen_by
from squad_lit.run.job import read_config
from squad_lit.system.file import read_figures, read_rows

# What makes no other method of a run: who computes, what is written, which draw, and the rows of the tables.
_IGNORED = {"seed", "fit", "checkpoint", "resume", "threads", "trainer", "logger", "callback", "experiment", "hydra"}
_IGNORED |= {"dataset", "model.seed", "metric.bootstrap"}
_IGNORED |= {f"dataset.{key}" for key in ("category", "root", "num_workers", "cache", "cache_folder", "seed")}

_QUANTIZER = "model.generator.quantizer."
# What a configuration says a second time inside of its model, and a test of a checkpoint does not say.
_REPEATED = {"quantizer", "discriminator", "backbone", "anomaly", "augmentation", "synthesis"}
_REPEATED |= {f"model.{quantizer}" for quantizer in ("fsq", "vq", "none")}


T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """A run's folder.

    Args:
        folder: With ``config.yaml``.
        config: As far as it came to one.
        overrides: As they were typed.
        figures: What is in ``metrics.json``; None: there is none that can be used.
        problem: Why there is none, in words.
    """

    folder: Path
    config: Mapping[str, Any]
    overrides: Sequence[str]
    figures: Mapping[str, Any] | None
    problem: str = ""

    @cached_property
    def leaves(self) -> dict[str, Any]:
        """The configuration by dotted names: what makes another method, and whether the model is a joint one."""
        model = self.config["model"]
        uses_codes = str(model["_target_"]).endswith(".Squad")  # another model's generator is not used
        word = chosen_by(model["generator"]["quantizer"]["_target_"]) if uses_codes else ""
        found: dict[str, Any] = {"quantizer": word} if word else {}
        for key, value in _flatten(self.config):
            if _is_ignored(key) or _is_repeated(key) or (key.startswith("model.generator.") and not uses_codes):
                continue
            if key != f"{_QUANTIZER}_target_":
                found[key.replace(_QUANTIZER, f"model.{word}.")] = value
        return found | self.joint

    @property
    def joint(self) -> dict[str, str]:
        """The choice of categories, if one model was trained on several: it is another one than one a category."""
        return {"dataset.category": _value(self.config["dataset"]["category"])} if len(self.categories) > 1 else {}

    @property
    def dataset(self) -> str:
        """Name of the data set."""
        return str(self.config["dataset"]["_target_"]).split(".")[-2]

    @property
    def seed(self) -> int:
        """Of everything random."""
        return int(self.config["seed"])

    @property
    def categories(self) -> dict[str, Mapping[str, Any]]:
        """The figures of each category; those of the whole run, such as the use of the codebook, are in all of them."""
        figures = self.figures or {}
        if "per_category" in figures:
            of_run = {key: value for key, value in figures.items() if key not in figures["categories_averaged"]}
            return {name: of_run | own for name, own in figures["per_category"].items()}
        chosen = self.config["dataset"]["category"]
        name = chosen if isinstance(chosen, str) else chosen[0]
        return {self._only_category() if name == "all" else name: figures}

    def _only_category(self) -> str:
        """The category of a data set that has no more of them, as the test images have it."""
        file = self.folder / "predictions.csv"
        rows = read_rows(file) if file.exists() else []
        return rows[0]["category"] if rows else self.dataset


@dataclass(frozen=True)
class Result:
    """One category of one run.

    Args:
        dataset: Name of the data set.
        category: Of it.
        arm: What was varied, in words.
        seed: Of the run.
        figures: As in ``metrics.json``: metrics in [0, 1], undefined is None.
        run: Where they are from.
    """

    dataset: str
    category: str
    arm: str
    seed: int
    figures: Mapping[str, Any]
    run: Run

    def value(self, key: str) -> float:
        """A figure; NaN where it is undefined or was not measured."""
        value = self.figures.get(key)
        return math.nan if value is None else float(value)


def find(paths: Iterable[Path]) -> list[Run]:
    """All runs in and below some folders, in the order of their names; a damaged one has its problem.

    Raises:
        ValueError: A folder that is not there, or no run at all.
    """
    paths = list(paths)
    for path in paths:
        if not path.is_dir():
            raise ValueError(f"no folder {path}; give folders of runs, or of sweeps")
    folders = sorted({folder.resolve() for path in paths for folder in _below(path)})
    runs = [run for folder in folders if (run := _read(folder)) is not None]
    if not runs:
        listed = ", ".join(map(str, paths))
        raise ValueError(f"no run in {listed}: a run is a folder with config.yaml and, when it is done, metrics.json")
    return runs


def results(runs: Sequence[Run]) -> tuple[list[Result], list[Run]]:
    """The categories of all finished runs, and the runs that are left out as repetitions.

    Of runs of the same arm, category and seed the newest counts: a repetition is no second draw.
    """
    done = [run for run in runs if run.figures is not None]
    done.sort(key=lambda run: (run.folder / "metrics.json").stat().st_mtime)
    arms = name_arms(done)
    newest: dict[tuple[Any, ...], Result] = {}
    for run, arm in zip(done, arms, strict=True):
        for category, figures in run.categories.items():
            found = Result(run.dataset, category, arm, run.seed, figures, run)
            newest[found.dataset, category, arm, run.seed] = found
    used = {result.run.folder for result in newest.values()}
    ordered = sorted(newest.values(), key=lambda r: (r.dataset, r.arm != "default", r.arm, r.category, r.seed))
    return ordered, [run for run in done if run.folder not in used]


def name_arms(runs: Sequence[Run]) -> list[str]:
    """What distinguishes each run's configuration, as it would be typed; ``default`` where nothing was.

    The options that were typed name the arms if they tell them apart; otherwise the fewest and shortest keys in which
    the configurations differ. A value that most arms have is not said. An option of the data set counts only if it
    differs within a data set.
    """
    varied = [key for key in dict.fromkeys(key for run in runs for key in run.leaves) if _varies(runs, key)]
    arms = _parts(runs, varied)
    by_arm: dict[Any, list[Run]] = {}
    for run, arm in zip(runs, arms, strict=True):
        by_arm.setdefault(arm, []).append(run)
    # A test of a checkpoint has the options of a training that was typed elsewhere.
    trained = [[_typed(run) for run in own if run.config.get("fit", True)] for own in by_arm.values()]
    names = _names([min(own, key=len) for own in trained]) if all(trained) else []
    if len(set(names)) < len(by_arm):
        kept: list[str] = []
        for key in sorted(varied, key=lambda key: (_word(key).count("."), len(key))):
            if len(set(_parts(runs, [*kept, key]))) > len(set(_parts(runs, kept))):
                kept.append(key)
        names = _names([{_word(key): _value(own[0].leaves.get(key)) for key in kept} for own in by_arm.values()])
    named = dict(zip(by_arm, names, strict=True))
    return [named[arm] for arm in arms]


def readable(read: Callable[[Path], T], file: Path) -> T | None:
    """What a function reads from a file beside the figures; None: there is none, or, with a warning, it is damaged."""
    try:
        return read(file)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        print(f"warning: {file} is damaged and left out: {_first_line(str(error))}", file=sys.stderr)
        return None


def codebook_size(run: Run) -> int | None:
    """Number of codes of a group; None of a model that has none."""
    if not any(key.startswith("codebook_usage/") for key in run.figures or {}):
        return None
    quantizer = run.config["model"]["generator"]["quantizer"]
    return math.prod(quantizer["levels"]) if "levels" in quantizer else int(quantizer["codebook_size"])


def _below(path: Path) -> Iterator[Path]:
    for folder, below, files in os.walk(path):
        if "config.yaml" in files:
            yield Path(folder)
            below.clear()
        elif (Path(folder) / ".hydra" / "config.yaml").exists():  # it failed before its own was written
            yield Path(folder)
        below[:] = sorted(name for name in below if not name.startswith("."))


def _read(folder: Path) -> Run | None:
    """The run in a folder; None: it is another program's."""
    try:
        own = (folder / "config.yaml").exists()
        loaded = read_config(folder / "config.yaml" if own else folder / ".hydra" / "config.yaml")
        config: Any = OmegaConf.to_container(loaded, resolve=False)
        if not isinstance(config.get("dataset"), dict) or "_target_" not in config["dataset"]:
            return None
        typed = folder / ".hydra" / "overrides.yaml"
        overrides = [str(o) for o in OmegaConf.load(typed)] if typed.exists() else []
        figures = read_figures(folder) if own else None
    except (OSError, ValueError, YAMLError) as error:
        return Run(folder, {}, [], None, _first_line(str(error)))
    if figures is None:
        error_file = folder / "error.txt"
        told = error_file.read_text(encoding="utf-8", errors="replace") if error_file.exists() else "not finished"
        return Run(folder, config, overrides, None, _first_line(told))
    run = Run(folder, config, overrides, figures)
    try:
        _ = run.dataset, run.seed, run.leaves, run.categories, codebook_size(run)  # what the tables are made from
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        return Run(folder, config, overrides, None, f"config.yaml or metrics.json is incomplete ({error!r})")
    return run


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def _flatten(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, part in value.items():
            yield from _flatten(part, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def _is_ignored(key: str) -> bool:
    first = key.split(".")[0]
    return key in _IGNORED or key == "dataset._target_" or (first in _IGNORED and first != "dataset")


def _is_repeated(key: str) -> bool:
    return key.split(".")[0] in _REPEATED or ".".join(key.split(".")[:2]) in _REPEATED


def _varies(runs: Sequence[Run], key: str) -> bool:
    within: Callable[[Run], str] = (lambda run: run.dataset) if key.startswith("dataset.") else (lambda run: "")
    return len({(within(run), repr(run.leaves.get(key))) for run in runs}) > len({within(run) for run in runs})


def _parts(runs: Sequence[Run], keys: Sequence[str]) -> list[Any]:
    """What each run has of some keys; equal for runs that differ in others only."""
    return [tuple(repr(run.leaves.get(key)) for key in keys) for run in runs]


def _names(options: Sequence[Mapping[str, str]]) -> list[str]:
    """A name for each set of options, without what most of them have; with it, where that would leave two alike."""
    usual = {}
    for key in dict.fromkeys(key for own in options for key in own):
        (first, most), *others = Counter(own.get(key) for own in options).most_common()
        if len(options) > 1 and (not others or most > others[0][1]):
            usual[key] = first
    short = [" ".join(f"{k}={v}" for k, v in own.items() if usual.get(k) != v) or "default" for own in options]
    if len(set(short)) == len(options):
        return short
    return [" ".join(f"{k}={v}" for k, v in own.items()) or "default" for own in options]


def _typed(run: Run) -> dict[str, str]:
    """The options that were typed, without those that make no other method."""
    pairs = [override.lstrip("+~").partition("=") for override in run.overrides]
    return {key: value for key, _, value in pairs if not _is_ignored(key.split("@")[0])} | run.joint


def _word(key: str) -> str:
    """A key as it is typed: ``model._target_`` is the choice of ``model``."""
    return key.removesuffix("._target_")


def _value(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ",".join(map(str, value)) + "]"
    if value is None or value == {}:
        return "none"
    # A class is named as the file that chooses it.
    return value.rpartition(".")[2].lower() if str(value).startswith("squad_lit.") else str(value)
