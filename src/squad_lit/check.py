"""Checks data before training, and ranks training images after it: ``python -m squad_lit.check dataset=...``.

The command takes the options of ``squad_lit.train``. Without a checkpoint it reads every file, prints what there is and
what is wrong, and exits with 1 if something is. With ``fit=false checkpoint=RUN/last.ckpt`` it ranks the training
images by their anomaly score into ``suspects.csv`` and ``suspects.png``, because a folder of good parts often holds a
few bad ones.
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
    """Entry point of ``python -m squad_lit.check``; returns the exit status."""
    return exit_status(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    from squad_lit.run.command import run_task

    return run_task(look, arguments)


def look(config: DictConfig) -> None:
    """Check the data or, with a checkpoint, rank the training images; Hydra's globals are set."""
    from squad_lit.run.command import exit_in_words

    exit_in_words(_look, config)


def _look(config: DictConfig, folder: Path) -> None:
    from hydra.errors import CompactHydraException

    from squad_lit.report.suspects import rank
    from squad_lit.run.option import check as check_options

    check_options(config)
    if config.checkpoint:
        rank(config, folder)
    elif not check(config):
        # Hydra's own kind, so that in a sweep the other categories are checked too; it prints this text.
        raise CompactHydraException(f"{config.dataset.root}: the data have errors, listed above")


def check(config: DictConfig) -> bool:
    """Read all files of the data set and print what is in it and what is wrong.

    Returns:
        Whether there is no error.
    """
    from squad_lit.dataset.inspection import inspect
    from squad_lit.deploy.threshold import shortfall
    from squad_lit.run.option import make

    data = make(config, "dataset", strict=False, cache="off")
    data.prepare_data()
    rows, problems = inspect(data, show=True)
    for row in rows:
        print(f"{row.pop('category')}: " + ", ".join(f"{key} {value}" for key, value in row.items()))
    for problem in problems:
        print(problem)
    errors = sum(problem.is_error for problem in problems)
    if errors == 0:
        data.setup()
        held_out = len(data.val_set)
        if held_out and (text := shortfall(config.threshold.false_alarm_rate, held_out)):
            print(f"note: {text}")
    print(f"errors: {errors}, warnings: {len(problems) - errors}")
    return errors == 0


if __name__ == "__main__":
    sys.exit(main())
