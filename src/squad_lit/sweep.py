"""What Hydra's sweeps need beside Hydra: jobs in processes of their own, folders that nobody shares, a clear end."""

from __future__ import annotations

import logging
import math
import os
import secrets
import signal
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from squad_lit import lock
from squad_lit.job import Job, quote, wait

log = logging.getLogger(__name__)

# Of metrics.json. What is measured without a label of the test set; a name may go on with /GROUP.
LABEL_FREE = ["synthetic_ap", "synthetic_auroc", "normal_score", "copy_ratio", "feature_error"]
LABEL_FREE += ["codebook_usage", "perplexity", "seconds", "images_per_second", "peak_memory_mb"]
_TEST = ["image_auroc", "image_ap", "image_f1_max", "pixel_auroc", "pixel_ap", "pixel_f1_max", "pixel_aupro"]
_TEST += ["psnr", "ssim"]
# The smaller, the better.
_COSTS = ("normal_score", "copy_ratio", "feature_error", "seconds", "peak_memory_mb")

_FAILED = "failed.txt"  # in the folder of the sweep: a line for each job that failed

# In the names of folders: two runs that start in the same second share none. Cached: the same wherever it is resolved.
OmegaConf.register_new_resolver("token", lambda: secrets.token_hex(3), use_cache=True, replace=True)
OmegaConf.register_new_resolver("gpu_count", lambda: len(lock.gpus()), replace=True)


def check_objective(name: str) -> None:
    """Refuse what no run measures, and warn of what is measured on the test set.

    Raises:
        ValueError: An unknown name.
    """
    kind = name.partition("/")[0]
    if kind.startswith(tuple(_TEST)):
        warnings.warn(
            f"objective={name} is measured on the test set: what is selected by it must not be reported on that set",
            stacklevel=2,
        )
    elif kind not in LABEL_FREE:
        raise ValueError(
            f"objective: no figure {name!r} in metrics.json; label-free ones: {', '.join(LABEL_FREE)} (some with "
            f"/GROUP, such as copy_ratio/low); of the test set: {', '.join(_TEST)}"
        )


def is_cost(name: str) -> bool:
    """Whether a smaller value of an objective is better."""
    return name.partition("/")[0] in _COSTS


def objective(figures: Mapping[str, Any], name: str) -> float:
    """The figure that a search compares runs by; NaN where it is undefined or was not measured."""
    value = figures.get(name)
    return math.nan if value is None else float(value)


def run_job(config: DictConfig) -> float:
    """Run a job of a sweep and return its objective, NaN if it fails: the other jobs go on.

    Args:
        config: Of the job, inside the job that Hydra runs.
    """
    settings = HydraConfig.get()
    folder, launcher = Path(settings.runtime.output_dir), settings.runtime.choices["hydra/launcher"]
    name = f"job {settings.job.num} ({settings.job.override_dirname})"
    try:
        check_objective(config.objective)
        job = Job(
            folder,
            config,
            _arguments(settings),
            gpus=lock.gpus() if launcher == "gpus" else None,
            quiet=launcher != "basic",
        )
        wait([job])
        figures = job.figures()
    except (ValueError, OSError) as error:
        print(f"{name} failed: {error}", file=sys.stderr)
        with (Path(settings.sweep.dir) / _FAILED).open("a", encoding="utf-8") as file:
            file.write(f"{name}: {str(error).partition(chr(10))[0]}; see {folder}\n")
        if not settings.callbacks:  # a configuration of the user's own, without Sweep to tell at the end
            raise CompactHydraException(f"{name} failed") from error
        return math.nan
    print(f"{name} {'was finished before and is skipped' if job.skipped else 'is finished'}: {folder}", flush=True)
    return objective(figures, config.objective)


def _arguments(settings: HydraConf) -> list[str]:
    """Arguments that compose a job's configuration again: its overrides, and where the user's own configuration is."""
    sources = [source.path for source in settings.runtime.config_sources if source.provider == "command-line"]
    given = ["--config-name", str(settings.job.config_name)]
    return [*given, *(part for path in sources for part in ("--config-dir", path)), *settings.overrides.task]


class Sweep(Callback):
    """Before a run or a sweep: is its folder usable? After a sweep: which jobs failed?"""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        _check_folder(config, "run")

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        folder = _check_folder(config, "sweep")
        (folder / _FAILED).unlink(missing_ok=True)
        print(_how_to_go_on(str(folder)), flush=True)
        # As Ctrl-C: joblib then takes its workers, and they their jobs, along.
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        if config.hydra.runtime.choices["hydra/launcher"] == "gpus":
            try:
                lock.gpus()
            except ValueError as error:
                sys.exit(f"error: {error}")

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        path = Path(config.hydra.sweep.dir) / _FAILED
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines()
            print(f"error: {len(lines)} of the jobs failed, the others are done:", *lines, sep="\n  ", file=sys.stderr)
            print(_how_to_go_on(config.hydra.sweep.dir), file=sys.stderr)
            sys.exit(1)


def _how_to_go_on(folder: str) -> str:
    return f"if it is stopped, or jobs fail, the same command with hydra.sweep.dir={quote(folder)} does what is missing"


def _check_folder(config: DictConfig, mode: str) -> Path:
    """Create the folder; Hydra would show a stack trace where that is not possible."""
    HydraConfig.instance().set_config(config)  # interpolations in the name need it
    folder = Path(config.hydra[mode].dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sys.exit(f"error: hydra.{mode}.dir={folder}: {error.strerror}; choose another folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        sys.exit(f"error: hydra.{mode}.dir={folder}: no permission to write there; choose another folder")
    return folder


def is_sweep() -> bool:
    """Whether this is a job of a sweep."""
    return HydraConfig.get().mode == RunMode.MULTIRUN
