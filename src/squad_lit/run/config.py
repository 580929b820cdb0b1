"""Where the configuration is, and what its files may compute."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

_PACKAGE = Path(__file__).parents[1]
# In a wheel the tree lies inside the package, in a checkout at its top.
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parents[1] / "conf"
_EXPERIMENT = CONF / "experiment"


def arrange(arguments: Sequence[str]) -> list[str]:
    """The command line as Hydra takes it: ``-m`` before the overrides, wherever it was typed.

    Raises:
        ValueError: No such experiment; Hydra's own message does not look into folders.
    """
    experiments = sorted(f.relative_to(_EXPERIMENT).with_suffix("").as_posix() for f in _EXPERIMENT.rglob("*.yaml"))
    chosen = [a.removeprefix("experiment=").strip("[]").split(",") for a in arguments if a.startswith("experiment=")]
    own = any(a.startswith(("--config-dir", "-cd", "hydra.searchpath")) for a in arguments)
    unknown = [name for names in chosen for name in names if name not in (*experiments, "null")]
    if unknown and not own:
        raise ValueError(f"no experiment {', '.join(unknown)}; there are: {', '.join(experiments)}")
    return sorted(arguments, key=lambda a: a not in ("-m", "--multirun"))


def _has_no_wandb_key() -> bool:
    """Whether W&B has to write to disk: no mode was asked for, and there is no key to upload with."""
    netrc = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    stored = netrc.is_file() and "api.wandb.ai" in netrc.read_text(errors="replace")
    return not (stored or os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_MODE"))


OmegaConf.register_new_resolver("wandb_offline", _has_no_wandb_key, replace=True)
# In the names of folders: two runs that start in the same second share none. Cached: the same wherever it is resolved.
OmegaConf.register_new_resolver("token", lambda: secrets.token_hex(3), use_cache=True, replace=True)
