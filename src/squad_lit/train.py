"""Train and test: ``python -m squad_lit.train dataset=mvtec dataset.category=bottle``.

Compose the configuration, build the parts, fit, test, and leave in the run's folder: ``config.yaml``, ``last.ckpt``,
``metrics.json``, ``predictions.csv``, ``curves.json``, ``panels/``, and the loggers' files.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from squad_lit.system.console import exit_status, say

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m squad_lit.train``; returns the exit status."""
    return exit_status(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    from squad_lit.run.command import run_task

    return run_task(train, arguments)


def train(config: DictConfig) -> float | None:
    """Train once, with Hydra's globals set; a job of a sweep returns its objective."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from squad_lit.run.command import exit_in_words
    from squad_lit.run.sweep import run_here

    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return run_here(config)
    exit_in_words(_train, config)
    return None


def _train(config: DictConfig, folder: Path) -> None:
    from squad_lit.report.figures import table
    from squad_lit.run.fit import run
    from squad_lit.run.job import is_first_process

    figures = run(config, folder).figures
    if is_first_process():
        say(table(figures))
        say(f"\nrun folder: {folder}")


if __name__ == "__main__":
    from squad_lit.train import main as entry  # by name: a worker of a sweep imports train, instead of getting a copy

    sys.exit(entry())
