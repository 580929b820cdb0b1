"""A training as one job of many: a process of its own, a folder of its own, and nothing done twice."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from squad_lit.run import lock
from squad_lit.system.file import read_figures, write_text

log = logging.getLogger(__name__)

_COMMAND = [sys.executable, "-m", "squad_lit.train"]
# Options that change no figure: where files lie, how they are read, what is shown.
_NO_EFFECT = ["callback", "logger", "threads", "resume", "objective", "output", "trust"]
_NO_EFFECT += ["dataset.root", "dataset.cache", "dataset.cache_folder", "dataset.num_workers"]
_NO_EFFECT += ["trainer.enable_progress_bar", "trainer.log_every_n_steps", "trainer.default_root_dir"]


class Job:
    """Starts a training, unless its folder has the figures already; goes on from the checkpoint if it has one.

    A process for each job: what one leaves behind (CUDA, threads, memory, a W&B run) does not reach the next, one that
    is killed takes no other with it, and one on several devices may start processes of its own, which inside a sweep
    would start the sweep again.

    Args:
        folder: Of this job alone.
        config: As it composes from ``arguments``; a whole configuration without ``hydra``.
        arguments: Of ``python -m squad_lit.train``.
        gpus: To take a free one of; None: the process finds its devices itself.
        quiet: Its output goes to ``output.log`` in the folder and not to the terminal.

    Raises:
        ValueError: The folder is in use, has a damaged file or the run of another configuration, or a job on the CPU
            is to get a GPU.
    """

    def __init__(
        self,
        folder: Path,
        config: DictConfig,
        arguments: Sequence[str],
        *,
        gpus: list[str] | None = None,
        quiet: bool = False,
    ) -> None:
        self.folder = folder
        if gpus is not None:
            check_gpu(config)
        held = lock.take(folder / ".lock")
        if held is None:
            raise ValueError(f"{folder} is in use by another process")
        self._held: list[IO[str]] = [held]
        self._process: subprocess.Popen[bytes] | None = None
        try:
            found = read_figures(folder)
            self.skipped = found is not None and found["run"].get("config_hash") == config_hash(config)
            if self.skipped:
                return
            more = [f"hydra.run.dir={quote(folder)}", "hydra.mode=RUN", *_resume(folder, config)]
            self._start([*arguments, *more], gpus, quiet)
        except BaseException:
            self._release()
            raise

    def _start(self, arguments: Sequence[str], gpus: list[str] | None, quiet: bool) -> None:
        (self.folder / "error.txt").unlink(missing_ok=True)
        environment = dict(os.environ)
        if "SLURM_JOB_NAME" in environment:
            # By this name Lightning knows that the processes of a job are its own to start, and not SLURM's tasks.
            environment["SLURM_JOB_NAME"] = "interactive"
        if gpus is not None:
            while (taken := lock.take_gpu(gpus)) is None:
                time.sleep(1.0)
            name, held = taken
            self._held.append(held)
            environment |= {"CUDA_VISIBLE_DEVICES": name}
            log.info("%s: GPU %s", self.folder, name)
        with contextlib.ExitStack() as stack:
            output = stack.enter_context((self.folder / "output.log").open("a")) if quiet else None
            self._process = subprocess.Popen(
                [*_COMMAND, *arguments],
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT if quiet else None,
                pass_fds=[file.fileno() for file in self._held],  # so that it keeps them if this process is killed
                process_group=0,  # Ctrl-C reaches it from here, once, and with it all processes of the job
            )
        print(self._process.pid, end="", file=self._held[0], flush=True)

    def is_running(self) -> bool:
        """Whether the process has not ended yet."""
        return self._process is not None and self._process.poll() is None

    def figures(self) -> dict[str, Any]:
        """What is in ``metrics.json``, once the process has ended.

        Raises:
            ValueError: The job failed; its sentence.
            KeyboardInterrupt: It was interrupted.
        """
        self._release()
        status = self._process.returncode if self._process is not None else 0
        if status == 130:
            raise KeyboardInterrupt
        found = read_figures(self.folder)
        if status == 0 and found is not None:
            return found
        error = self.folder / "error.txt"
        if not error.exists():
            reason = f"was killed by signal {-status}" if status < 0 else f"ended with exit status {status}"
            killed = ", perhaps for memory" if status == -signal.SIGKILL else ""
            write_text(error, f"its process {reason}{killed}, without a message\n")
        raise ValueError(error.read_text(encoding="utf-8").strip())

    def _release(self) -> None:
        for file in self._held:
            file.close()

    def send(self, number: int) -> None:
        """Send a signal to all processes of the job, if it runs."""
        if self._process is not None and self.is_running():
            os.killpg(self._process.pid, number)


def wait(jobs: Sequence[Job]) -> list[Job]:
    """Wait until a job has ended, and return those that have.

    Ctrl-C and SIGTERM meanwhile reach all the jobs, which leave a checkpoint; they are raised when the jobs have ended.
    """
    with _sigterm_raises():
        try:
            while not (ended := [job for job in jobs if not job.is_running()]):
                time.sleep(0.1)
            return ended
        except (KeyboardInterrupt, SystemExit) as stop:
            for job in jobs:
                job.send(signal.SIGINT if isinstance(stop, KeyboardInterrupt) else signal.SIGTERM)
            try:
                while any(job.is_running() for job in jobs):
                    time.sleep(0.1)
            except KeyboardInterrupt:  # a second one
                for job in jobs:
                    job.send(signal.SIGKILL)
            raise


def stop_below(folder: Path, number: int) -> None:
    """Send a signal to all jobs in and below a folder, whoever has started them, and wait for their end."""
    jobs = {path: process for path in folder.rglob(".lock") if (process := lock.owner(path)) is not None}
    for process in jobs.values():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process, number)
    while any(lock.owner(path) == process for path, process in jobs.items()):
        time.sleep(0.1)


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def check_gpu(config: DictConfig) -> None:
    """Refuse to give a job a GPU that it would not use.

    Raises:
        ValueError: Its trainer is one for the CPU.
    """
    if OmegaConf.select(config, "trainer.accelerator") == "cpu":
        raise ValueError("each job is to get a GPU, but this trainer computes on the CPU: add trainer=gpu")


def read_config(path: Path) -> DictConfig:
    """A configuration that a run has written.

    Raises:
        ValueError: The file is damaged, or something else.
    """
    try:
        found = OmegaConf.load(path)
    except (ValueError, YAMLError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if not isinstance(found, DictConfig):
        raise ValueError(f"{path} is no configuration: expected keys with values, got a list")
    return found


def config_hash(config: DictConfig) -> str:
    """Twelve hexadecimal digits that are the same for configurations that give the same figures."""
    return hashlib.sha256(json.dumps(_effective(config), sort_keys=True).encode()).hexdigest()[:12]


def differences(a: Any, b: Any, name: str = "") -> list[str]:
    """Names of the leaves in which two plain configurations differ, each preceded by ``name``."""
    if isinstance(a, dict) and isinstance(b, dict):
        return [d for k in a.keys() | b.keys() for d in differences(a.get(k), b.get(k), f"{name}.{k}".lstrip("."))]
    return [] if a == b else [name]


def quote(value: object) -> str:
    """A text as Hydra's grammar takes it on a command line, whatever is in it."""
    # A backslash stands for itself, except before a quote.
    return "'" + re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + m[2].replace("'", "\\'"), str(value)) + "'"


def _effective(config: DictConfig) -> dict[str, Any]:
    """The resolved configuration without what changes no figure."""
    plain = config.copy()
    OmegaConf.set_struct(plain, False)
    for name in _NO_EFFECT:
        node, _, key = name.rpartition(".")
        # The root of a benchmark says where it lies, that of one's own folder which data it is.
        if name == "dataset.root" and str(OmegaConf.select(plain, "dataset._target_")).endswith(".Folder"):
            continue
        parent = OmegaConf.select(plain, node) if node else plain
        if isinstance(parent, DictConfig):
            parent.pop(key, None)
    content: dict[str, Any] = OmegaConf.to_container(plain, resolve=True)  # type: ignore[assignment]
    return content


def _resume(folder: Path, config: DictConfig) -> list[str]:
    """How to go on with what an interrupted job has left; of another configuration nothing is overwritten."""
    if not (folder / "last.ckpt").exists():
        if read_figures(folder) is not None:
            raise ValueError(f"{folder} has the figures of another configuration: choose another folder")
        return []
    saved = read_config(folder / "config.yaml")
    if different := sorted(differences(_effective(saved), _effective(config))):
        raise ValueError(f"{folder} has a run with other values of {', '.join(different)}: choose another folder")
    log.info("%s: goes on from its last.ckpt", folder)
    return [f"resume={quote(folder / 'last.ckpt')}"]
