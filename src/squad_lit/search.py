"""Search for options: ``python -m squad_lit.search --trials 20 --output DIR 'model.optimizer.lr=interval(5e-4,5e-3)'``.

Takes the overrides of ``squad_lit.train``; those with a sweep in Hydra's grammar are searched: ``choice(a,b)`` or
``a,b``, ``range(1,5)``, ``interval(0,1)``, ``int(interval(1,9))``, ``tag(log,interval(1e-4,1e-2))``. Optuna's TPE
proposes values; each trial is a job with a folder of its own, ``DIR/NUMBER``. The same command goes on where it was
stopped.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from squad_lit.system.console import exit_status
from squad_lit.system.package import require


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text}")
    return int(text)


def _jobs(text: str) -> int | None:
    return None if text == "gpus" else _count(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="squad-lit search", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="+", metavar="OVERRIDE", help="as of squad_lit.train; objective=FIGURE")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the study")
    parser.add_argument("--trials", type=_count, required=True, help="in all, those of earlier calls included")
    parser.add_argument("--jobs", type=_jobs, default=1, help="trials side by side, or gpus: one on each GPU")
    parser.add_argument("--seed", type=int, default=0, help="of the proposals (default: 0)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m squad_lit.search``; returns the exit status."""
    given = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    return exit_status(lambda: _run(given))


def _run(given: argparse.Namespace) -> int:
    require("optuna")
    from squad_lit.run.launcher import find_gpus
    from squad_lit.run.search import search

    gpus = find_gpus() if given.jobs is None else []
    jobs = given.jobs or len(gpus)
    study = search(given.output, given.overrides, trials=given.trials, jobs=jobs, gpus=gpus, seed=given.seed)
    done = [trial for trial in study.trials if trial.value is not None]
    if not done:
        raise ValueError(f"none of the {len(study.trials)} trials has an objective; see {given.output}")
    best = study.best_trial
    print(f"best of {len(done)}: trial {best.number}, {best.value:.4f}, {given.output / str(best.number)}")
    print(" ".join(f"{key}={value}" for key, value in best.params.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
