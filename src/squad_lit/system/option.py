"""Options: the kind and the range of an argument, stated once, in the signature of what takes it.

``@checked`` above a constructor compares each argument with its annotation before the constructor runs::

    @checked
    def __init__(self, *, steps: Count, momentum: Share = 0.9) -> None: ...

A violation is a ``ValueError`` that reads ``steps: expected at least 1, got 0``.
"""

from __future__ import annotations

import functools
import inspect
import json
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

# Above the upper bounds nothing has a use: such a number is a typing error, and would run for ever or end in infinity.
Count = Annotated[int, Field(ge=1, le=10**9)]
Natural = Annotated[int, Field(ge=0)]
Processes = Annotated[int, Field(ge=0, le=256)]
Side = Annotated[int, Field(ge=1, le=16384)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, le=1e6)]
Positive = Annotated[float, Field(gt=0, le=1e6)]

_STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True, allow_inf_nan=False)
_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "a text",
    "none_required": "null",
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
    "multiple_of": "a multiple of {multiple_of}",
    "too_short": "at least {min_length} values",
    "too_long": "at most {max_length} values",
    "missing": "more values",
    "literal_error": "{expected}",
    "list_type": "a list",
    "tuple_type": "a list",
    "sequence_str": "a list",
    "dict_type": "a dictionary",
    "mapping_type": "a dictionary",
    "dict_attributes_type": "a dictionary",
    "callable_type": "a dictionary with _target_",
    "dataclass_exact_type": "a dictionary with _target_",
}
_CLASSES = {"Sequence": "a list", "Mapping": "a dictionary", "Path": "a path", "Tensor": "a number"}

F = TypeVar("F", bound=Callable[..., None])


def checked(init: F) -> F:
    """Decorate a constructor, so that it refuses arguments that do not fit their annotations.

    Only plain values are compared: numbers, texts, None, and lists and dictionaries of them. Objects pass as they are.

    Example:
        >>> class Schedule:
        ...     @checked
        ...     def __init__(self, *, steps: Count) -> None: ...
        >>> Schedule(steps=0)
        Traceback (most recent call last):
        ValueError: steps: expected at least 1, got 0
    """

    @functools.wraps(init)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> None:
        check_arguments(init, inspect.signature(init).bind(self, *args, **kwargs).arguments)
        init(self, *args, **kwargs)

    return wrapper  # type: ignore[return-value]


def check_arguments(function: Callable[..., Any], arguments: Mapping[str, Any], *, plain: bool = False) -> None:
    """Compare some arguments of a function or constructor with its annotations.

    Args:
        function: The function; of a class its constructor.
        arguments: By parameter; names that the function does not have are left out.
        plain: Whether objects, which otherwise pass as they are, are refused.

    Raises:
        ValueError: An argument does not fit; the message begins with the parameter's name.
    """
    adapters = _adapters(function)
    for name, value in arguments.items():
        if plain and not _is_plain(value):
            raise ValueError(f"{name}: expected plain values, got {type(value).__name__} with others in it")
        if name in adapters and _is_plain(value):
            errors = _errors(adapters[name], value)
            if any(error["type"] == "tuple_type" for error in errors):  # YAML has no tuples: a list is one
                errors = [e for e in _errors(adapters[name], _as_tuples(value)) if e["type"] != "list_type"]
            if errors:
                takes_none = not _errors(adapters[name], None)
                raise ValueError(_sentence(name, value, errors, takes_none))


@functools.cache
def _adapters(function: Callable[..., Any]) -> dict[str, TypeAdapter[Any]]:
    """A validator of each parameter whose annotation can be understood."""
    found = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        try:
            kind = parameter.annotation
            if isinstance(kind, str):  # from __future__ import annotations
                alone = type("alone", (), {"__annotations__": {name: kind}})
                module = inspect.getmodule(inspect.unwrap(function))
                kind = typing.get_type_hints(alone, vars(module), include_extras=True)[name]
            if kind not in (parameter.empty, Any):
                found[name] = TypeAdapter[Any](Callable if is_dataclass(kind) else kind, config=_STRICT)  # type: ignore[arg-type]
        except Exception:  # names that are not there, and what pydantic raises of half a dozen types
            continue  # in a form that says nothing at run time: of another library, or a protocol
    return found


def _errors(adapter: TypeAdapter[Any], value: Any) -> Sequence[Any]:
    try:
        adapter.validate_python(value)
    except ValidationError as error:
        return error.errors()
    return []


def _as_tuples(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _as_tuples(inner) for key, inner in value.items()}
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_plain, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def _sentence(name: str, value: Any, errors: Sequence[Any], takes_none: bool) -> str:
    """What is wrong, at the place where it is; the alternatives of a union are joined."""
    places: dict[tuple[Any, ...], list[str]] = {}
    for error in errors:
        place, found = _locate(value, error["loc"])
        if error["loc"][-1:] == ("[key]",):
            place, found, expected = place[:-1], place[-1], "texts as names"
        else:
            expected = _expected(error)
        places.setdefault((*place, _shown(found)), []).append(expected)
    # The longest: where several alternatives were tried, the one that fits best.
    (*path, shown), all_expected = max(places.items(), key=lambda item: len(item[0]))
    if takes_none and shown == _shown(value):
        all_expected.append("null")
    option = name + "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
    return f"{option}: expected {' or '.join(dict.fromkeys(all_expected))}, got {shown}"


def _locate(value: Any, loc: Sequence[Any]) -> tuple[list[Any], Any]:
    """The keys that lead to what is wrong, and what is there; pydantic also names the branches of a union."""
    place: list[Any] = []
    for key in loc:
        keys = value if isinstance(value, Mapping) else range(len(value)) if isinstance(value, list | tuple) else ()
        if key in keys:
            place, value = [*place, key], value[key]
    return place, value


def _expected(error: Any) -> str:
    context = {k: f"{v:g}" if isinstance(v, float) else str(v) for k, v in error.get("ctx", {}).items()}
    if error["type"] == "is_instance_of":
        return _CLASSES.get(context["class"], "a dictionary with _target_")
    if error["type"] in _EXPECTED:
        return _EXPECTED[error["type"]].format(**context).replace("'", "")
    return re.sub("^Input should be ", "", str(error["msg"]))


def _shown(value: Any) -> str:
    """A value as it is typed, with the quotes that tell a text from a number."""
    return json.dumps(value) if value is None or isinstance(value, bool) else repr(value)
