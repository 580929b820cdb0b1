"""The sweeps of Hydra: what is checked before the first job, what each job is given, and what the end says."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import CompactHydraException
from omegaconf import DictConfig, open_dict

from squad_lit.run.config import quote
from squad_lit.run.job import Job
from squad_lit.run.launcher import find_gpus, run_jobs
from squad_lit.run.needs import faults
from squad_lit.run.objective import check_jobs, objective
from squad_lit.run.status import Status

Overrides = Sequence[Sequence[str]]


def launch(
    sweep: DictConfig, loader: ConfigLoader, overrides: Overrides, first: int, jobs: int | None, per_gpu: int | None
) -> list[JobReturn]:
    """Run the jobs of a sweep, numbered from ``first``, on this machine, on behalf of Hydra's launcher.

    Returns:
        For each job its objective, or an error that names all failed jobs.

    Raises:
        CompactHydraException: An error before the first job; Hydra shows its message.
    """
    try:
        for name, count in {"jobs": jobs, "jobs_per_gpu": per_gpu}.items():
            if count is not None and (type(count) is not int or count < 1):
                raise ValueError(f"hydra.launcher.{name}: expected a whole number of at least 1, got {count}")
        gpus = find_gpus() * per_gpu if per_gpu else []
        planned = _plan(sweep, loader, overrides, first)
        _check(planned, gpus, here=True)
    except ValueError as error:
        raise CompactHydraException(f"error: {error}") from None
    print(_how_to_go_on(sweep.hydra.sweep.dir), flush=True)
    status = Status(len(planned), sweep.sweep.stop_after)
    run_jobs(planned, side_by_side=min(jobs or len(gpus) or 1, len(planned)), gpus=gpus, status=status)
    return _returns(planned, sweep, overrides)


def launch_on_slurm(
    sweep: DictConfig, loader: ConfigLoader, overrides: Overrides, first: int, options: dict[str, Any]
) -> list[JobReturn]:
    """Run the jobs of a sweep, numbered from ``first``, as jobs of SLURM; see :func:`launch`.

    Args:
        sweep: The configuration of the sweep.
        loader: Composes the configuration of each job.
        overrides: The overrides of each job.
        first: The number of the first job.
        options: Those of ``conf/hydra/launcher/slurm.yaml``.
    """
    from squad_lit.run.slurm import run_on_slurm

    status = Status(len(overrides), sweep.sweep.stop_after)
    try:
        planned = _plan(sweep, loader, overrides, first)
        _check(planned, (), here=False)
        print(_how_to_go_on(sweep.hydra.sweep.dir), flush=True)
        run_on_slurm(planned, options, status)
    except ValueError as error:
        raise CompactHydraException(f"error: {error}") from None
    return _returns(planned, sweep, overrides)


def run_here(config: DictConfig) -> float:
    """Run a job of a sweep for another launcher, such as submitit's local one or Ray's, and return its objective.

    Raises:
        CompactHydraException: The job failed. The other jobs run.
    """
    settings = HydraConfig.get()
    name = f"job {settings.job.num} ({settings.job.override_dirname})"
    job = Job(Path(settings.runtime.output_dir), _arguments(settings), config, name)
    try:
        check_jobs([config])
        run_jobs([job])
        if job.figures is None:
            raise ValueError(f"{job.error}; {_how_to_go_on(settings.sweep.dir)}")
    except ValueError as error:
        raise CompactHydraException(f"{name}: {error}") from None
    return objective(job.figures, config.objective)


def _plan(sweep: DictConfig, loader: ConfigLoader, overrides: Overrides, first: int) -> list[Job]:
    """The jobs, each with its configuration and a name of the overrides in which it differs from others."""
    common = set(overrides[0]).intersection(*overrides)
    planned = []
    for number, own in enumerate(overrides, first):
        config = loader.load_sweep_config(sweep, [*own])
        with open_dict(config):
            config.hydra.job.num = config.hydra.job.id = number
            HydraConfig.instance().set_config(config)
            folder = Path(config.hydra.sweep.dir, str(config.hydra.sweep.subdir)).absolute()
            arguments = _arguments(config.pop("hydra"))
        varied = ", ".join(override for override in own if override not in common)
        planned.append(Job(folder, arguments, config, f"job {number} ({varied})" if varied else f"job {number}"))
    return planned


def _check(planned: Sequence[Job], gpus: Sequence[str], *, here: bool) -> None:
    """Check once, before the first job, what each job would fail of: options, folders of the data, a GPU.

    Args:
        planned: All jobs; those that are finished need nothing.
        gpus: The GPUs that jobs are bound to.
        here: Whether the jobs run on this machine, and need its GPU or its CPU cores.

    Raises:
        ValueError: A job has such an error; with its name, unless it is of all jobs.
    """
    configs = {job.name: job.config for job in planned if job.config is not None}
    check_jobs(list(configs.values()), gpus)
    todo = {}
    for job in planned:
        with contextlib.suppress(ValueError):  # a damaged file is the matter of this job alone
            if not job.find_figures() and job.config is not None:
                todo[job.name] = job.config
    if not todo:
        return
    if not (wrong := faults(todo, devices=here and not gpus)):
        return
    texts = list(dict.fromkeys(wrong.values()))
    if len(texts) == 1 and len(wrong) == len(todo):
        raise ValueError(texts[0])
    lines = [f"  {name}: {text.partition(chr(10))[0]}" for name, text in wrong.items()]
    hints = dict.fromkeys(text.partition("\n")[2] for text in texts)
    raise ValueError("\n".join([f"{len(wrong)} of {len(planned)} jobs cannot run:", *lines, *filter(None, hints)]))


def _returns(planned: Sequence[Job], sweep: DictConfig, overrides: Overrides) -> list[JobReturn]:
    """What Hydra's sweeper gets for each job; the sweep's end says where it is and what can be done next."""
    folder, stop_after = sweep.hydra.sweep.dir, sweep.sweep.stop_after
    failed = [job for job in planned if job.figures is None]
    if not failed:
        print(f"sweep folder: {folder}\nnext: squad-lit report {folder}", flush=True)
    unstarted = [job for job in failed if not job.error]
    others = f", {len(unstarted)} were not started (sweep.stop_after={stop_after})" if unstarted else ""
    lines = [f"error: {len(failed) - len(unstarted)} of the jobs failed{others}, all not named here are done:"]
    lines += [f"  {job.name}: {job.error.partition(chr(10))[0]}; see {job.folder}" for job in failed if job.error]
    told = CompactHydraException("\n".join([*lines, _how_to_go_on(folder), f"next: squad-lit report {folder}"]))
    return [
        JobReturn(
            overrides=[*own],
            cfg=job.config,
            status=JobStatus.FAILED if job in failed else JobStatus.COMPLETED,
            _return_value=told if job in failed or job.config is None else objective(job.figures, job.config.objective),
        )
        for job, own in zip(planned, overrides, strict=True)
    ]


def _arguments(settings: DictConfig | HydraConf) -> list[str]:
    """Arguments that compose a job's configuration again: its overrides and the folder of the user's configuration."""
    sources = [source.path for source in settings.runtime.config_sources if source.provider == "command-line"]
    given = ["--config-name", str(settings.job.config_name)]
    given += [part for path in sources for part in ("--config-dir", path)]
    return [*given, *settings.overrides.hydra, *settings.overrides.task]


def _how_to_go_on(folder: str) -> str:
    return f"if it is stopped, or jobs fail, the same command with hydra.sweep.dir={quote(folder)} does what is missing"
