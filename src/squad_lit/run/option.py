"""Check all options before anything is computed; a message names an option as it is typed."""

from __future__ import annotations

import difflib
import inspect
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, InterpolationResolutionError
from pydantic import Field

from squad_lit.run.config import CONF
from squad_lit.system.option import Count, check_arguments
from squad_lit.training.build import build, find

# Options that a checkpoint contains. With fit=false another value would have no effect.
OF_THE_MODEL = ("model", "quantizer", "discriminator", "backbone", "anomaly", "augmentation", "synthesis")
# A reference to another option, but not a value that a resolver computes.
_REFERENCE = re.compile(r"\$\{(?:oc\.select:)?([\w.]+)\}")
_SPECIAL = ("_target_", "_partial_")
# What every configuration has.
_PARTS = ("dataset", "model", "trainer", "callback", "logger", "metric", "threshold")
_MOST_DEVICES = 1024  # of a machine; Lightning makes a list of them


def _settings(
    *,
    seed: Annotated[int, Field(ge=0, lt=2**32)],
    threads: Annotated[int, Field(ge=1, le=1024)] | None,
    fit: bool,
    checkpoint: str | None,
    resume: str | None,
    objective: str,
    export: Literal["onnx", "openvino", "torch"] | None,
    trust: Sequence[str],
    threshold: Mapping[str, Annotated[float, Field(gt=0, lt=1)]],
    sweep: Mapping[str, Count | None],
) -> None:
    """The kinds and ranges of the top-level options."""


def _trainer(
    *,
    max_epochs: Count | Literal[-1] | None,
    max_steps: Count | Literal[-1],
    num_sanity_val_steps: Annotated[int, Field(ge=-1)],
    log_every_n_steps: Count | None,
    check_val_every_n_epoch: Literal[1],
    fast_dev_run: Literal[False],
    overfit_batches: Literal[0],
    barebones: Literal[False],
) -> None:
    """Narrower ranges of options of the trainer, whose other values leave no model, or one that is not calibrated."""


MOST_RATE = 1000
"""Above it no learning rate and no weight decay has a use."""
_Rate = Annotated[float, Field(ge=0, le=MOST_RATE)]


def _optimizer(*, lr: _Rate, weight_decay: _Rate) -> None:
    """Ranges of what every optimiser takes."""


def _scheduler(*, max_lr: _Rate | Sequence[_Rate]) -> None:
    """The range of what a schedule takes as a learning rate."""


_NARROWER: Mapping[str, Callable[..., None]] = {
    "trainer": _trainer,
    "model.optimizer": _optimizer,
    "model.scheduler": _scheduler,
}


def check(config: DictConfig, *, here: bool = True) -> None:
    """Compare every option with the signature of what takes it, and the options with each other.

    Args:
        config: As composed from ``conf/train.yaml``.
        here: Whether it is this machine that trains, whose CPU cores limit the number of processes.

    Raises:
        ValueError: An option has the wrong kind or range, or nothing takes it, or two options contradict each other.
    """
    try:
        _check(config, here)
    except InterpolationKeyError as error:
        name = str(error).partition("'")[2].partition("'")[0]
        raise ValueError(f"{error.full_key}: there is no option {name}, which it refers to{_choices(name)}") from None


def _check(config: DictConfig, here: bool) -> None:
    for name in _PARTS:
        if not isinstance(value := OmegaConf.select(config, name), DictConfig):
            raise ValueError(f"{name}: expected a dictionary, got {_shown(value)}{_choices(name)}")
    names = inspect.signature(_settings).parameters
    check_arguments(_settings, {name: _plain(OmegaConf.select(config, name)) for name in names})
    _check_names(config)
    if config.fit and config.checkpoint:
        raise ValueError("checkpoint=PATH tests a trained model: add fit=false; to go on training it, use resume=PATH")
    if not config.fit and not config.checkpoint:
        raise ValueError("fit=false needs checkpoint=PATH: there is no model to test")
    if "_target_" not in config.dataset:
        raise ValueError("dataset=default is only what the others share; choose one of them")
    _check_node(config, "", config)
    for place, function in _NARROWER.items():
        if isinstance(node := OmegaConf.select(config, place), DictConfig):
            try:
                check_arguments(function, _plain(node))
            except ValueError as error:
                raise ValueError(f"{place}.{error}") from None
    _check_devices(_plain(config.trainer), max(2, cpu_cores()) if here else _MOST_DEVICES)


def _check_names(config: DictConfig) -> None:
    """Refuse a top-level name that nothing reads, and a logger or callback that is none."""
    groups = {path.name for path in CONF.iterdir() if path.is_dir()}
    known = {*inspect.signature(_settings).parameters, *groups, *_PARTS, "output"}
    raw = str(OmegaConf.to_container(config))
    for name in sorted({str(key) for key in config} - known):
        if not re.search(rf"\$\{{[^}}]*\b{re.escape(name)}\b", raw):  # an own file may share a value by it
            close = difflib.get_close_matches(name, known, n=1)
            raise ValueError(f"{name}: there is no such option" + (f"; did you mean {close[0]}?" if close else ""))
    for group in ("callback", "logger"):
        for name in config[group]:
            part = OmegaConf.select(config[group], name)
            if part is not None and not (isinstance(part, DictConfig) and "_target_" in part):
                raise ValueError(f"{group}.{name}: expected a dictionary with _target_ or null, got {_shown(part)}")


def _check_devices(trainer: Mapping[str, Any], most: int) -> None:
    """Refuse numbers of devices and nodes; ``most`` processes share a CPU: two show on any that several work."""
    devices = trainer.get("devices")
    on_cpu = trainer.get("accelerator") == "cpu" and devices not in ("auto", None)
    if on_cpu and not (str(devices).isdecimal() and 1 <= int(str(devices)) <= most):
        raise ValueError(
            f"trainer.devices: expected 1 to {most} processes for the CPU cores of a machine, got {devices!r}"
        )
    if type(devices) is int and devices > _MOST_DEVICES:
        raise ValueError(f"trainer.devices: expected at most {_MOST_DEVICES}, got {devices}")
    nodes = trainer.get("num_nodes", 1)
    if type(nodes) is not int or not 1 <= nodes <= _MOST_DEVICES:
        raise ValueError(f"trainer.num_nodes: expected a number from 1 to {_MOST_DEVICES}, got {nodes!r}")


def cpu_cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_effect(config: DictConfig, overrides: Sequence[str]) -> None:
    """Refuse options of the model without an effect: when a trained model is tested, or if the model has none such.

    Args:
        config: The composed configuration.
        overrides: The overrides as they were typed.

    Raises:
        ValueError: There are such options; the message names them.
    """
    if not isinstance(config.model, DictConfig) or "_target_" not in config.model:
        raise ValueError("model: there is none; model=NAME chooses one, such as hybrid")
    places = {o: o.lstrip("+~").split("=")[0].split("@")[0] for o in overrides}
    of_model = {o: place for o, place in places.items() if place.partition(".")[0] in OF_THE_MODEL}
    if not config.fit and of_model:
        raise ValueError(
            f"fit=false tests the checkpoint as it is, so {' '.join(of_model)} would have no effect: leave it out, or "
            f"train a model with it"
        )
    inside = {"quantizer": "model.generator.quantizer"}  # the place of this group's content
    used = [f"{place}." for place in _used(config)]
    unused = []
    for override, group in of_model.items():
        place = f"{inside.get(group, group)}."
        if not any(place.startswith(other) or other.startswith(place) for other in used):
            unused.append(override)
    if unused:
        name = config.model._target_.rpartition(".")[2]
        raise ValueError(f"{' '.join(unused)} would have no effect: {name} has no such option")


def _used(config: DictConfig) -> set[str]:
    """Places of the options that the model is made from, including those that they refer to."""
    raw = OmegaConf.to_container(config)
    used = {f"model.{name}" for name in _taken(config)}

    def references(place: str) -> set[str]:
        node: Any = raw
        for key in place.split("."):
            node = node.get(key) if isinstance(node, dict) else node
        return set(_REFERENCE.findall(str(node)))

    while more := set[str]().union(*map(references, used)) - used:
        used |= more
    return used


def _taken(config: DictConfig) -> Collection[str]:
    """Names under ``model`` that reach its class."""
    takers, takes_any = _takers(find(config.model._target_, "model._target_"))
    return [str(key) for key in config.model] if takes_any else [*_SPECIAL, *takers]


def model_content(config: DictConfig) -> dict[str, Any]:
    """The plain configuration of the model: the options that its class takes, without removed groups."""
    content: dict[str, Any] = OmegaConf.to_container(config.model, resolve=True)  # type: ignore[assignment]
    names = _taken(config)
    taken = {key: value for key, value in content.items() if key in names}
    return taken | ({"groups": _without_null(taken["groups"])} if "groups" in taken else {})


def _without_null(groups: Any) -> Any:
    """The remaining groups. Hydra merges dictionaries, so the command line removes a group by null."""
    if not isinstance(groups, dict):
        return groups
    return {name: layers for name, layers in groups.items() if layers is not None}


def make(config: DictConfig, place: str, **more: Any) -> Any:
    """Make the object that a part of the configuration describes.

    Args:
        config: The whole configuration.
        place: The place of the part, such as ``dataset``.
        more: Arguments that replace or join those of the configuration.

    Raises:
        ValueError: See :func:`squad_lit.training.build.build`; the message names the option as it is typed.
    """
    node = model_content(config) if place == "model" else _plain(OmegaConf.select(config, place))
    return build(node, name=lambda inner: typed(config, f"{place}.{inner}".rstrip(".")), **more)


def typed(config: DictConfig, place: str) -> str:
    """The name by which an option is typed: ``model.backbone.name`` is ``backbone.name``.

    Example:
        >>> typed(OmegaConf.create({"model": {"fsq": {"dim": 4}, "q": "${model.fsq}"}}), "model.q.dim")
        'model.fsq.dim'
    """
    path: list[str] = []
    node: Any = config
    for part in place.split("."):
        key = part.partition("[")[0]
        raw: Any = OmegaConf.to_container(node) if isinstance(node, DictConfig) else {}
        other = _REFERENCE.fullmatch(str(raw.get(key)))
        path = other[1].split(".") if other else [*path, part]
        node = OmegaConf.select(config, ".".join(path)) if "[" not in part else None
    return ".".join(path)


def _check_node(config: DictConfig, place: str, root: DictConfig) -> None:
    """Check a part and everything below it; a reference is checked at the place that it refers to."""
    made = find(config["_target_"], f"{place}._target_") if "_target_" in config else None
    for key in map(str, config):
        name = f"{place}.{key}".lstrip(".")
        if key in _SPECIAL or (place == "" and key in ("hydra", "output")):
            continue
        if OmegaConf.is_missing(config, key):
            raise ValueError(f"{name}: expected a value, which has no default{_choices(key)}")
        refers = OmegaConf.is_interpolation(config, key)
        try:
            value = config[key]
        except InterpolationKeyError:
            raise
        except InterpolationResolutionError:  # only Hydra knows the value
            continue
        if made is not None:
            _check_argument(made, key, value, typed(root, name) if refers else name)
        if isinstance(value, DictConfig) and not refers:
            _check_node(value, name, root)


def _check_argument(made: Callable[..., Any], key: str, value: Any, name: str) -> None:
    takers, takes_any = _takers(made)
    if key not in takers and (takes_any or name.startswith("model.")):
        return  # model.fsq is where the command line finds the quantiser
    if key not in takers:
        close = difflib.get_close_matches(key, takers, n=1)
        hint = f"did you mean {name.rpartition('.')[0]}.{close[0]}?" if close else f"known: {', '.join(takers)}"
        raise ValueError(f"{name}: {made.__name__} has no such option; {hint}")
    plain = _without_null(_plain(value)) if name == "model.groups" else _plain(value)
    if not _has_part(plain):
        try:
            check_arguments(takers[key], {key: plain})
        except ValueError as error:
            chosen = _choices(key) if isinstance(value, str) else ""
            raise ValueError(name + str(error)[len(key) :] + chosen) from None


def _takers(made: Callable[..., Any]) -> tuple[dict[str, Callable[..., Any]], bool]:
    """The function that takes each parameter; for a class its constructor, or that of a base which gets the rest.

    And whether the last of them takes any further parameter.
    """
    bases = made.__mro__ if isinstance(made, type) else ()
    found: dict[str, Callable[..., Any]] = {}
    for function in [vars(base)["__init__"] for base in bases if "__init__" in vars(base)] or [made]:
        parameters = inspect.signature(function).parameters
        named = [n for n, p in parameters.items() if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
        found |= {name: function for name in named if name not in (*found, "self")}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            return found, False
    return found, True


def _choices(group: str) -> str:
    """How a group of the configuration is chosen; empty if there is no such group."""
    names = sorted(path.stem for path in (CONF / group).glob("*.yaml")) if group else []
    return f"; {group}=NAME chooses one of {', '.join(names)}" if names else ""


def _shown(value: Any) -> str:
    return "null" if value is None else repr(_plain(value))


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _has_part(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "_target_" in value or any(map(_has_part, value.values()))
    return isinstance(value, list) and any(map(_has_part, value))
