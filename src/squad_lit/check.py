"""Checks data before training, and ranks training images after it: ``python -m squad_lit.check dataset=...``.

The command takes the options of ``squad_lit.train``. Without a checkpoint it reads every file, prints what there is and
what is wrong, and exits with 1 if something is. With ``fit=false checkpoint=RUN/last.ckpt`` it ranks the training
images by their anomaly score into ``suspects.csv`` and ``suspects.png``, because a folder of good parts often holds a
few bad ones, and lists images that are probably of the same part.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from squad_lit.system.console import exit_status, say

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m squad_lit.check``; returns the exit status."""
    return exit_status(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    from hydra.errors import CompactHydraException

    from squad_lit.run.command import run_task
    from squad_lit.run.config import quote

    # The option of the other commands; all that remains is Hydra's.
    parser = argparse.ArgumentParser(prog="squad-lit check", add_help=False, allow_abbrev=False)
    parser.add_argument("--device", default="auto")
    options, given = parser.parse_known_args(sys.argv[1:] if arguments is None else arguments)
    sound: list[bool] = []

    def task(config: DictConfig) -> None:
        try:
            sound.append(look(config, options.device))
        except CompactHydraException:  # of a sweep, in which the other categories are checked too; it has been printed
            sound.append(False)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        if not any(override.startswith("checkpoint=") for override in given):  # Hydra's folder would stay empty
            # Before the others, so that what the user gives wins.
            given = [f"hydra.{mode}.dir={quote(place)}" for mode in ("run", "sweep")] + given
        run_task(task, given)
    return 0 if all(sound) else 1


def look(config: DictConfig, device: str = "auto") -> bool:
    """Check the data or, with a checkpoint, rank the training images; Hydra's globals are set.

    Args:
        config: As composed.
        device: Where the model of the checkpoint computes; see :func:`squad_lit.load`.

    Returns:
        Whether there is no error.
    """
    from squad_lit.run.command import exit_in_words

    sound = []
    exit_in_words(lambda config, folder: sound.append(_look(config, folder, device)), config)
    return sound == [True]


def _look(config: DictConfig, folder: Path, device: str) -> bool:
    from squad_lit.report.suspects import rank
    from squad_lit.run.option import check as check_options

    check_options(config)
    if not config.checkpoint:
        if device != "auto":
            raise ValueError(f"--device {device} is for a model: add fit=false checkpoint=PATH, or leave it out")
        return check(config)
    rank(config, folder, device)
    return True


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
        say(f"{row.pop('category')}: " + ", ".join(f"{key} {value}" for key, value in row.items()))
    for problem in problems:
        say(problem)
    errors = sum(problem.is_error for problem in problems)
    if errors == 0:
        data.setup()
        held_out = len(data.val_set)
        if held_out and (text := shortfall(config.threshold.false_alarm_rate, held_out)):
            say(f"note: {text}")
    print(f"errors: {errors}, warnings: {len(problems) - errors}")
    return errors == 0


if __name__ == "__main__":
    sys.exit(main())
