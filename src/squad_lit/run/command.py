"""What the commands share: options checked before anything is computed, and errors as sentences."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import os
import sys
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from squad_lit.system.console import format_warning
from squad_lit.system.file import write_text

log = logging.getLogger(__name__)

# What a user can cause and mend: shown as a sentence, without a stack trace.
USER_ERRORS = (ValueError, TypeError, OSError, ImportError, FloatingPointError)

# Options that a checkpoint brings with it: with fit=false another value would have no effect.
OF_THE_MODEL = ("model", "quantizer", "discriminator", "backbone", "anomaly", "augmentation", "synthesis")


def check_options(config: DictConfig) -> None:
    """Refuse what is wrong whatever the data are, naming the option as it is typed.

    Raises:
        ValueError: An option of the wrong kind or range, or options that do not go together.
    """
    if config.fit and config.checkpoint:
        raise ValueError("checkpoint=PATH tests a trained model: add fit=false; to go on training it, use resume=PATH")
    if not config.fit and not config.checkpoint:
        raise ValueError("fit=false needs checkpoint=PATH: there is no model to test")
    if type(config.seed) is not int or not 0 <= config.seed < 2**32:
        raise ValueError(f"seed: expected a whole number in [0, 2^32), got {config.seed}")
    if config.threads is not None and (type(config.threads) is not int or config.threads < 1):
        raise ValueError(f"threads: expected a whole number of at least 1, or null, got {config.threads}")
    rate = OmegaConf.select(config, "model.optimizer.lr", default=1.0)  # model=memory has none
    if type(rate) not in (int, float) or rate <= 0:
        raise ValueError(f"model.optimizer.lr: expected a number above 0, got {rate}")
    rate = config.threshold.false_alarm_rate
    if type(rate) not in (int, float) or not 0 < rate < 1:
        raise ValueError(f"threshold.false_alarm_rate: expected a share in (0, 1), got {rate}")
    if "_target_" not in config.dataset:
        raise ValueError("dataset=default is only what the others share; choose one of them")


def check_overrides(config: DictConfig, overrides: list[str]) -> None:
    """Refuse options of the model where they have no effect: where a trained one is tested, and of another model.

    Raises:
        ValueError: Names them.
    """
    keys = {o: o.lstrip("+~").split("=")[0].split("@")[0].split(".") for o in overrides}
    given = [o for o, key in keys.items() if key[0] in OF_THE_MODEL]
    if not config.fit and given:
        raise ValueError(
            f"fit=false tests the checkpoint as it is, so {' '.join(given)} would have no effect: leave it out, or "
            f"train a model with it"
        )
    taken = {*model_options(config), "_target_"}
    if "generator" in taken:
        taken.add(config.quantizer)  # model.fsq
    unused = [o for o, key in keys.items() if key[0] == "model" and len(key) > 1 and key[1] not in taken]
    if "generator" not in taken:
        unused += [o for o, key in keys.items() if key[0] in ("quantizer", "discriminator", "augmentation")]
    if unused:
        name = config.model._target_.rpartition(".")[2]
        raise ValueError(f"{' '.join(unused)} would have no effect: {name} has no such option")


def model_options(config: DictConfig) -> Collection[str]:
    """Names of the options under ``model`` that its class takes."""
    return inspect.signature(hydra.utils.get_class(config.model._target_)).parameters


def instantiate(node: DictConfig, **more: Any) -> Any:
    """Hydra's ``instantiate``, but an error of the object's own constructor comes as it is."""
    try:
        return hydra.utils.instantiate(node, _convert_="all", **more)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, USER_ERRORS):
            raise cause from None
        if isinstance(cause, AttributeError | LookupError):  # a value of a kind that the constructor did not expect
            raise ValueError(f"{node.get('_target_')}: {cause}; is one of its options of the wrong kind?") from cause
        if type(cause).__name__ == "MisconfigurationException":  # Lightning's, which would have to be imported for it
            raise ValueError(f"trainer: {cause} On a machine without a GPU use trainer=cpu") from None
        raise


@contextlib.contextmanager
def exit_with_sentence() -> Iterator[None]:
    """Turn what a user can mend into a sentence and exit status 1, Ctrl-C into 130, warnings into a line.

    In a sweep the sentence names the job, and the error goes on to Hydra, which runs the other jobs and fails at the
    end; with HYDRA_FULL_ERROR=1 all goes on.
    """
    warnings.formatwarning = format_warning
    for stream in (sys.stdout, sys.stderr):  # a file name that is no text must not end a run when it is printed
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except USER_ERRORS as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        log.debug("stack trace", exc_info=True)
        _record(_sentence(error))
        if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
            hydra_config = HydraConfig.get()
            text = f"job {hydra_config.job.num} ({hydra_config.job.override_dirname}): {_sentence(error)}"
            print(f"error: {text}", file=sys.stderr)
            raise CompactHydraException(text) from error
        print(f"error: {_sentence(error)}\n(HYDRA_FULL_ERROR=1 shows where)", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        _record(f"{type(error).__name__}: {error}", error)
        raise


def _record(text: str, error: Exception | None = None) -> None:
    """Leave an error in the run's folder: in ``error.txt``, and in the log, which Hydra does not write it to."""
    if not HydraConfig.initialized():
        return
    trace = (type(error), error, error.__traceback__) if error is not None else None
    record = log.makeRecord(log.name, logging.ERROR, __file__, 0, text, (), trace)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):  # the terminal gets it in another form
            handler.handle(record)
    with contextlib.suppress(OSError):  # a full disk may be the error
        write_text(Path(HydraConfig.get().runtime.output_dir) / "error.txt", f"{text}\n")


def _sentence(error: BaseException) -> str:
    """What an error says; of one that a process for reading has passed on, without the stack trace inside."""
    text = str(error)
    if "Original Traceback" not in text:
        return text
    return text.strip().splitlines()[-1].partition(": ")[2]
