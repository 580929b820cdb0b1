"""Every option that is no text with values that make no sense: what is said, and what is accepted.

Each value is set in the composed configuration, which is checked as a training checks it; with ``--build`` what it
describes is made, too: trainer, data set and model, without images. A fault is an error without a sentence, a sentence
of several lines or without the name of the option, a value that is no number and is accepted, or more than ten seconds.

``python -m experiments.reliability.option --build`` (about 20 minutes) prints a table and the faults.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import logging
import math
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from omegaconf import DictConfig, ListConfig, OmegaConf

from squad_lit.run import fit
from squad_lit.run.config import compose
from squad_lit.run.option import check, make
from squad_lit.system.console import USER_ERRORS

VALUES: dict[str, Any] = {
    "-1": -1,
    "0": 0,
    "nan": math.nan,
    "inf": math.inf,
    "text": "text",
    "[1,2]": [1, 2],
    "null": None,
    "1e30": 1e30,
    "10^12": 10**12,
}
BASES = (
    ("discriminator=both", "model=hybrid"),
    ("quantizer=vq", "logger=wandb"),
    ("quantizer=none", "logger=tensorboard"),
    ("model=memory", "dataset=folder"),
)
_TOO_LONG = 10  # seconds


class Trial(NamedTuple):
    """What one value of an option led to."""

    option: str
    value: str
    said: str  # empty: it is accepted
    fault: str  # empty: none


def options(config: DictConfig, place: str = "") -> Iterator[str]:
    """The names of all options that hold a number, a list of numbers or null."""
    for key in config:
        name = f"{place}.{key}".lstrip(".")
        if OmegaConf.is_interpolation(config, key) or OmegaConf.is_missing(config, key):
            continue
        value = config[key]
        if isinstance(value, DictConfig):
            yield from options(value, name)
        elif isinstance(value, ListConfig) or (not isinstance(value, bool | str)):
            yield name


def bases() -> Iterator[tuple[DictConfig, list[str]]]:
    """Configurations that have all options together, each with those that the ones before lack."""
    seen: set[str] = set()
    for overrides in BASES:
        config = compose(["backbone.weights=null", *overrides])
        new = [name for name in options(config) if name not in seen]
        seen.update(new)
        yield config, new


def look(config: DictConfig, option: str, value: str, *, build: bool) -> Trial:
    """Set one option to a value, and see what is said."""
    changed = copy.deepcopy(config)
    OmegaConf.update(changed, option, VALUES[value], force_add=True)
    said = fault = ""
    started = time.perf_counter()
    try:
        check(changed)
        if build:
            _build(changed)
    except USER_ERRORS as error:
        said = str(error)
        if "\n" in said:
            fault = "several lines"
        elif not any(name in said for name in (option, option.rpartition(".")[0] or option, f"/{value}; ")):
            fault = "does not name the option"
    except Exception as error:
        said = fault = f"{type(error).__name__}: {error}"
    if (seconds := time.perf_counter() - started) > _TOO_LONG:
        fault = f"takes {seconds:.0f} s"
    return Trial(option, value, said, fault)


def _build(config: DictConfig) -> None:
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        fit._make_trainer(config, make(config, "metric"))
        if str(config.dataset._target_).endswith("Synthetic"):  # others need files
            data = make(config, "dataset")
        module = fit.make_module(config)
        if str(config.dataset._target_).endswith("Synthetic"):
            data.keep_shape(module.multiple)
            module.check_data(data.categories, data.image_size)


def table(trials: Sequence[Trial]) -> str:
    """Counts per value."""
    lines = [f"{'value':8}{'refused':>9}{'accepted':>10}{'faults':>8}"]
    for value in VALUES:
        own = [trial for trial in trials if trial.value == value]
        count: Mapping[bool, int] = Counter(bool(trial.said) for trial in own)
        lines.append(f"{value:8}{count[True]:9}{count[False]:10}{sum(bool(trial.fault) for trial in own):8}")
    return "\n".join(lines)


def main() -> None:
    """Try all values, and print a table, the accepted values and the faults."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--build", action="store_true", help="make trainer, data set and model, too")
    build = parser.parse_args().build
    logging.disable(logging.CRITICAL)
    check(compose())  # the imports take seconds
    trials = [look(c, option, value, build=build) for c, names in bases() for option in names for value in VALUES]
    for trial in trials:
        if not trial.said:
            print(f"accepted: {trial.option}={trial.value}")
    for trial in trials:
        if trial.fault:
            print(f"fault: {trial.option}={trial.value}: {trial.fault}: {trial.said}")
    print(f"{len({trial.option for trial in trials})} options, {len(trials)} values\n{table(trials)}")


if __name__ == "__main__":
    main()
