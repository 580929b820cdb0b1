"""Makes objects from a plain configuration: a user's own names any class, a file from elsewhere only trusted ones."""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any

from squad_lit.system.package import explain

# Packages whose classes a file may name. Nothing in them reads a file or runs a command when it is constructed.
TRUSTED = ("squad_lit.network", "squad_lit.synthesis", "squad_lit.training", "torch.optim")
ENTRY_POINT = "squad_lit.trust"
"""Group of entry points by which an installed package says that files may name its classes."""


def build(config: Any, *, name: Callable[[str], str] = str, **more: Any) -> Any:
    """Make the objects that a user's own configuration names.

    Args:
        config: Numbers, texts, lists and dictionaries. A dictionary with ``_target_`` becomes what that class or
            function returns or, with ``_partial_``, a function that calls it.
        name: Turns the place of an option in ``config`` (``model.generator.quantizer``) into what the user typed.
        more: Further arguments of the outermost object.

    Raises:
        ValueError: A name that cannot be imported, or arguments that its class refuses; names the option.
    """
    return _make(config, "", find, name, more)


def rebuild(config: Any, trust: Sequence[str] = ()) -> Any:
    """Make the objects that a file names, as :func:`build` does, but only of trusted classes.

    Args:
        config: As in :func:`build`.
        trust: Packages or modules whose classes may be made beside those of squad_lit and ``torch.optim``, and of
            installed packages that have an entry point in the group ``squad_lit.trust``.

    Raises:
        ValueError: A class that is not trusted, or that is not there.
    """
    trusted = (*TRUSTED, *trust, *(point.value for point in entry_points(group=ENTRY_POINT)))
    return _make(config, "", functools.partial(_find_trusted, trusted=trusted), str, {})


def _make(
    config: Any, place: str, find: Callable[[str, str], Any], name: Callable[[str], str], more: dict[str, Any]
) -> Any:
    if isinstance(config, list):
        return [_make(value, f"{place}[{i}]", find, name, {}) for i, value in enumerate(config)]
    if not isinstance(config, Mapping):
        return config
    arguments = {
        key: _make(value, f"{place}.{key}".lstrip("."), find, name, {})
        for key, value in config.items()
        if key not in ("_target_", "_partial_")
    }
    if "_target_" not in config:
        return arguments
    option = name(place)
    made = find(str(config["_target_"]), f"{option}._target_".lstrip("."))
    call = functools.partial(_call, made, option, frozenset(arguments), **(arguments | more))
    return call if config.get("_partial_") else call()


def _call(made: Callable[..., Any], option: str, configured: frozenset[str], /, *args: Any, **kwargs: Any) -> Any:
    """Call a class; what it refuses is named as the option that was typed.

    What comes from the caller and not from the configuration is an option of the caller, who names it.
    """
    try:
        return made(*args, **kwargs)
    except (ValueError, TypeError, OSError) as error:
        text = str(error)
        parameter = re.match(r"(\w+)[^:]*: ", text)
        of_caller = parameter and parameter[1] in kwargs and parameter[1] not in configured
        options = configured | inspect.signature(made).parameters.keys()  # a subclass may take the rest as **options
        if parameter and parameter[1] in options and not of_caller:
            raise _named(error, f"{option}.{text}".lstrip("."))  # noqa: B904  the same error
        if isinstance(error, TypeError) and "argument" in text:
            text = text.partition(") ")[2] or text
            raise _named(ValueError(), f"{option or getattr(made, '__name__', made)}: {text}") from error
        raise
    except Exception as error:
        if type(error).__name__ == "MisconfigurationException":  # Lightning's: devices that are not there, mostly
            raise _named(ValueError(), f"{option}: {error} On a machine without a GPU use trainer=cpu") from None
        raise


def _named(error: Exception, text: str) -> Exception:
    """The error with this text, unless an object inside has named its option already."""
    if not getattr(error, "is_named", False):
        error.args = (text,)
        error.is_named = True  # type: ignore[attr-defined]
    return error


def find(target: str, option: str) -> Any:
    """Import what a dotted name means.

    Args:
        target: Such as ``my_parts.Sign``.
        option: Names it in an error.

    Raises:
        ValueError: There is no such module, or it has no such name.
    """
    module, _, name = str(target).rpartition(".")
    try:
        found = importlib.import_module(module or name)
    except ModuleNotFoundError as error:
        reason = explain(error)
        if reason == str(error):  # a package of the user's own
            reason += "; install it, or start in the folder that has it"
        raise ValueError(f"{option}: cannot import {target!r}: {reason}") from error
    if not hasattr(found, name):
        close = difflib.get_close_matches(name, dir(found), n=1)
        hint = f"; did you mean {module}.{close[0]}?" if close else ""
        raise ValueError(f"{option}: {module} has no {name!r}{hint}")
    return getattr(found, name)


def _find_trusted(target: str, option: str, trusted: Sequence[str]) -> Any:
    def is_below(name: str) -> bool:
        return any(f"{name}.".startswith(f"{package}.") for package in trusted)

    package = target.partition(".")[0]
    if not is_below(target):
        raise ValueError(
            f"the file names {target!r}, and only classes of {', '.join(trusted)} are made from a file; if you trust "
            f"the file and this package, say so: --trust {package} (of train and check: trust=[{package}])"
        )
    made = find(target, option)
    # What a module has merely imported (pathlib.Path, functools.partial, tqdm) is not its own.
    if not isinstance(made, type) or not is_below(made.__module__):
        raise ValueError(f"the file names {target!r}, which is no class of that module")
    return made
