"""A training as one job of many, in a process and a folder of its own; a finished job is not run again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from omegaconf import DictConfig, OmegaConf, open_dict

from squad_lit.run.config import compose, quote
from squad_lit.run.option import check, check_effect
from squad_lit.run.reader import read_config
from squad_lit.system.console import say
from squad_lit.system.figures import read_figures
from squad_lit.system.file import check_archive, write_text
from squad_lit.system.lock import hold

WORKERS = "model.pool.workers"
"""The one option of the model that changes no figure."""
# Options that change no figure: where files lie, how they are read, what is shown.
_NO_EFFECT = ["callback", "logger", "threads", "resume", "objective", "output", "export", "trust", "sweep"]
_NO_EFFECT += ["dataset.root", "dataset.cache", "dataset.cache_folder", "dataset.num_workers"]
_NO_EFFECT += [WORKERS]
_NO_EFFECT += ["trainer.enable_progress_bar", "trainer.log_every_n_steps", "trainer.default_root_dir"]

# Environment variables that tell a process its rank in a distributed training.
_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")


@dataclass(eq=False)
class Job:
    """A training, unless its folder has the figures already; it goes on from the folder's checkpoint if there is one.

    Each job is a process. Its CUDA context, threads, memory and W&B run do not reach the next job, a killed job takes
    no other with it, and a job on several devices may start further processes.

    Args:
        folder: The folder of this job alone.
        arguments: The arguments of ``python -m squad_lit.train``.
        config: The configuration that the arguments compose, without ``hydra``; None: it is composed at the start.
        name: The name in messages; by default that of the folder.
        figures: The content of ``metrics.json`` once the job has ended; None: it failed.
        error: The reason why it failed.
    """

    folder: Path
    arguments: Sequence[str]
    config: DictConfig | None = None
    name: str = ""
    figures: dict[str, Any] | None = None
    error: str = ""
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.name = self.name or self.folder.name

    @property
    def skipped(self) -> bool:
        """Whether it was finished before."""
        return self.figures is not None and self._process is None

    def start(self, *, gpu: str | None = None, threads: int | None = None, quiet: bool = False) -> None:
        """Start the process, if there is something to do.

        Args:
            gpu: As in ``CUDA_VISIBLE_DEVICES``; None: the process finds its devices itself.
            threads: Number of CPU threads, unless the configuration or the environment sets it.
            quiet: Whether the output goes to ``output.log`` in the folder and not to the terminal.

        Raises:
            ValueError: The folder is in use, or has a damaged file or the run of another configuration.
        """
        if self.config is None:
            self.config = compose_job(self.arguments)
        self.folder.mkdir(parents=True, exist_ok=True)
        # The process takes it for itself. Of a training on several nodes, the first one does.
        with hold(self.folder) if _node(self.config) == 0 else contextlib.nullcontext():
            if self.find_figures():
                return
            resume = _resume(self.folder, self.config)
            (self.folder / "error.txt").unlink(missing_ok=True)
        if resume:
            print(f"{self.name} goes on from its last.ckpt", flush=True)
        environment = {key: value for key, value in os.environ.items() if key not in _RANKS}
        if slurm := "SLURM_JOB_NAME" in environment:
            environment |= _nodes(self.config)
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        if threads is not None and not self.config.get("threads"):
            environment.setdefault("OMP_NUM_THREADS", str(threads))
        command = shlex.split(os.environ.get("SQUAD_LIT_TRAIN", "")) or [sys.executable, "-m", "squad_lit.train"]
        command += [*self.arguments, f"hydra.run.dir={quote(self.folder)}", "hydra.mode=RUN", *resume]
        with (self.folder / "output.log").open("ab") if quiet else contextlib.nullcontext() as output:
            self._process = subprocess.Popen(
                command,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT if quiet else None,
                start_new_session=True,  # Ctrl-C reaches it from here, once, and with it all processes of the job
                preexec_fn=_ignore_usr2 if slurm else None,
            )

    def find_figures(self) -> bool:
        """Whether the folder has the figures of this configuration, which are read.

        Raises:
            ValueError: The file is damaged.
        """
        found = read_figures(self.folder)
        if found is None or self.config is None or found["run"].get("config_hash") != config_hash(self.config):
            return False
        self.figures = found
        return True

    def is_running(self) -> bool:
        """Whether there is a process that has not ended yet."""
        return self._process is not None and self._process.poll() is None

    def read(self) -> None:
        """Read the figures that the ended process has left.

        Raises:
            ValueError: The process failed; with its message.
            KeyboardInterrupt: The process was interrupted.
        """
        if self._process is None:
            return
        status = self._process.returncode
        if status == 130:
            raise KeyboardInterrupt
        if status == 0 and self.config is not None and _node(self.config) > 0:
            self.figures = {}  # the first node has them
            return
        self.figures = read_figures(self.folder) if status == 0 else None
        if self.figures is not None:
            return
        error = self.folder / "error.txt"
        if not error.exists():
            reason = f"was killed by signal {-status}" if status < 0 else f"ended with exit status {status}"
            killed = ", perhaps for memory" if status == -9 else ""
            write_text(error, f"its process {reason}{killed}, without a message\n")
        raise ValueError(error.read_text(encoding="utf-8", errors="replace").strip())

    def send(self, number: int) -> None:
        """Send a signal to all processes of the job, if it runs."""
        if self._process is None or not self.is_running():
            return
        if sys.platform != "win32":
            os.killpg(self._process.pid, number)
        # On Windows, Ctrl-C reaches all processes of a console by itself, and no other signal leaves time.
        elif number != signal.SIGINT:
            for process in [*psutil.Process(self._process.pid).children(recursive=True), self._process]:
                process.kill()


def _ignore_usr2() -> None:
    """SLURM sends it to all processes of a job before its time is over; a training would end without a checkpoint."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def _has_nodes(config: DictConfig) -> bool:
    return int(OmegaConf.select(config, "trainer.num_nodes") or 1) > 1


def _node(config: DictConfig) -> int:
    """Number of this node among those of a training."""
    return int(os.environ.get("SLURM_NODEID", 0)) if _has_nodes(config) else 0


def _nodes(config: DictConfig) -> dict[str, str]:
    """Variables of the environment by which Lightning starts the processes of a job of SLURM, on one node or several.

    SLURM runs one task per node, which starts the processes of this node.
    """
    # With this name Lightning does not look for a task of SLURM per process.
    found = {"SLURM_JOB_NAME": "interactive"}
    if not _has_nodes(config):
        return found
    names = ["scontrol", "show", "hostnames", os.environ["SLURM_JOB_NODELIST"]]
    first = subprocess.run(names, capture_output=True, text=True, check=True).stdout.split()[0]
    where = ["scontrol", "show", "node", "--oneliner", first]
    address = re.search(r"NodeAddr=(\S+)", subprocess.run(where, capture_output=True, text=True, check=True).stdout)
    port = 20000 + int(os.environ["SLURM_JOB_ID"]) % 20000  # the same on all nodes, and another one per job
    found |= {"NODE_RANK": os.environ["SLURM_NODEID"], "MASTER_ADDR": address[1] if address else first}
    return found | {"MASTER_PORT": str(port)}


def is_first_process() -> bool:
    """Whether this process is the one that writes: the first of a distributed training, or the only one."""
    return all(os.environ.get(rank, "0") == "0" for rank in _RANKS)


def compose_job(overrides: Sequence[str]) -> DictConfig:
    """Compose the configuration of a job, checked as far as it can be without data.

    Raises:
        ValueError: Options that are wrong or do not go together, or that are a sweep.
    """
    config = compose(overrides, with_hydra=True)
    with open_dict(config):
        config.output = ""
        if config.pop("hydra").sweeper.params:
            raise ValueError("a job takes no experiment that is a sweep itself: give its data set and category")
    check(config)
    check_effect(config, overrides)
    return config


def config_hash(config: DictConfig) -> str:
    """Twelve hexadecimal digits; configurations that give the same figures have the same."""
    return hashlib.sha256(json.dumps(_effective(config), sort_keys=True).encode()).hexdigest()[:12]


def differences(a: Any, b: Any, name: str = "") -> list[str]:
    """Names of the leaves in which two plain configurations differ, each preceded by ``name``."""
    if isinstance(a, dict) and isinstance(b, dict):
        return [d for k in a.keys() | b.keys() for d in differences(a.get(k), b.get(k), f"{name}.{k}".lstrip("."))]
    return [] if a == b else [name]


def _effective(config: DictConfig) -> dict[str, Any]:
    """The resolved configuration without what changes no figure."""
    plain: Any = OmegaConf.to_container(config, resolve=False)  # the folder is known in a run alone
    for name in _NO_EFFECT:
        *nodes, key = name.split(".")
        # The root of a benchmark is a place; the root of a user's folder identifies the data.
        if name == "dataset.root" and str(OmegaConf.select(config, "dataset._target_")).endswith(".Folder"):
            continue
        parent = plain
        for node in nodes:
            parent = parent.get(node) if isinstance(parent, dict) else None
        if isinstance(parent, dict):
            parent.pop(key, None)
    content: dict[str, Any] = OmegaConf.to_container(OmegaConf.create(plain), resolve=True)  # type: ignore[assignment]
    return content


def _resume(folder: Path, config: DictConfig) -> list[str]:
    """The option that continues an interrupted job in the folder; another configuration is never overwritten."""
    checkpoint = folder / "last.ckpt"
    if not checkpoint.exists():
        if read_figures(folder) is not None:
            raise ValueError(f"{folder} has the figures of another configuration: choose another folder")
        return []
    saved = read_config(folder / "config.yaml")
    if different := sorted(differences(_effective(saved), _effective(config))):
        raise ValueError(f"{folder} has a run with other values of {', '.join(different)}: choose another folder")
    try:
        check_archive(checkpoint)
    except ValueError as error:
        say(f"{checkpoint} is damaged ({error}): the job starts anew", to=sys.stderr)
        checkpoint.unlink()
        return []
    return [f"resume={quote(checkpoint)}"]
