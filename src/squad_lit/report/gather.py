"""Finds runs, and names them by what their configurations vary."""

from __future__ import annotations

import math
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf

from squad_lit.network.quantizer import chosen_by
from squad_lit.run.reader import read_config, read_yaml
from squad_lit.system.console import say
from squad_lit.system.figures import read_figures
from squad_lit.system.file import regular
from squad_lit.system.table import read_rows

# Options that do not make another method: the hardware, what is written, the seed, and what the tables show as rows.
_IGNORED = {"seed", "fit", "checkpoint", "resume", "threads", "trainer", "logger", "callback", "experiment", "hydra"}
_IGNORED |= {"dataset", "dataset._target_", "model.seed", "metric.bootstrap"}
_IGNORED |= {f"dataset.{key}" for key in ("category", "root", "num_workers", "cache", "cache_folder", "seed")}

_QUANTIZER = "model.generator.quantizer."
# Groups that a configuration repeats inside its model. A test of a checkpoint lacks them.
_REPEATED = {"quantizer", "discriminator", "backbone", "anomaly", "augmentation", "synthesis"}

T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """A run, as its folder shows it.

    Args:
        folder: Folder with ``config.yaml``.
        config: The run's configuration; empty if it cannot be read.
        overrides: The overrides as they were typed.
        figures: Content of ``metrics.json``; None if there is none that can be used.
        problem: Why there are no figures, in words.
    """

    folder: Path
    config: Mapping[str, Any]
    overrides: Sequence[str]
    figures: Mapping[str, Any] | None
    problem: str = ""

    @cached_property
    def leaves(self) -> dict[str, Any]:
        """The options that make a method, by dotted name, with the category choice of a joint model."""
        model, quantizer = self.config["model"], self.quantizer
        # The command line has the quantiser's options in a second place, such as model.fsq.
        copies = {key for key, value in model.items() if quantizer and value == quantizer}
        if "_target_" not in (model.get("generator") or {}):
            copies.add("generator")  # the group quantizer sets one, whether or not the model uses it
        word = chosen_by(str(quantizer.get("_target_")))
        found = {}
        for key, value in _flatten({**self.config, "model": {k: v for k, v in model.items() if k not in copies}}):
            if not _is_ignored(key) and key.split(".")[0] not in _REPEATED:
                key = key.replace(f"{_QUANTIZER}_target_", "quantizer._target_")
                found[key.replace(_QUANTIZER, f"model.{word}.")] = value
        return found | self.joint

    @property
    def quantizer(self) -> Mapping[str, Any]:
        """Configuration of the generator's quantiser; empty if there is none."""
        return (self.config["model"].get("generator") or {}).get("quantizer") or {}

    @property
    def joint(self) -> dict[str, str]:
        """The choice of categories of a model for several ones, which differs from one model per category."""
        return {"dataset.category": _value("", self._chosen)} if len(self.categories) > 1 else {}

    @property
    def dataset(self) -> str:
        """Name of the data set, which is its class name in lower case."""
        return str(self.config["dataset"]["_target_"]).rpartition(".")[2].lower()

    @property
    def seed(self) -> int:
        """Seed of everything random."""
        return int(self.config["seed"])

    @property
    def lacks(self) -> str:
        """What makes its figures others than those of a whole run, in words; empty if nothing does."""
        about = (self.figures or {}).get("run", {})
        words = {"ended_early": "its training ended", "partly_tested": "it was tested on"}
        return "; ".join(f"{text} {about[key]}" for key, text in words.items() if key in about)

    @property
    def _chosen(self) -> Any:
        return self.config["dataset"].get("category", "all")

    @property
    def categories(self) -> dict[str, Mapping[str, Any]]:
        """The figures of each category. Figures of the whole run, such as the codebook usage, are in all of them."""
        figures = self.figures or {}
        if "per_category" in figures:
            of_run = {key: value for key, value in figures.items() if key not in figures["categories_averaged"]}
            return {name: of_run | own for name, own in figures["per_category"].items()}
        name = self._chosen if isinstance(self._chosen, str) else self._chosen[0]
        if name == "all":  # the data set has one category, which predictions.csv names
            file = self.folder / "predictions.csv"
            rows = read_rows(file) if file.exists() else []
            name = rows[0]["category"] if rows else self.dataset
        return {name: figures}


@dataclass(frozen=True)
class Result:
    """The figures of one category of one run.

    Args:
        dataset: Name of the data set.
        category: Name of the category.
        arm: The varied options of the run, such as ``quantizer=vq``.
        seed: Seed of the run.
        figures: As in ``metrics.json``, with metrics in [0, 1], and None where undefined.
        run: The run.
    """

    dataset: str
    category: str
    arm: str
    seed: int
    figures: Mapping[str, Any]
    run: Run

    def value(self, key: str) -> float:
        """A figure; NaN if it is undefined or was not measured."""
        value = self.figures.get(key)
        return math.nan if value is None else float(value)


def find(paths: Iterable[Path]) -> list[Run]:
    """Find all runs in and below some folders, ordered by name. A damaged run says what its problem is.

    Raises:
        ValueError: A folder is missing, or there is no run at all.
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

    Among runs with the same arm, category and seed the newest counts, because a repetition is no second sample.
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
    ordered = sorted(
        newest.values(), key=lambda r: (r.dataset, r.arm != "default", *_natural(r.arm), r.category, r.seed)
    )
    return ordered, [run for run in done if run.folder not in used]


def _natural(arm: str) -> tuple[list[tuple[str, float]], str]:
    """A key that sorts 4 before 16; names that differ in the spelling of a number alone are in alphabetical order."""
    return [(text, float(number or 0)) for text, number in re.findall(r"(\D*)(\d+(?:\.\d+)?)?", arm)], arm


def name_arms(runs: Sequence[Run], without: str = "") -> list[str]:
    """Name each run by what distinguishes its configuration, as one would type it; ``default`` if nothing does.

    The typed options name the arms if they distinguish them. Otherwise the fewest and shortest keys in which the
    configurations differ do. The value that most arms share is left out. An option of the data set counts only if it
    varies within a data set.

    Args:
        runs: The runs.
        without: An option that names no arm, because its values are the points of a curve.
    """
    every = dict.fromkeys(key for run in runs for key in run.leaves if not _is_below(key, without))
    varied = [key for key in every if _varies(runs, key)]
    arms = _parts(runs, varied)
    by_arm: dict[Any, list[Run]] = {}
    for run, arm in zip(runs, arms, strict=True):
        by_arm.setdefault(arm, []).append(run)
    # A test of a checkpoint has the options of its training, which were typed elsewhere.
    trained = [[_typed(run, without) for run in own if run.config.get("fit", True)] for own in by_arm.values()]
    names = _names([min(own, key=len) for own in trained]) if all(trained) else []
    if len(set(names)) < len(by_arm):
        kept: list[str] = []
        for key in sorted(varied, key=lambda key: (_word(key).count("."), len(_word(key)))):
            if len(set(_parts(runs, [*kept, key]))) > len(set(_parts(runs, kept))):
                kept.append(key)
        chosen = [{key: own[0].leaves.get(key) for key in kept} for own in by_arm.values()]
        names = _names([{_word(key): _value(key, value) for key, value in own.items()} for own in chosen])
        if len(set(names)) < len(by_arm):  # two modules have a class of the same name
            names = _names([{_word(key): str(value) for key, value in own.items()} for own in chosen])
    named = dict(zip(by_arm, names, strict=True))
    return [named[arm] for arm in arms]


def readable(read: Callable[[Path], T], file: Path) -> T | None:
    """Read a file beside the figures; None if it is missing or, with a warning, damaged."""
    try:
        return read(regular(file))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        say(f"warning: {file} is damaged and left out: {_first_line(str(error))}", to=sys.stderr)
        return None


def codebook_size(run: Run) -> int | None:
    """Number of codes of a group of features; None if the model has no codes, or if their number is not known."""
    figures = run.figures or {}
    if not any(key.startswith("codebook_usage/") for key in figures):
        return None
    for key, scalars in figures.items():
        if key.startswith("level_histogram/"):
            return math.prod(map(len, scalars))
    return run.quantizer.get("codebook_size")


def _below(path: Path) -> Iterator[Path]:
    for folder, below, files in os.walk(path):
        if "config.yaml" in files:
            yield Path(folder)
            below.clear()
        elif (Path(folder) / ".hydra" / "config.yaml").exists():  # it failed before it wrote its own
            yield Path(folder)
        below[:] = sorted(name for name in below if not name.startswith("."))


def _read(folder: Path) -> Run | None:
    """The run in a folder; None if another program made the folder."""
    try:
        own = (folder / "config.yaml").exists()
        loaded = read_config(folder / "config.yaml" if own else folder / ".hydra" / "config.yaml")
        config: Any = OmegaConf.to_container(loaded, resolve=False)
        if not isinstance(config.get("dataset"), dict) or "_target_" not in config["dataset"]:
            return None
        typed = folder / ".hydra" / "overrides.yaml"
        overrides = [str(o) for o in read_yaml(typed)] if typed.exists() else []
        figures = read_figures(folder) if own else None
    except (OSError, ValueError) as error:
        return Run(folder, {}, [], None, _first_line(str(error)))
    if figures is None:
        error_file = folder / "error.txt"
        told = error_file.read_text(encoding="utf-8", errors="replace") if error_file.is_file() else "not finished"
        return Run(folder, config, overrides, None, _first_line(told))
    run = Run(folder, config, overrides, figures)
    try:
        _ = run.dataset, run.seed, run.leaves, run.categories, codebook_size(run)  # the tables need them
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
    return key in _IGNORED or key.split(".")[0] in _IGNORED - {"dataset"}


def _varies(runs: Sequence[Run], key: str) -> bool:
    within: Callable[[Run], str] = (lambda run: run.dataset) if key.startswith("dataset.") else (lambda run: "")
    return len({(within(run), repr(run.leaves.get(key))) for run in runs}) > len({within(run) for run in runs})


def _parts(runs: Sequence[Run], keys: Sequence[str]) -> list[Any]:
    """The values of some keys per run, which are equal for runs that differ in other keys only."""
    return [tuple(repr(run.leaves.get(key)) for key in keys) for run in runs]


def _names(options: Sequence[Mapping[str, str]]) -> list[str]:
    """A name for each set of options, without the values that most of them share, unless two names would be equal."""
    usual = {}
    for key in dict.fromkeys(key for own in options for key in own):
        (first, most), *others = Counter(own.get(key) for own in options).most_common()
        if len(options) > 1 and (not others or most > others[0][1]):
            usual[key] = first
    short = [" ".join(f"{k}={v}" for k, v in own.items() if usual.get(k) != v) or "default" for own in options]
    if len(set(short)) == len(options):
        return short
    return [" ".join(f"{k}={v}" for k, v in own.items()) or "default" for own in options]


def _is_below(key: str, option: str) -> bool:
    return bool(option) and f"{key}.".startswith(f"{option}.")


def _typed(run: Run, without: str) -> dict[str, str]:
    """The typed options that make a method."""
    pairs = [override.lstrip("+~").partition("=") for override in run.overrides]
    own = [(key, value) for key, _, value in pairs if not _is_ignored(key.split("@")[0])]
    return {key: value for key, value in own if not _is_below(key, without)} | run.joint


def _word(key: str) -> str:
    """A key as one types it; ``model._target_`` is the choice of ``model``."""
    return key.removesuffix("._target_")


def _value(key: str, value: Any) -> str:
    """A value as one types it. A class gets the word that usually chooses it."""
    if isinstance(value, list):
        return "[" + ",".join(map(str, value)) + "]"
    if value is None or value == {}:
        return "none"
    return chosen_by(value) if key.endswith("_target_") else str(value)
