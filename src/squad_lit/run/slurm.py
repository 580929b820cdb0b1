"""Run the jobs of a sweep as jobs of SLURM; what the queue and the jobs' folders say is enough, without accounting."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from squad_lit.run.job import Job
from squad_lit.run.launcher import run_jobs
from squad_lit.run.status import Status
from squad_lit.system.file import write_text
from squad_lit.system.package import require

_ID = ".slurm"  # file in the folder of a job, with the number that SLURM gave it
_POLL = 10  # seconds between questions to SLURM
_STARTED = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT")


class _Entry(NamedTuple):
    """A job in the queue."""

    state: str
    reason: str


class _Remote:
    """What a job of SLURM does; submitit calls ``checkpoint`` before the time is over, and runs what it returns.

    Args:
        patience: How long, in seconds, a training may take to leave a checkpoint before the time is over.
    """

    def __init__(self, patience: float) -> None:
        self.patience = patience

    def __call__(self, job: Job) -> None:
        try:
            run_jobs([job])
        except require("submitit").core.utils.UncompletedJobError:  # raised by its handler of the signal
            job.error = (
                "it ran out of time too often: raise hydra.launcher.timeout_min or hydra.launcher.max_num_timeout"
            )
            write_text(job.folder / "error.txt", f"{job.error}\n")
        if job.figures is None:
            if not (file := job.folder / "error.txt").exists():
                write_text(file, f"{job.error}\n")
            sys.exit(1)  # SLURM, too, calls it failed

    def checkpoint(self, job: Job) -> Any:
        job.send(signal.SIGTERM)  # now: SLURM kills the training when it queues the job again
        deadline = time.monotonic() + self.patience
        while job.is_running() and time.monotonic() < deadline:
            time.sleep(0.1)
        return require("submitit").helpers.DelayedSubmission(self, Job(job.folder, job.arguments, job.config, job.name))


def run_on_slurm(jobs: Sequence[Job], options: Mapping[str, Any], status: Status) -> None:
    """Run jobs to their ends, whether they succeed or not.

    Finished jobs are skipped, and jobs that an earlier call has left in the queue are waited for. Those that are
    neither are submitted as one array. Ctrl-C ends the waiting, and SLURM goes on.

    Args:
        jobs: The jobs. They get their figures or their errors.
        options: Those of ``conf/hydra/launcher/slurm.yaml``, without ``_target_``.
        status: Counts the jobs.

    Raises:
        ValueError: SLURM is not there, or refuses the jobs.
        KeyboardInterrupt: Ctrl-C.
    """
    queue = _queue()
    ids: dict[Job, str] = {}
    new: list[Job] = []
    for job in jobs:
        found = (job.folder / _ID).read_text() if (job.folder / _ID).is_file() else ""
        if found in queue:
            ids[job] = found
        elif _find_figures(job) or job.error:
            status.end(job, skipped=True)
        else:
            new.append(job)
    if ids:
        print(f"{len(ids)} jobs are in SLURM's queue already, and are waited for", flush=True)
    if new:
        ids |= _submit(new, options)
    try:
        _wait(ids, status, options["submitit_folder"])
    except KeyboardInterrupt:
        numbers = " ".join(sorted({number.partition("_")[0] for number in ids.values()}))
        print(f"the jobs go on in SLURM; scancel {numbers} would stop them", file=sys.stderr)
        raise


def _submit(jobs: Sequence[Job], options: Mapping[str, Any]) -> dict[Job, str]:
    """Submit jobs as an array; their numbers lie in their folders, where the next call finds them."""
    submitit = require("submitit")
    if options["tasks_per_node"] != 1:
        raise ValueError(
            "hydra.launcher.tasks_per_node: expected 1, got "
            f"{options['tasks_per_node']}: the task of a node starts the processes of its devices (trainer.devices)"
        )
    given = {key: value for key, value in options.items() if value is not None}
    folder, timeouts = given.pop("submitit_folder"), given.pop("max_num_timeout")
    common = {"timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "name"}
    common |= {"stderr_to_stdout"}
    for job in jobs:
        job.folder.mkdir(parents=True, exist_ok=True)
        (job.folder / "error.txt").unlink(missing_ok=True)
    try:
        executor = submitit.AutoExecutor(cluster="slurm", folder=folder, slurm_max_num_timeout=timeouts)
        executor.update_parameters(**{key if key in common else f"slurm_{key}": v for key, v in given.items()})
        # SLURM's signal comes so long before the end, or up to a minute earlier.
        sent = executor.map_array(_Remote(0.75 * options["signal_delay_s"]), jobs)
    except (submitit.core.utils.FailedJobError, subprocess.SubprocessError, OSError, RuntimeError) as error:
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise ValueError(f"SLURM did not take the jobs: {lines[-1].removeprefix('subprocess.')}") from error
    found = {job: str(one.job_id) for job, one in zip(jobs, sent, strict=True)}
    for job, number in found.items():
        write_text(job.folder / _ID, number)
    return found


def _wait(ids: dict[Job, str], status: Status, output: str) -> None:
    """Wait until the jobs have left the queue, and count them; their output is in a folder, with %j for the number."""
    left, missed = dict(ids), set[Job]()
    while left:
        queue = _queue(patient=True)
        for job, number in [*left.items()]:
            if (entry := queue.get(number)) is not None:
                missed.discard(job)
                if entry.state in _STARTED:
                    status.start(job)
                else:
                    status.wait(job)
            elif job not in missed:
                missed.add(job)  # once more: its last file may not be visible here yet
            else:
                _read(job, number, output.replace("%j", number))
                status.end(job)
                del left[job]
        waiting = {job: n for job, n in left.items() if n in queue and queue[n].state not in _STARTED}
        if status.stopped and waiting:
            subprocess.run(["scancel", *waiting.values()], check=False)
            left = {job: number for job, number in left.items() if job not in waiting}
        status.tell(", ".join(sorted({queue[n].reason for n in waiting.values()} - {"None"})))
        if left:
            time.sleep(1 if missed else _POLL)


def _read(job: Job, number: str, output: str) -> None:
    """The figures of a job that has left the queue, or the reason why it has none."""
    if _find_figures(job) or job.error:
        return
    if (file := job.folder / "error.txt").is_file():
        job.error = file.read_text(encoding="utf-8").strip()
        return
    done = subprocess.run(
        ["scontrol", "--oneliner", "show", "job", number], capture_output=True, text=True, check=False
    )
    state = re.search(r"JobState=(\w+)", done.stdout)
    said = f"SLURM says {state[1]}" if state else "SLURM has forgotten it"
    job.error = f"its job {number} in SLURM ended without figures or a message: {said}; its output is in {output}"


def _find_figures(job: Job) -> bool:
    """Whether a job is finished; a damaged file is its error."""
    try:
        return job.find_figures()
    except ValueError as error:
        job.error = str(error)
        return False


def _queue(*, patient: bool = False) -> dict[str, _Entry]:
    """The user's jobs in SLURM's queue, by number.

    Args:
        patient: Whether to wait while SLURM's controller does not answer.

    Raises:
        ValueError: There is no SLURM, or it does not answer.
    """
    if shutil.which("squeue") is None:
        raise ValueError(
            "hydra/launcher=slurm: there is no SLURM on this machine (no squeue): start it on a login node"
        )
    told = False
    while True:
        command = ["squeue", "--me", "--array", "--noheader", "--format=%i|%T|%r"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            break
        said = done.stderr.strip().splitlines()
        text = f"SLURM does not answer: {said[-1] if said else 'squeue failed'}"
        if not patient:
            raise ValueError(text)
        if not told:
            print(f"{text}; it is asked again every {_POLL} s", file=sys.stderr)
            told = True
        time.sleep(_POLL)
    rows = [line.split("|", 2) for line in done.stdout.splitlines()]
    return {number: _Entry(state, reason) for number, state, reason in rows}
