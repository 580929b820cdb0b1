"""The place of the configuration, its composition, and the resolvers that its files use."""

from __future__ import annotations

import ast
import difflib
import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import setup_globals
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

_PACKAGE = Path(__file__).parents[1]
# In a wheel the tree lies inside the package, in a checkout at its top.
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parents[1] / "conf"
_EXPERIMENT = CONF / "experiment"


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
        path.prepend("command-line", f"file://{Path(config_dir).absolute()}", anchor="schema")
    given = [*overrides, f"output={quote(output)}"] if output is not None else [*overrides]
    try:
        config = ConfigLoaderImpl(path).load_configuration(config_name, given, run_mode=RunMode.RUN)
    except HydraException as error:
        raise ValueError(_in_words(error, overrides)) from error
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
        ValueError: As of :func:`compose`.
    """
    if any(a.startswith(("-", "hydra.searchpath")) and a not in ("-m", "--multirun") for a in arguments):
        return  # a configuration of the user's own, or an option of Hydra's command line
    several = any(a in ("-m", "--multirun") or a.startswith("experiment=") for a in arguments)
    typed = [a for a in arguments if a not in ("-m", "--multirun")]
    try:
        parsed = OverridesParser.create().parse_overrides(typed)
    except HydraException as error:
        raise ValueError(_in_words(error, typed)) from error
    first = [o for o in parsed if not (several and o.is_sweep_override())]
    compose([str(o.input_line) for o in first])
    for swept in (o for o in parsed if o not in first and o.is_choice_sweep() and "." not in o.get_key_element()):
        for value in swept.sweep_string_iterator():  # the choices of a group
            compose([*(str(o.input_line) for o in first), f"{swept.get_key_element()}={value}"])


def _in_words(error: HydraException, overrides: Sequence[str]) -> str:
    """Hydra's error as a sentence that names the option as typed, and what was probably meant."""
    text = str(error)
    if found := re.search(r"Could not find '([^']+)/([^'/]+)'", text):
        group, name = found.groups()
        choices = re.findall(r"\n\t(\S+)", text.partition("Config search path")[0])
        return f"{group}={name}: no such choice{_hint(name, choices, f'{group}=')}; there are: {', '.join(choices)}"
    if found := re.search(r"Could not (?:override|delete from config\.) '([^']+)'", text):
        rest = compose([o for o in overrides if found[1] not in o])
        parent, _, key = found[1].rpartition(".")
        while parent and OmegaConf.select(rest, parent) is None:  # it is this part that is unknown
            parent, _, key = parent.rpartition(".")
        node = OmegaConf.select(rest, parent) if parent else rest
        known = [str(name) for name in node] if isinstance(node, DictConfig) else []
        return f"{found[1]}: no such option{_hint(key, known, f'{parent}.'.lstrip('.'))}; +{found[1]}= would add it"
    if found := re.search(r"Ambiguous value for argument '([^=]+)=([^']*)'", text):
        return (
            f"{found[1]}={found[2]}: several values make a sweep, which needs -m; a list is '{found[1]}=[{found[2]}]'"
        )
    if isinstance(error, OverrideParseException):
        return f"{error.override}: expected NAME=VALUE, with quotes for the shell around lists: 'NAME=[1,2]'"
    return text


def _hint(name: str, known: Sequence[str], before: str) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {before}{close[0]}?" if close else ""


def quote(value: object) -> str:
    """A text as Hydra's grammar takes it on a command line, whatever is in it."""
    # A backslash stands for itself, except before a quote.
    return "'" + re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + m[2].replace("'", "\\'"), str(value)) + "'"


def arrange(arguments: Sequence[str]) -> list[str]:
    """The arguments in Hydra's order: ``-m`` before the overrides, wherever it was typed.

    Raises:
        ValueError: There is no such experiment. Hydra's own message does not list the folders.
    """
    experiments = sorted(f.relative_to(_EXPERIMENT).with_suffix("").as_posix() for f in _EXPERIMENT.rglob("*.yaml"))
    chosen = [a.removeprefix("experiment=").strip("[]").split(",") for a in arguments if a.startswith("experiment=")]
    own = any(a.startswith(("--config-dir", "-cd", "hydra.searchpath")) for a in arguments)
    unknown = [name for names in chosen for name in names if name not in (*experiments, "null")]
    if unknown and not own:
        raise ValueError(f"no experiment {', '.join(unknown)}; there are: {', '.join(experiments)}")
    return sorted(map(_from_python, arguments), key=lambda a: a not in ("-m", "--multirun"))


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


def _has_no_wandb_key() -> bool:
    """Whether W&B has to write to disk, because no mode was chosen and there is no key for an upload."""
    netrc = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    stored = netrc.is_file() and "api.wandb.ai" in netrc.read_text(errors="replace")
    return not (stored or os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_MODE"))


OmegaConf.register_new_resolver("wandb_offline", _has_no_wandb_key, replace=True)
# Two runs that start in the same second get different folders. It is cached, so a run has one token.
OmegaConf.register_new_resolver("token", lambda: secrets.token_hex(3), use_cache=True, replace=True)
