"""The door: options are checked before anything is computed, and named as they are typed."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError
from pydantic import Field

from squad_lit.system.option import Count, check_arguments
from squad_lit.training.build import build, find

# Options that a checkpoint brings with it: with fit=false another value would have no effect.
OF_THE_MODEL = ("model", "quantizer", "discriminator", "backbone", "anomaly", "augmentation", "synthesis")
# A reference to another option; not what a resolver computes.
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
    trust: Sequence[str],
    threshold: Mapping[str, Annotated[float, Field(gt=0, lt=1)]],
) -> None:
    """What the options at the top take."""


def check(config: DictConfig) -> None:
    """Compare every option with the signature of what takes it, and the options with each other.

    Args:
        config: As composed from ``conf/train.yaml``.

    Raises:
        ValueError: An option of the wrong kind or range, one that nothing takes, or options that do not go together;
            names the option as it is typed.
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
    """Refuse options of the model that would have no effect: where a trained one is tested, and of another model.

    Args:
        config: As composed.
        overrides: What was typed.

    Raises:
        ValueError: Names them.
    """
    places = {o: o.lstrip("+~").split("=")[0].split("@")[0] for o in overrides}
    of_model = [o for o, place in places.items() if place.partition(".")[0] in OF_THE_MODEL]
    if not config.fit and of_model:
        raise ValueError(
            f"fit=false tests the checkpoint as it is, so {' '.join(of_model)} would have no effect: leave it out, or "
            f"train a model with it"
        )
    used = set(_used(config))
    unused = [o for o in of_model if not any(_overlap(_contents(places[o]), place) for place in used)]
    if unused:
        name = config.model._target_.rpartition(".")[2]
        raise ValueError(f"{' '.join(unused)} would have no effect: {name} has no such option")


def model_content(config: DictConfig) -> dict[str, Any]:
    """The plain configuration of the model: what its class takes, without groups that were taken away."""
    content: dict[str, Any] = OmegaConf.to_container(config.model, resolve=True)  # type: ignore[assignment]
    taken = {key: value for key, value in content.items() if key in _taken(config)}
    return taken | ({"groups": _without_null(taken["groups"])} if "groups" in taken else {})


def _without_null(groups: Any) -> Any:
    """The groups that are left: Hydra merges dictionaries, so null is how the command line takes one away."""
    if not isinstance(groups, dict):
        return groups
    return {name: layers for name, layers in groups.items() if layers is not None}


def make(config: DictConfig, place: str, **more: Any) -> Any:
    """Make what a part of the configuration names.

    Args:
        config: The whole.
        place: Such as ``dataset``.
        more: Arguments that replace or join those of the configuration.

    Raises:
        ValueError: As of :func:`squad_lit.training.build.build`; names the option as it is typed.
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
        refers = isinstance(node, DictConfig) and key in node and OmegaConf.is_interpolation(node, key)
        other = _REFERENCE.fullmatch(str(_raw(node)[key])) if refers else None
        path = other[1].split(".") if other else [*path, part]
        node = OmegaConf.select(config, ".".join(path)) if "[" not in part else None
    return ".".join(path)


def _check_node(config: DictConfig, place: str, root: DictConfig) -> None:
    """Check a part and what is below it; what refers to another part is checked there."""
    made = find(config["_target_"], f"{place}._target_") if "_target_" in config else None
    for key in map(str, config):
        name = f"{place}.{key}".lstrip(".")
        if key in _SPECIAL or OmegaConf.is_missing(config, key) or (place == "" and key in ("hydra", "output")):
            continue
        refers = OmegaConf.is_interpolation(config, key)
        try:
            value = config[key]
        except InterpolationResolutionError:  # what only Hydra knows
            continue
        if made is not None:
            _check_argument(made, key, value, typed(root, name) if refers else name)
        if isinstance(value, DictConfig) and not refers:
            _check_node(value, name, root)


def _check_argument(made: Callable[..., Any], key: str, value: Any, name: str) -> None:
    takers = _takers(made)
    taker = next((function for function, parameters in takers if key in parameters), None)
    if taker is None:
        if name.startswith("model.") or not takers:
            return  # model.fsq is where the command line finds the quantiser
        known = [parameter for _, parameters in takers for parameter in parameters]
        close = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {name.rpartition('.')[0]}.{close[0]}?" if close else f"known: {', '.join(known)}"
        raise ValueError(f"{name}: {made.__name__} has no such option; {hint}")
    plain = _without_null(_plain(value)) if name == "model.groups" else _plain(value)
    if not _has_part(plain):
        try:
            check_arguments(taker, {key: plain})
        except ValueError as error:
            raise ValueError(name + str(error)[len(key) :]) from None


def _takers(made: Callable[..., Any]) -> list[tuple[Callable[..., Any], Sequence[str]]]:
    """A function with its parameters; of a class its constructor and, as far as they get the rest, its bases'.

    Empty where the last of them takes whatever it is given.
    """
    bases = made.__mro__ if isinstance(made, type) else ()
    found: list[tuple[Callable[..., Any], Sequence[str]]] = []
    for function in [vars(base)["__init__"] for base in bases if "__init__" in vars(base)] or [made]:
        parameters = inspect.signature(function).parameters
        named = [n for n, p in parameters.items() if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
        found.append((function, [name for name in named if name != "self"]))
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            return found
    return []


def _raw(node: DictConfig) -> dict[str, Any]:
    """Without the references resolved."""
    return OmegaConf.to_container(node)  # type: ignore[return-value]


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _has_part(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "_target_" in value or any(map(_has_part, value.values()))
    return isinstance(value, list) and any(map(_has_part, value))


def _taken(config: DictConfig) -> list[str]:
    """Names under ``model`` that reach its class."""
    takers = _takers(find(config.model._target_, "model._target_"))
    if not takers:
        return [str(key) for key in config.model]
    return [*_SPECIAL, *(name for _, names in takers for name in names)]


def _used(config: DictConfig) -> Iterator[str]:
    """Places of what the model is made from, those that it refers to included."""
    waiting = [f"model.{key}" for key in _taken(config)]
    seen: set[str] = set()
    while waiting:
        place = waiting.pop()
        if place in seen:
            continue
        seen.add(place)
        yield place
        parent = OmegaConf.select(config, place.rpartition(".")[0]) if "." in place else config
        key = place.rpartition(".")[2]
        if isinstance(parent, DictConfig) and key in parent:
            waiting += _REFERENCE.findall(str(_raw(parent)[key]))


def _contents(place: str) -> str:
    """Where the contents of a group lie: that of the quantiser is a part of the generator."""
    return "model.generator.quantizer" if place == "quantizer" else place


def _overlap(a: str, b: str) -> bool:
    return f"{a}.".startswith(f"{b}.") or f"{b}.".startswith(f"{a}.")
