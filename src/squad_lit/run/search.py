"""A search for options with Optuna: each trial is a job with a folder of its own."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException

from squad_lit.run.job import Job, compose_job
from squad_lit.run.launcher import run_jobs
from squad_lit.run.objective import check_jobs, is_cost, objective
from squad_lit.system.console import say
from squad_lit.system.file import make_folder
from squad_lit.system.lock import hold
from squad_lit.system.table import write_rows

if TYPE_CHECKING:
    import optuna

_OVERRIDES = "overrides"  # attribute of the study that holds what it searches; another command is refused


def search(
    folder: Path, overrides: Sequence[str], *, trials: int, jobs: int = 1, gpus: Sequence[str] = (), seed: int = 0
) -> optuna.Study:
    """Run trials until there are as many as asked for, and keep them in ``study.journal`` and ``trials.csv``.

    A trial counts as failed, and gets no value, if its objective is undefined, its values do not go together, or its
    job fails.

    Args:
        folder: The folder of the study.
        overrides: The overrides of ``squad_lit.train``, including those with a sweep.
        trials: The number of trials, including those of earlier calls.
        jobs: The number of jobs side by side.
        gpus: Each job is bound to one of these; none: jobs find their devices themselves.
        seed: The seed of the proposals.

    Raises:
        ValueError: There is nothing to search, a value is wrong by itself, the overrides contradict each other or the
            study in the folder, or another search runs there.
    """
    from optuna.trial import TrialState

    fixed, space = _parse(overrides)
    first = {key: _ends(d)[0] for key, d in space.items()}
    # A wrong value shows before the first trial and not in the middle of the search.
    tried = dict.fromkeys(tuple((first | {key: value}).items()) for key, d in space.items() for value in _ends(d))
    configs = [compose_job([*fixed, *(f"{key}={value}" for key, value in values)]) for values in tried]
    check_jobs(configs, gpus)
    name = configs[0].objective
    make_folder(folder)
    with hold(folder):
        study = _open(folder, [*overrides], is_cost(name), seed)
        # Trials that were interrupted come first, in their folders.
        waiting = [trial.number for trial in study.trials if not trial.state.is_finished()]

        def save() -> None:
            rows = [
                {"number": trial.number, "state": trial.state.name.lower(), name: trial.value}
                | {key: trial.params.get(key) for key in space}
                for trial in study.trials
            ]
            write_rows(folder / "trials.csv", rows)

        def propose() -> Iterator[Job]:
            while waiting or len(study.trials) < trials:
                number = waiting.pop(0) if waiting else study.ask(space).number
                values = [f"{key}={value}" for key, value in study.trials[number].params.items()]
                print(f"trial {number}: {' '.join(values)}", flush=True)
                save()
                yield Job(folder / str(number), [*fixed, *values], name=f"trial {number}")

        def tell(job: Job) -> None:
            value = objective(job.figures, name)
            if math.isnan(value):
                if job.figures is not None:
                    say(f"{job.name} failed: {name} is undefined; see {job.folder}", to=sys.stderr)
                study.tell(int(job.folder.name), state=TrialState.FAIL)
            else:
                say(f"{job.name}: {name} {value:.4f}")
                study.tell(int(job.folder.name), value)
            save()

        run_jobs(propose(), side_by_side=jobs, gpus=gpus, on_end=tell)
    return study


def _open(folder: Path, overrides: list[str], smaller_is_better: bool, seed: int) -> optuna.Study:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(folder / "study.journal"))),
        study_name="squad_lit",
        load_if_exists=True,
        direction="minimize" if smaller_is_better else "maximize",
    )
    # Other proposals in each call, and the same in each repetition of it; the trials that run count as well.
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials), constant_liar=True)
    before = study.user_attrs.get(_OVERRIDES, overrides)
    if before != overrides:
        raise ValueError(
            f"{folder} has a search of {' '.join(before)}; go on with the same, or choose another --output"
        )
    study.set_user_attr(_OVERRIDES, overrides)
    return study


def _parse(overrides: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Overrides without a sweep, and for each of the others Optuna's distribution."""
    try:
        parsed = OverridesParser.create().parse_overrides([*overrides])
    except HydraException as error:
        raise ValueError(str(error)) from error
    space = {o.get_key_element(): _distribution(o) for o in parsed if o.is_sweep_override()}
    if not space:
        raise ValueError("nothing to search: give an option several values, such as 'seed=0,1'")
    return [str(o.input_line) for o in parsed if not o.is_sweep_override()], space


def _distribution(override: Override) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    sweep = override.value()
    log = isinstance(sweep, IntervalSweep | RangeSweep) and "log" in sweep.tags
    if isinstance(sweep, IntervalSweep):
        low, high = sweep.start, sweep.end
        assert low is not None
        assert high is not None
        if isinstance(low, int) and isinstance(high, int):  # int(interval(1,9)); without int() they are floats
            return IntDistribution(low, high, log=log)
        return FloatDistribution(low, high, log=log)
    # Texts as the command line takes them: Optuna knows no lists.
    choices = list(itertools.islice(override.sweep_string_iterator(), 1000))
    if isinstance(sweep, RangeSweep) and all(isinstance(n, int) for n in (sweep.start, sweep.stop, sweep.step)):
        step = 1 if log else int(choices[1]) - int(choices[0]) if len(choices) > 1 else 1
        return IntDistribution(int(choices[0]), int(choices[-1]), log=log, step=step)
    return CategoricalDistribution(choices)


def _ends(distribution: Any) -> Sequence[Any]:
    """All choices, or the lowest and the highest number."""
    return distribution.choices if hasattr(distribution, "choices") else (distribution.low, distribution.high)
