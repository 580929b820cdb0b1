"""The place of the configuration, its composition, and the resolvers that its files use."""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib.util
import logging
import logging.config
import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import setup_globals
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from squad_lit.run.reader import check_yaml
from squad_lit.system.package import explain

_PACKAGE = Path(__file__).parents[1]
# In a wheel the tree lies inside the package, in a checkout at its top.
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parents[1] / "conf"


_SEVERAL = ("experiment", "callback", "logger")  # groups whose files go together


def compose(
    overrides: Sequence[str] = (),
    *,
    config_dir: str | Path | None = None,
    config_name: str = "train",
    output: str | Path | None = None,
    with_hydra: bool = False,
) -> DictConfig:
    """Compose a configuration as the command line does, but without Hydra's globals, as in a notebook.

    Args:
        overrides: As they are typed after ``python -m squad_lit.train``.
        config_dir: A further folder of configurations, as of ``--config-dir``.
        config_name: The file to start from.
        output: The run's folder, where Hydra would give it.
        with_hydra: Keep the node ``hydra``.

    Raises:
        ValueError: Overrides that do not fit the configuration.
    """
    version.setbase("1.3")
    Plugins.instance()  # finds launchers and sweepers
    setup_globals()
    path = create_config_search_path(str(CONF))
    if config_dir is not None:
        for file in (f for depth in ("*", "*/*", "*/*/*") for f in Path(config_dir).glob(f"{depth}.yaml")):
            check_yaml(file)
        path.prepend("command-line", f"file://{Path(config_dir).absolute()}", anchor="schema")
    given = [*overrides, f"output={quote(output)}"] if output is not None else [*overrides]
    try:
        config = ConfigLoaderImpl(path).load_configuration(config_name, given, run_mode=RunMode.RUN)
    except (HydraException, OmegaConfBaseException, ValueError, AssertionError) as error:
        raise ValueError(_in_words(error, overrides, config_dir)) from error
    if not with_hydra:
        with open_dict(config):
            del config["hydra"]
            if output is None:
                config.output = ""
    return config


def check_overrides(arguments: Sequence[str]) -> None:
    """Compose what was typed once before Hydra does, which would show several lines and name none of our options.

    Args:
        arguments: As typed; of a sweep each option's first value is taken.

    Raises:
        ValueError: As of :func:`compose`, or what is typed for Hydra itself cannot be.
    """
    given, overrides = _parse(arguments)
    if given.help or given.hydra_help or given.info or given.shell_completion or given.config_path:
        return  # nothing is run, or by a configuration that is none of ours
    more: dict[str, Any] = {"config_dir": given.config_dir, "config_name": given.config_name or "train"}
    several = given.multirun or any(o.startswith(("experiment=", "hydra.mode=MULTIRUN")) for o in overrides)
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except HydraException as error:
        raise ValueError(_in_words(error, overrides, given.config_dir)) from error
    for o in parsed:
        group = o.get_key_element()
        if isinstance(o.value(), list) and group not in _SEVERAL and (CONF / group).is_dir():
            raise ValueError(f"{o.input_line}: expected one name; -m {group}=A,B runs both")
    first = [o for o in parsed if not (several and o.is_sweep_override())]
    settings = compose([str(o.input_line) for o in first], with_hydra=True, **more).hydra
    _check_hydra(settings)
    if any("_logging" in o for o in overrides) or given.config_dir:
        for part in ("hydra_logging", "job_logging"):
            _check_logging(part, settings[part])
    for swept in (o for o in parsed if o not in first and o.is_choice_sweep() and "." not in o.get_key_element()):
        for value in swept.sweep_string_iterator():  # the choices of a group
            compose([*(str(o.input_line) for o in first), f"{swept.get_key_element()}={value}"], **more)


def _check_hydra(settings: DictConfig) -> None:
    """Refuse what Hydra would fail on: a launcher that is no part, and folders without a name."""
    for part in ("launcher", "sweeper"):
        if not isinstance(settings[part], DictConfig) or "_target_" not in settings[part]:
            raise ValueError(
                f"hydra.{part}: expected its options, got {settings[part]!r}; a slash chooses one, as in "
                f"hydra/{part}=NAME"
            )
        plugin = ".".join(settings[part]._target_.split(".")[:2])
        if importlib.util.find_spec(plugin) is None:
            missing = ModuleNotFoundError(f"No module named {plugin!r}", name=plugin.rpartition(".")[2])
            raise ValueError(f"hydra/{part}: {explain(missing)}")
    raw: Any = OmegaConf.to_container(settings)
    if raw["output_subdir"] not in (None, ".hydra"):  # where runs and commands look for the options
        raise ValueError(f"hydra.output_subdir: expected .hydra or null, got {raw['output_subdir']!r}")
    for place in ("run.dir", "sweep.dir", "sweep.subdir"):
        group, _, key = place.partition(".")
        if not str(raw[group][key] or "").strip():
            raise ValueError(f"hydra.{place}: expected the name of a folder, got {raw[group][key]!r}")


def _check_logging(part: str, settings: Any) -> None:
    """Refuse what Python's logging does not take; Hydra would show a trace."""
    if settings is None:
        return
    if not isinstance(settings, DictConfig):
        raise ValueError(f"hydra.{part}: expected its options, got {settings!r}")
    plain: Any = OmegaConf.to_container(settings)
    for handler in (plain["handlers"] or {}).values() if isinstance(plain.get("handlers"), dict) else ():
        if isinstance(handler, dict) and "${" in str(handler.get("filename", "")):
            handler["filename"] = os.devnull  # only a run knows its folder
    root = logging.getLogger()
    before = root.level, root.handlers[:]
    try:
        logging.config.dictConfig(plain)
    except (ValueError, TypeError, LookupError, AttributeError, ImportError) as error:
        reason = f"{error}: {error.__cause__}" if error.__cause__ else str(error)
        raise ValueError(f"hydra.{part}: Python's logging does not take it: {' '.join(reason.split())}") from error
    finally:
        root.level, root.handlers[:] = before


def _in_words(error: Exception, overrides: Sequence[str], config_dir: str | Path | None = None) -> str:
    """Hydra's error as a sentence that names the option as typed, and what was probably meant."""
    text = str(error)
    if found := re.search(r"Could not find '([^']+)/([^'/]+)'", text):
        group, name = found.groups()
        choices = re.findall(r"\n\t(\S+)", text.partition("Config search path")[0])
        return f"{group}={name}: no such choice{_hint(name, choices, f'{group}=')}; there are: {', '.join(choices)}"
    if found := re.search(r"Could not (?:override|delete from config\.) '([^']+)'", text):
        inner = re.search(
            rf"full_key: ({re.escape(found[1])}\.\S+)", f"{error.__cause__}"
        )  # of a dictionary that was given
        return _unknown(found[1], inner[1] if inner else found[1], overrides, config_dir)
    if found := re.search(r"Ambiguous value for argument '([^=]+)=([^']*)'", text):
        return (
            f"{found[1]}={found[2]}: several values make a sweep, which needs -m; a list is '{found[1]}=[{found[2]}]'"
        )
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override}: expected NAME=VALUE, with quotes for the shell around lists, as in 'NAME=[1,2]', and "
            f"more quotes around other signs, as in \"NAME='a^b'\""
        )
    if found := re.search(r"Multiple values for (\S+)\. ", text):
        return f"{found[1]}: it has a value, which is replaced without a plus: {found[1]}=NAME"
    if "Config group override must be" in text:
        wrong = [o for o in overrides if (CONF / o.partition("=")[0]).is_dir() and o.endswith(("=null", "="))]
        groups = [o.partition("=")[0] for o in wrong]
        names = ", ".join(sorted(file.stem for group in groups for file in (CONF / group).glob("*.yaml")))
        return f"{' '.join(wrong) or ' '.join(overrides)}: expected a name" + (f"; there are: {names}" if names else "")
    if isinstance(error, AssertionError):
        return f"{' '.join(o for o in overrides if o.startswith('hydra.'))}: {text}"
    if found := re.search(r"Cannot find primary config '([^']+)'", text):
        return f"--config-name {found[1]}: there is no {found[1]}.yaml in {config_dir or CONF}"
    # Several lines: the override, what is wrong with it, and then places in OmegaConf.
    if text.startswith("Error merging override ") and error.__cause__:
        text += f"\n{error.__cause__}"
    said = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in said if not line.startswith(("full_key", "object_type", "reference_type"))]
    return ": ".join(told).removeprefix("Error merging override ")


def _unknown(given_name: str, name: str, overrides: Sequence[str], config_dir: str | Path | None) -> str:
    """What is said of an option that the configuration does not have, or of such a key in a dictionary."""
    if "/" in name and not name.startswith("hydra/"):
        return f"{name}: no such group; the parts of an option have dots between them: {name.replace('/', '.')}"
    others = [o for o in overrides if o.lstrip("+~").partition("=")[0] != given_name]
    rest = compose(others, config_dir=config_dir, with_hydra=True)
    parent, _, key = name.rpartition(".")
    while parent and not isinstance(OmegaConf.select(rest, parent), DictConfig):  # it is this part that is unknown
        parent, _, key = parent.rpartition(".")
    node = OmegaConf.select(rest, parent) if parent else rest
    hint = _hint(key, [str(known) for known in node], f"{parent}.".lstrip("."))
    given = next((o for o in overrides if o not in others and "=" in o), "")
    given = "" if name.startswith("hydra.") else given  # nobody reads it
    add = f"; +{name}= would add it" if _can_be_added(given, others, config_dir) else ""
    return f"{name}: no such option{hint}{add}"


def _can_be_added(override: str, others: Sequence[str], config_dir: str | Path | None) -> bool:
    """Whether what is made from the configuration takes an option that it does not have."""
    from squad_lit.run.option import check, check_effect, make  # they read this module's

    if not override:
        return False
    given = [*others, f"+{override.lstrip('+')}"]
    try:
        config = compose(given, config_dir=config_dir)
        check(config)
        check_effect(config, given)
        if (part := override.partition(".")[0]) in ("synthesis", "augmentation"):  # which refuse unknown kinds
            make(config, part)
    except ValueError:
        return False
    return True


def _hint(name: str, known: Sequence[str], before: str) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {before}{close[0]}?" if close else ""


def quote(value: object) -> str:
    """A text as Hydra's grammar takes it on a command line, whatever is in it."""
    # A backslash stands for itself, except before a quote.
    return "'" + re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + m[2].replace("'", "\\'"), str(value)) + "'"


def arrange(arguments: Sequence[str]) -> list[str]:
    """The arguments in Hydra's order: its own options before the overrides, wherever they were typed.

    Raises:
        ValueError: There is no such experiment, whose folders Hydra's own message does not list, or no such option.
    """
    given, overrides = _parse(arguments)
    roots = [CONF, *([Path(given.config_dir)] if given.config_dir else [])]
    files = [(root / "experiment", f) for root in roots for f in (root / "experiment").rglob("*.yaml")]
    experiments = sorted(f.relative_to(root).with_suffix("").as_posix() for root, f in files)
    chosen = [o.removeprefix("experiment=").strip("[]").split(",") for o in overrides if o.startswith("experiment=")]
    unknown = [name for names in chosen for name in names if name not in (*experiments, "null")]
    if unknown and not given.config_path and not any(o.startswith("hydra.searchpath") for o in overrides):
        raise ValueError(f"no experiment {', '.join(unknown)}; there are: {', '.join(experiments)}")
    own = list(arguments)
    for override in overrides:
        own.remove(override)
    return [*own, *map(_from_python, overrides)]


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Hydra's own options, and the overrides."""
    parser = get_args_parser()
    parser.exit_on_error = False
    try:
        given, unknown = parser.parse_known_intermixed_args(arguments)
    except argparse.ArgumentError as error:
        raise ValueError(f"{error}; --help lists the options") from None
    if unknown:
        raise ValueError(f"{unknown[0]}: there is no such option; options are NAME=VALUE, and --help lists them")
    if given.config_dir and not Path(given.config_dir).is_dir():
        raise ValueError(f"--config-dir {given.config_dir}: there is no such folder")
    return given, list(given.overrides)


def _from_python(argument: str) -> str:
    """An override whose value is written as Python shows it, such as by ``wandb agent``, in Hydra's grammar.

    Example:
        >>> [_from_python(a) for a in ("model.tile=None", "model={'steps': 5, 'tile': None}", "a={b:[None]}")]
        ['model.tile=null', 'model={steps:5,tile:null}', 'a={b:[None]}']
    """
    name, _, value = argument.partition("=")
    if value != "None" and not value.startswith(("{", "[")):
        return argument
    try:
        found = ast.literal_eval(value)
    except (ValueError, SyntaxError):  # Hydra's own
        return argument
    return f"{name}={_in_hydra(found)}" if str(found) == value else argument


def _in_hydra(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_in_hydra(own)}" for key, own in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_in_hydra, value)) + "]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return quote(value) if isinstance(value, str) else repr(value)


# Two runs that start in the same second get different folders. It is cached, so a run has one token.
OmegaConf.register_new_resolver("token", lambda: secrets.token_hex(3), use_cache=True, replace=True)
