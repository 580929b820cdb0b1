"""The model of a run: a new one, that of a checkpoint to test, or one that goes on training."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from squad_lit.run.job import WORKERS, differences
from squad_lit.run.option import MOST_RATE, make, model_content

if TYPE_CHECKING:
    from squad_lit.training.detector import Detector

log = logging.getLogger(__name__)


def make_module(config: DictConfig) -> Detector:
    """The model of the configuration, or of the checkpoint to test or continue."""
    from squad_lit.training import checkpoint

    if config.checkpoint:
        with _named(f"checkpoint={config.checkpoint}"):
            return checkpoint.load(os.path.abspath(config.checkpoint), trust=config.trust)
    options = {"model": model_content(config), "dataset": _options_of_the_data(config)}
    if config.resume:
        path = os.path.abspath(config.resume)
        with _named(f"resume={config.resume}"):
            content = checkpoint.read(path)
        before = checkpoint.State.load(content)
        if different := sorted({*differences({"model": before.config, "dataset": before.data}, options)} - {WORKERS}):
            raise ValueError(
                f"resume={config.resume}: this checkpoint was made with other values of: {', '.join(different)}; "
                f"continue with the configuration in the config.yaml beside it"
            )
    module: Detector = make(config, "model")
    module.state.config, module.state.data = options["model"], options["dataset"]
    try:  # now, and not when the training starts
        made = module.configure_optimizers()
        _check_rates(made)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(f"model.optimizer or model.scheduler: {error}") from error
    if config.resume:
        module.on_load_checkpoint(content)
        _check_states(module, made, content, config.resume)
        if module.state.step >= module.steps:
            log.warning("%s has finished its %d steps; it is tested as it is", config.resume, module.steps)
            return checkpoint.load(path, trust=packages(options["model"]))  # the user's own configuration names them
    return module


@contextlib.contextmanager
def _named(option: str) -> Iterator[None]:
    """Begin errors of a file with the option that names it."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise ValueError(f"{option}: {error}") from error


def _check_states(module: Detector, made: Any, content: dict[str, Any], path: str) -> None:
    """Load the parts of a checkpoint that a training continues from once here, where an error can name the file."""
    optimizers, schedulers = made if isinstance(made, tuple) else (made, [])
    try:
        module.load_state_dict(content["state_dict"])
        for key, parts in (("optimizer_states", optimizers), ("lr_schedulers", schedulers)):
            for part, state in zip(parts, content[key], strict=True):
                part.load_state_dict(state)
        _ = content["loops"]["fit_loop"]
    except Exception as error:  # torch raises half a dozen types
        raise ValueError(
            f"resume={path}: this checkpoint does not continue a training: it is damaged ({error})"
        ) from error


def _check_rates(made: Any) -> None:
    """Refuse numbers of the optimisers, and of schedules as far as they are kept there, that nothing learns by."""
    optimizers = made[0] if isinstance(made, tuple) else made
    for group in [group for optimizer in optimizers for group in getattr(optimizer, "param_groups", ())]:
        for name in ("lr", "initial_lr", "max_lr", "min_lr", "weight_decay"):
            if not 0 <= (value := group.get(name, 0)) <= MOST_RATE:
                raise ValueError(f"expected 0 to {MOST_RATE} for {name}, got {value:g}")


def packages(content: Any) -> tuple[str, ...]:
    """The packages whose classes a plain configuration names."""
    if isinstance(content, list):
        return tuple(name for value in content for name in packages(value))
    if not isinstance(content, dict):
        return ()
    own = (content["_target_"].partition(".")[0],) if "_target_" in content else ()
    return tuple(dict.fromkeys((*own, *packages(list(content.values())))))


def _options_of_the_data(config: DictConfig) -> dict[str, Any]:
    """The options of the data set that determine the images of a training and their batches."""
    plain: dict[str, Any] = OmegaConf.to_container(config.dataset, resolve=True)  # type: ignore[assignment]
    machine = ("root", "num_workers", "cache", "cache_folder", "skip_unreadable")  # what is decided is in the digests
    return {key: value for key, value in plain.items() if key not in machine}
