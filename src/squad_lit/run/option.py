"""Options of the wrong kind, refused by the name that is typed, before anything is computed.

What an option takes is written once, as the annotation of the constructor that gets it. Its range is the constructor's
own check.
"""

from __future__ import annotations

import json
import math
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

# Whose classes say by their annotations what they take.
_ANNOTATED = ("squad_lit.", "torch.optim.")
# One, several, and how they are typed in a list.
_WORDS = {
    int: ("a whole number", "whole numbers", "4, 8"),
    float: ("a number", "numbers", "0.5, 1.0"),
    bool: ("true or false", "true or false", "true, false"),
    str: ("a text", "texts", "a, b"),
    types.NoneType: ("null", "null", "null"),
}
# Hydra merges dictionaries, so null is how the command line takes a group away.
_GROUPS = "model.groups"
# To another option; not to what a resolver computes.
_REFERENCE = re.compile(r"\$\{(?:oc\.select:)?([\w.]+)\}")


def check_kinds(config: DictConfig, name: str = "") -> None:
    """Compare the values of a configuration, as composed, with the annotations of the classes that it names.

    What refers to another option is named as that one. The data set is left out: it says more about its options than
    their kind.

    Args:
        config: The whole, or a part of it.
        name: Of the part, as it is typed.

    Raises:
        ValueError: Names the option, what was expected, and what came.

    Example:
        >>> check_kinds(
        ...     OmegaConf.create({"model": {"_target_": "squad_lit.network.quantizer.NoQuantizer", "dim": "x"}})
        ... )
        Traceback (most recent call last):
        ValueError: model.dim: expected a whole number, got 'x'
    """
    kinds: dict[str, Any] = {}
    if str(config.get("_target_")).startswith(_ANNOTATED):
        made: Any = hydra.utils.get_class(config["_target_"])
        kinds = typing.get_type_hints(made.__init__)
    typed: dict[Any, Any] = OmegaConf.to_container(config)  # type: ignore[assignment]
    for key in typed:
        option, other = f"{name}.{key}" if name else str(key), None
        if option == "dataset" or OmegaConf.is_missing(config, key):
            continue
        if OmegaConf.is_interpolation(config, key) and (other := _REFERENCE.fullmatch(typed[key])) is None:
            continue
        value = config[key]
        if key in kinds:
            plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
            _check(option if other is None else other[1], plain, kinds[key])
        if other is None and isinstance(value, DictConfig):
            check_kinds(value, option)


def _check(name: str, value: Any, kind: Any) -> None:
    if typing.get_origin(kind) is Mapping and isinstance(value, dict):
        for key, item in value.items():
            if type(key) is not str:
                raise ValueError(f"{name}: expected texts as names, got {_shown(key)}")
            if not (name == _GROUPS and item is None):
                _check(f"{name}.{key}", item, typing.get_args(kind)[1])
    elif not _fits(value, kind):
        raise ValueError(f"{name}: expected {_in_words(kind)}, got {_shown(value)}")


def _fits(value: Any, kind: Any) -> bool:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(value, str) and value.startswith("${"):  # in a list or dictionary
        return True
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, argument) for argument in arguments)
    if origin in (Sequence, list):
        return isinstance(value, list) and all(_fits(item, arguments[0]) for item in value)
    if origin is typing.Literal:
        return value in arguments
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    if kind in _WORDS:
        return type(value) is kind
    if isinstance(kind, type) or origin in (Callable, Mapping):  # an object, or a function that makes it
        return isinstance(value, dict) and (origin is Mapping or "_target_" in value)
    return True


def _in_words(kind: Any) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_in_words(argument) for argument in arguments)
    if origin is typing.Literal:
        return " or ".join(map(str, arguments))
    if origin in (Sequence, list):
        _, several, typed = _WORDS[arguments[0]]
        return f"a list of {several} such as [{typed}]"
    if origin is Mapping:
        return f"{_in_words(arguments[1])} for each name"
    return _WORDS[kind][0] if kind in _WORDS else "a dictionary with _target_"


def _shown(value: Any) -> str:
    """A value as it is typed, but with quotes that tell a text from a number."""
    return json.dumps(value) if value is None or isinstance(value, bool) else repr(value)
