"""Run many trainings as processes side by side, each on a GPU of its own; sweeps and searches use it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict

from squad_lit.run.folder import keep_record
from squad_lit.run.job import Job, is_first_process
from squad_lit.run.option import check, check_effect, cpu_cores
from squad_lit.run.status import Status
from squad_lit.system.console import FULL, end, on_sigterm, sentence
from squad_lit.system.file import naming, write_text
from squad_lit.system.lock import hold, take

_KILL = 9  # SIGKILL, which Windows has no name for
_ROOM = 2**16  # bytes, which Hydra needs before a run begins
_HELD = contextlib.ExitStack()  # until this process ends


def run_jobs(
    jobs: Iterable[Job],
    *,
    side_by_side: int = 1,
    gpus: Sequence[str] = (),
    on_end: Callable[[Job], None] | None = None,
    status: Status | None = None,
) -> list[Job]:
    """Run jobs to their ends, whether they succeed or not.

    Ctrl-C and SIGTERM are passed to all running jobs, which leave a checkpoint, and are raised afterwards. A second
    Ctrl-C kills the jobs.

    Args:
        jobs: The jobs. Each is taken when there is room for it.
        side_by_side: The largest number of jobs at a time. If it is above 1, they share the CPU cores, and their output
            goes to their folders.
        gpus: The GPUs. Each job is bound to one; a name that occurs n times serves n jobs at a time. Without any, jobs
            find their devices themselves.
        on_end: Called with each job that has ended, before the next one is taken.
        status: Counts the jobs; by default no counts are shown.

    Returns:
        The jobs in the order in which they ended, with their figures or their errors.
    """
    left: Iterator[Job] | None = iter(jobs)
    status = status or Status(1)
    running: dict[Job, contextlib.ExitStack] = {}
    ended: list[Job] = []
    threads = max(1, cpu_cores() // side_by_side) if side_by_side > 1 else None
    with on_sigterm(end):
        try:
            while running or left is not None:
                if left is not None and len(running) < side_by_side and (free := _take_gpu(gpus)) is not None:
                    gpu, lock = free
                    if (job := next(left, None)) is not None:
                        running[job] = lock
                        status.start(job)
                        with _failures(job):
                            job.start(gpu=gpu, threads=threads, quiet=side_by_side > 1)
                    else:
                        left = None
                        lock.close()
                elif all(job.is_running() for job in running):
                    status.tell()
                    time.sleep(0.1)
                for job in [job for job in running if not job.is_running()]:
                    with _failures(job):
                        job.read()
                    running.pop(job).close()
                    ended.append(job)
                    status.end(job, skipped=job.skipped)
                    if on_end is not None:
                        on_end(job)
                if status.stopped:
                    left = None
            status.tell()
        except BaseException as stop:
            _stop(running, signal.SIGINT if isinstance(stop, KeyboardInterrupt) else signal.SIGTERM)
            raise
    return ended


@contextlib.contextmanager
def _failures(job: Job) -> Iterator[None]:
    """Keep an error that ends this job alone."""
    try:
        yield
    except (ValueError, OSError) as error:
        job.error = str(error)


def _stop(jobs: Collection[Job], number: int) -> None:
    """Send a signal to jobs and wait for their ends; Ctrl-C during the wait kills them."""
    with on_sigterm(signal.SIG_IGN):  # SLURM sends several, and once is enough
        try:
            for job in jobs:
                job.send(number)
            if number != _KILL and any(job.is_running() for job in jobs):
                print("waiting for the jobs to leave a checkpoint; Ctrl-C again kills them", file=sys.stderr)
            while any(job.is_running() for job in jobs):
                time.sleep(0.1)
        except KeyboardInterrupt:
            _stop(jobs, _KILL)


def find_gpus() -> list[str]:
    """Names of the usable GPUs, as in ``CUDA_VISIBLE_DEVICES``; torch, which would occupy them, is not used.

    ``SQUAD_LIT_GPUS`` (such as ``0,2``) has precedence over ``CUDA_VISIBLE_DEVICES``, and that over the list of
    ``nvidia-smi``.

    Raises:
        ValueError: There is none.
    """
    given = os.environ.get("SQUAD_LIT_GPUS", os.environ.get("CUDA_VISIBLE_DEVICES"))
    if given is None and shutil.which("nvidia-smi"):
        # Not its numbers: by default CUDA counts the fastest first.
        command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        given = done.stdout.replace("\n", ",") if done.returncode == 0 else None
    if not (found := [name.strip() for name in (given or "").split(",") if name.strip()]):
        raise ValueError(
            "no GPU was found to give to jobs: SQUAD_LIT_GPUS=0,1 names them; without one, hydra.launcher.jobs=N (of a "
            "search: --jobs N) runs several jobs side by side on the CPU"
        )
    return found


def _take_gpu(among: Sequence[str]) -> tuple[str | None, contextlib.ExitStack] | None:
    """A GPU that no other job of this user on this machine uses, and what frees it; None if all are in use."""
    taken = contextlib.ExitStack()
    if not among:
        return None, taken
    folder = _own_folder()
    for i, name in enumerate(among):
        place = re.sub(r"\W", "_", f"{name} {list(among[:i]).count(name)}")  # the n-th job on this GPU
        if (lock := take(folder / f"gpu_{place}.lock")) is not None:
            taken.enter_context(lock)
            return name, taken
    return None


def _own_folder() -> Path:
    """The folder for the locks of this user's jobs on this machine, to which no other user has access.

    Raises:
        ValueError: Another user has made it, or a link in its place.
    """
    user = re.sub(r"\W", "_", psutil.Process().username())
    folder = Path(tempfile.gettempdir()) / f"squad_lit_{user}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if sys.platform != "win32":
        about = folder.lstat()
        if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid():
            raise ValueError(f"{folder} is not of this user: remove it, or set TMPDIR to another folder")
        folder.chmod(0o700)  # older versions let others in
    return folder


class Folder(Callback):
    """Check before a run or a sweep that its folder can be written to and that no other process uses it.

    Options of a run that are wrong are told here, before Hydra writes them into a folder with the results of another.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        HydraConfig.instance().set_config(config)
        composed = config.copy()
        with open_dict(composed):
            composed.output = ""  # Hydra does not know it yet
        try:
            check(composed)
            check_effect(composed, list(config.hydra.overrides.task))
        except ValueError as error:
            folder = Path(config.hydra.run.dir)
            if folder.is_dir() and not (folder / "metrics.json").exists():  # of a job, whose sweep reads it there
                write_text(folder / "error.txt", f"{error}\n")
            sys.exit(f"error: {error}")
        self._take(config, "run")

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        self._take(config, "sweep")

    def _take(self, config: DictConfig, mode: str) -> None:
        """Create the folder and keep it; Hydra would show a stack trace, or write into that of another process."""
        HydraConfig.instance().set_config(config)  # interpolations in the name need it
        folder = Path(config.hydra[mode].dir)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if is_first_process():
                _HELD.enter_context(hold(folder))
                keep_record(folder)
                with naming(folder), tempfile.TemporaryFile(dir=folder) as file:
                    file.write(bytes(_ROOM))
        except OSError as error:
            if error.errno in FULL:
                sys.exit(f"error: {sentence(error)}")
            sys.exit(f"error: hydra.{mode}.dir={folder}: {error.strerror}; choose another folder")
        except ValueError as error:
            sys.exit(f"error: {error}")
