"""What Hydra's sweeps need beside Hydra: jobs in processes of their own, folders that nobody shares, a clear end."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import CompactHydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf

from squad_lit.run import lock
from squad_lit.run.job import Job, check_gpu, quote, stop_below, wait

log = logging.getLogger(__name__)

# Of metrics.json. What is measured without a label of the test set, once a run and for each group of features.
_LABEL_FREE = ["synthetic_ap", "synthetic_auroc", "normal_score"]
_LABEL_FREE += ["seconds/train", "images_per_second/train", "peak_memory_mb"]
_OF_A_GROUP = ["copy_ratio", "feature_error", "codebook_usage", "perplexity"]
_TEST = ["image_auroc", "image_ap", "image_f1_max", "pixel_auroc", "pixel_ap", "pixel_f1_max", "pixel_aupro"]
_TEST += ["psnr", "ssim"]
# The smaller, the better.
_COSTS = ("normal_score", "copy_ratio", "feature_error", "seconds", "peak_memory_mb")

_HELD: list[IO[str]] = []  # locks, until this process ends; not in the callback, which goes to the workers as a copy
_FAILED = "failed.jsonl"  # in the folder of the sweep: a line for each job that failed

OmegaConf.register_new_resolver("gpu_count", lambda: len(lock.gpus()), replace=True)


def check_objective(name: str, configs: Sequence[DictConfig]) -> None:
    """Refuse what no run of some configurations measures, and warn of what is measured on the test set.

    Raises:
        ValueError: An unknown name.
    """
    label_free, test = [*_LABEL_FREE], [*_TEST]
    for config in configs:
        groups = [group for group, strides in config.model.groups.items() if strides is not None]
        own = _OF_A_GROUP[:2] if config.quantizer == "none" else _OF_A_GROUP
        if str(config.model._target_).endswith(".Squad"):  # another model rebuilds nothing
            label_free += [f"{figure}/{group}" for figure in own for group in groups]
        limits = config.metric.fpr_limit
        test += [f"pixel_aupro_{limit:g}" for limit in (limits[1:] if isinstance(limits, ListConfig) else [])]
    if name in test:
        warnings.warn(
            f"objective={name} is measured on the test set: what is selected by it must not be reported on that set",
            stacklevel=2,
        )
    elif name not in label_free:
        known = [", ".join(dict.fromkeys(names)) for names in (label_free, test)]
        raise ValueError(
            f"objective: no figure {name!r} in metrics.json; label-free ones: {known[0]}; of the test set: {known[1]}"
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
    if _has_workers(settings):  # Ctrl-C reaches them, too; the process that has started them tells the jobs
        signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
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
        told = {"error": str(error).partition("\n")[0], "folder": str(folder)}
        with (Path(settings.sweep.dir) / _FAILED).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"job": settings.job.num, "overrides": [*settings.overrides.task]} | told) + "\n")
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
        try:
            _HELD.append(lock.hold(folder))
            # What there is to measure must be the same for all jobs.
            if not _varied(config) & {"model", "model.groups", "quantizer", "metric.fpr_limit"}:
                check_objective(config.objective, [config])
            if config.hydra.runtime.choices["hydra/launcher"] == "gpus":
                lock.gpus()
                if not _varied(config) & {"trainer", "trainer.accelerator"}:
                    check_gpu(config)
        except ValueError as error:  # Hydra would go on
            sys.exit(f"error: {error}")
        (folder / _FAILED).unlink(missing_ok=True)
        print(_how_to_go_on(str(folder)), flush=True)
        _take_signals(folder if _has_workers(config.hydra) else None)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        path = Path(config.hydra.sweep.dir) / _FAILED
        if path.exists():
            failed = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            print(f"error: {len(failed)} of the jobs failed, all not named here are done:", file=sys.stderr)
            for job in failed:
                varied = ", ".join(o for o in job["overrides"] if o not in _given(config))
                print(f"  job {job['job']} ({varied}): {job['error']}; see {job['folder']}", file=sys.stderr)
            print(_how_to_go_on(config.hydra.sweep.dir), file=sys.stderr)
            sys.exit(1)


def _given(config: DictConfig) -> list[str]:
    """The overrides of a sweep, as typed and of its experiment; those that are varied still have all their values."""
    swept = OmegaConf.select(config, "hydra.sweeper.params") or {}
    return [*config.hydra.overrides.task, *(f"{key}={value}" for key, value in swept.items())]


def _varied(config: DictConfig) -> set[str]:
    """Names of the options in which the jobs of a sweep differ."""
    parsed = OverridesParser.create().parse_overrides(_given(config))
    return {override.key_or_group for override in parsed if override.is_sweep_override()}


def _has_workers(settings: DictConfig | HydraConf) -> bool:
    """Whether jobs are started by workers that end with this process."""
    return str(settings.launcher._target_).endswith(".JoblibLauncher")


def _take_signals(folder: Path | None) -> None:
    """After Ctrl-C and SIGTERM let the jobs in a folder leave a checkpoint: joblib kills all below its workers."""

    def stop(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a second one waits for nothing
        if folder is not None:
            stop_below(folder, number)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    if folder is not None and signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored
        signal.signal(signal.SIGINT, stop)


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
