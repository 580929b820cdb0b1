"""Check all options before anything is computed; a message names an option as it is typed."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError
from pydantic import Field

from squad_lit.system.option import Count, check_arguments
from squad_lit.training.build import build, find

# Options that a checkpoint contains. With fit=false another value would have no effect.
OF_THE_MODEL = ("model", "quantizer", "discriminator", "backbone", "anomaly", "augmentation", "synthesis")
# A reference to another option, but not a value that a resolver computes.
_REFERENCE = re.compile(r"\$\{(?:oc\.select:)?([\w.]+)\}")
_SPECIAL = ("_target_", "_partial_")


def _settings(
    *,
    seed: Annotated[int, Field(ge=0, lt=2**32)],
    threads: Count | None,
    fit: bool,
    checkpoint: str | None,
    resume: str | None,
    objective: str,
    export: Literal["onnx", "openvino", "torch"] | None,
    trust: Sequence[str],
    threshold: Mapping[str, Annotated[float, Field(gt=0, lt=1)]],
) -> None:
    """The kinds and ranges of the top-level options."""


def check(config: DictConfig) -> None:
    """Compare every option with the signature of what takes it, and the options with each other.

    Args:
        config: As composed from ``conf/train.yaml``.

    Raises:
        ValueError: An option has the wrong kind or range, or nothing takes it, or two options contradict each other.
    """
    names = inspect.signature(_settings).parameters
    check_arguments(_settings, {name: _plain(config[name]) for name in names})
    if config.fit and config.checkpoint:
        raise ValueError("checkpoint=PATH tests a trained model: add fit=false; to go on training it, use resume=PATH")
    if not config.fit and not config.checkpoint:
        raise ValueError("fit=false needs checkpoint=PATH: there is no model to test")
    if "_target_" not in config.dataset:
        raise ValueError("dataset=default is only what the others share; choose one of them")
    _check_node(config, "", config)


def check_effect(config: DictConfig, overrides: Sequence[str]) -> None:
    """Refuse options of the model without an effect: when a trained model is tested, or if the model has none such.

    Args:
        config: The composed configuration.
        overrides: The overrides as they were typed.

    Raises:
        ValueError: There are such options; the message names them.
    """
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
    takers = _takers(find(config.model._target_, "model._target_"))
    return [str(key) for key in config.model] if takers is None else [*_SPECIAL, *takers]


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
        if key in _SPECIAL or OmegaConf.is_missing(config, key) or (place == "" and key in ("hydra", "output")):
            continue
        refers = OmegaConf.is_interpolation(config, key)
        try:
            value = config[key]
        except InterpolationResolutionError:  # only Hydra knows the value
            continue
        if made is not None:
            _check_argument(made, key, value, typed(root, name) if refers else name)
        if isinstance(value, DictConfig) and not refers:
            _check_node(value, name, root)


def _check_argument(made: Callable[..., Any], key: str, value: Any, name: str) -> None:
    takers = _takers(made)
    if takers is None or (key not in takers and name.startswith("model.")):
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
            raise ValueError(name + str(error)[len(key) :]) from None


def _takers(made: Callable[..., Any]) -> dict[str, Callable[..., Any]] | None:
    """The function that takes each parameter; for a class its constructor, or that of a base which gets the rest.

    None if the last of them takes any parameter.
    """
    bases = made.__mro__ if isinstance(made, type) else ()
    found: dict[str, Callable[..., Any]] = {}
    for function in [vars(base)["__init__"] for base in bases if "__init__" in vars(base)] or [made]:
        parameters = inspect.signature(function).parameters
        named = [n for n, p in parameters.items() if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
        found |= {name: function for name in named if name not in (*found, "self")}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            return found
    return None


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _has_part(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "_target_" in value or any(map(_has_part, value.values()))
    return isinstance(value, list) and any(map(_has_part, value))
