"""Every option that is no text with values that make no sense: what is said, and what is accepted.

Each value is set in the composed configuration, which is checked as a training checks it; what it describes is
made, too: trainer, data set and model, without images. A fault is an error without a sentence, a sentence
of several lines or without the name of the option, a value that is no number and is accepted, or more than ten seconds.

"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import math
import random
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from experiments.reliability.command import SMALL, Trial, fault, parts, run
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
    "1e-300": 1e-300,
    "{}": {},
    "true": True,
    "''": "",
    "[]": [],
    "-inf": -math.inf,
    "[nan]": [math.nan],
    "0.5": 0.5,
    "2^63": 2**63,
    "999999": 999_999,
}
_NO_NUMBERS = ("nan", "inf", "-inf", "[nan]")
BASES = (
    ("discriminator=both", "model=hybrid"),
    ("quantizer=vq", "logger=wandb"),
    ("quantizer=none", "logger=tensorboard"),
    ("model=memory", "dataset=folder"),
)
_TOO_LONG = 10  # seconds


class Told(NamedTuple):
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


def look(config: DictConfig, option: str, value: str, *, build: bool) -> Told:
    """Set one option to a value, and see what is said."""
    changed = copy.deepcopy(config)
    OmegaConf.update(changed, option, VALUES[value], merge=False, force_add=True)
    said = wrong = ""
    started = time.perf_counter()
    try:
        check(changed)
        if build:
            _build(changed)
    except USER_ERRORS as error:
        said = str(error)
        if "\n" in said:
            wrong = "several lines"
        elif not any(name in said for name in (option, option.rpartition(".")[0] or option, f"/{value}; ")):
            wrong = "does not name the option"
    except Exception as error:
        said = wrong = f"{type(error).__name__}: {error}"
    if not (said or wrong) and value in _NO_NUMBERS:
        wrong = "accepted"
    if (seconds := time.perf_counter() - started) > _TOO_LONG:
        wrong = f"takes {seconds:.0f} s"
    return Told(option, value, said, wrong)


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


def trials(work: Path, rng: random.Random, count: int) -> Iterator[Trial]:
    """Set each option to each value, in a random order, and make what they describe; then type what was once typed."""
    logging.disable(logging.CRITICAL)
    check(compose())  # the imports take seconds
    typed = rng.sample(TYPED, min(len(TYPED), max(3, count // 20)))
    chosen = [(c, option, value) for c, names in bases() for option in names for value in VALUES]
    rng.shuffle(chosen)
    for config, option, value in chosen[: count - len(typed)]:
        told = look(config, option, value, build=True)
        yield f"{option}={value}", f"{told.fault}: {told.said}" if told.fault else None
    logging.disable(logging.NOTSET)
    root = f"dataset.root={parts(work / 'data' / 'good').parent}"
    for number, text in enumerate(typed):
        said = run("squad_lit.train", *SMALL, root, f"hydra.run.dir={work / str(number)}", *text.split(" "))
        lines = [line for line in said.text.splitlines() if not line.startswith(("(HYDRA_FULL_ERROR", "warning:"))]
        typed_name = text.split("=")[0].lstrip("-+~").rpartition("/")[2]
        wrong = fault(said, 1, names=".".join(typed_name.split(".")[:2]).removesuffix("._target_"))
        yield f"typed: {text}", wrong or (f"{len(lines)} lines: {lines}" if len(lines) > 1 else None)


# As a user types it; each is refused in one sentence, before there are images.
TYPED = [
    "dataset=nosuch", "nosuch=1", "+nosuch=1", "++nosuch=1", "model.nosuch=1", "model.fsq.levels=[8,6", "model.steps",
    "hydra.run.dir=null", "hydra.run.dir=", "trainer.devices=1000000000000", "trainer.devices=99", "fit=no",
    "model=null",
    "dataset.image_size=abc", "dataset.batch_size=1e30", "seed=-1", "seed=1.5", "~model", "dataset=[mvtec,visa]",
    "model.steps=1,2", "experiment=nosuch", "--nosuch", "--config-name nosuch", "--config-dir /nosuch",
    "trainer=nosuch",
    "hydra.job_logging.handlers.file=5", "hydra.job_logging=5", "hydra.job_logging.version=9", "hydra.verbose=[5",
    "hydra.job_logging.root.level=LOUD", "hydra.job_logging.handlers.file.class=nosuch.Class", "hydra.launcher=5",
    "hydra.job_logging.formatters.simple=5", "hydra.job_logging.root.handlers=[nosuch]", "hydra.sweep.dir=null",
    "checkpoint=nosuch.ckpt", "resume=nosuch.ckpt", "threads=0", "trainer.accelerator=abacus", "trainer.precision=5",
    "model.optimizer=5", "model.optimizer._target_=os.system", "dataset._target_=builtins.eval", "metric=null",
    "callback.panels=5", "logger.csv=5", "threshold.false_alarm_rate=2", "export=docx", "objective=5", "trust=5",
    "hydra.job_logging.handlers.file.filename=/nosuch/folder/a.log", "hydra.output_subdir=/proc/nosuch",
]  # fmt: skip
