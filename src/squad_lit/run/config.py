"""The place of the configuration, its composition, and the resolvers that its files use."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.plugins import Plugins
from hydra.core.utils import setup_globals
from hydra.errors import HydraException
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
        raise ValueError(str(error)) from error
    if not with_hydra:
        with open_dict(config):
            del config["hydra"]
            if output is None:
                config.output = ""
    return config


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
    return sorted(arguments, key=lambda a: a not in ("-m", "--multirun"))


def _has_no_wandb_key() -> bool:
    """Whether W&B has to write to disk, because no mode was chosen and there is no key for an upload."""
    netrc = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    stored = netrc.is_file() and "api.wandb.ai" in netrc.read_text(errors="replace")
    return not (stored or os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_MODE"))


OmegaConf.register_new_resolver("wandb_offline", _has_no_wandb_key, replace=True)
# Two runs that start in the same second get different folders. It is cached, so a run has one token.
OmegaConf.register_new_resolver("token", lambda: secrets.token_hex(3), use_cache=True, replace=True)
