"""Train and test: ``python -m squad_lit.train dataset=mvtec dataset.category=bottle``.

Compose the configuration, build the parts, fit, test, and leave in the run's folder: ``config.yaml``, ``last.ckpt``,
``metrics.json``, ``predictions.csv``, ``curves.json``, ``panels/``, and the loggers' files.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from squad_lit.report.figures import table
from squad_lit.run.command import exit_with_sentence
from squad_lit.run.config import CONF, arrange
from squad_lit.run.fit import run
from squad_lit.run.launcher import run_here
from squad_lit.run.option import check_effect


@hydra.main(config_path=str(CONF), config_name="train", version_base="1.3")
def main(config: DictConfig) -> float | None:
    """Entry point of ``python -m squad_lit.train``; of a job of a sweep it returns the objective."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return run_here(config)
    with exit_with_sentence():
        check_effect(config, list(HydraConfig.get().overrides.task))
        folder = Path(HydraConfig.get().runtime.output_dir)
        figures = run(config, folder).figures
        if os.environ.get("LOCAL_RANK", "0") == "0":  # of several processes the first
            print(table(figures))
            print(f"\nrun folder: {folder}")
    return None


if __name__ == "__main__":
    from squad_lit.train import main as entry  # by name: a worker of a sweep imports it, instead of getting a copy

    with exit_with_sentence():  # Ctrl-C while Hydra waits for jobs elsewhere
        sys.argv[1:] = arrange(sys.argv[1:])
        entry()
