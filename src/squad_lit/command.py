"""What the commands share: options checked before anything is computed, and errors as sentences."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

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
    rate = OmegaConf.select(config, "model.optimizer.lr")
    if type(rate) not in (int, float) or rate <= 0:
        raise ValueError(f"model.optimizer.lr: expected a number above 0, got {rate}")
    if "_target_" not in config.dataset:
        raise ValueError("dataset=default is only what the others share; choose one of them")


def check_overrides(config: DictConfig, overrides: list[str]) -> None:
    """Refuse options of the model where a trained one is tested.

    Raises:
        ValueError: Names them.
    """
    given = [o for o in overrides if o.lstrip("+~").split("=")[0].split(".")[0].split("@")[0] in OF_THE_MODEL]
    if not config.fit and given:
        raise ValueError(
            f"fit=false tests the checkpoint as it is, so {' '.join(given)} would have no effect: leave it out, or "
            f"train a model with it"
        )


def instantiate(node: DictConfig, **more: Any) -> Any:
    """Hydra's ``instantiate``, but an error of the object's own constructor comes as it is."""
    try:
        return hydra.utils.instantiate(node, _convert_="all", **more)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, USER_ERRORS):
            raise cause from None
        if type(cause).__name__ == "MisconfigurationException":  # Lightning's, which would have to be imported for it
            raise ValueError(f"trainer: {cause} On a machine without a GPU use trainer=cpu") from None
        raise


@contextlib.contextmanager
def exit_with_sentence() -> Iterator[None]:
    """Turn what a user can mend into a sentence and exit status 1, Ctrl-C into 130.

    In a sweep an error goes on to Hydra, which counts the job as failed; with HYDRA_FULL_ERROR=1 all goes on.
    """
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except USER_ERRORS as error:
        if HydraConfig.get().mode == RunMode.MULTIRUN or os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        log.debug("stack trace", exc_info=True)
        print(f"error: {error}\n(HYDRA_FULL_ERROR=1 shows where)", file=sys.stderr)
        sys.exit(1)
