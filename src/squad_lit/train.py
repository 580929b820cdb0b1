"""Train and test: ``python -m squad_lit.train dataset=mvtec dataset.category=bottle``.

Compose the configuration, build the parts, fit, test, and leave in the run's folder: ``config.yaml``, ``last.ckpt``,
``metrics.json``, ``predictions.csv``, ``curves.json``, ``panels/``, and the loggers' files.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from squad_lit.system.console import exit_status

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m squad_lit.train``; returns the exit status."""
    return exit_status(lambda: _run(sys.argv[1:] if arguments is None else arguments))


def _run(arguments: Sequence[str]) -> int:
    from squad_lit.run.command import run_task

    return run_task(train, arguments)


def train(config: DictConfig) -> float | None:
    """One training, with Hydra's globals set; of a job of a sweep it returns the objective."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from squad_lit.run.command import exit_in_words
    from squad_lit.run.launcher import run_here

    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return run_here(config)
    exit_in_words(lambda: _train(config))
    return None


def _train(config: DictConfig) -> None:
    from hydra.core.hydra_config import HydraConfig

    from squad_lit.report.figures import table
    from squad_lit.run.fit import run
    from squad_lit.run.job import is_first_process
    from squad_lit.run.option import check_effect

    check_effect(config, list(HydraConfig.get().overrides.task))
    folder = Path(HydraConfig.get().runtime.output_dir)
    figures = run(config, folder).figures
    if is_first_process():
        print(table(figures))
        print(f"\nrun folder: {folder}")


if __name__ == "__main__":
    from squad_lit.train import main as entry  # by name: a worker of a sweep imports train, instead of getting a copy

    sys.exit(entry())
