"""What the processes of one training bring together; with a single process each function returns what it is given."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.strategies.launchers import subprocess_script
from torch import Tensor, distributed

if TYPE_CHECKING:
    import lightning as L

log = logging.getLogger(__name__)

# How the machines of a training find each other, where neither SLURM nor torchrun tells them.
_NODE = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK")
# Seconds in which this process has to leave a checkpoint when another one has ended.
_GRACE = 60
_NEVER_MET = ("waiting for clients", "trying to connect")  # in what torch says when a process has never come
_CONNECTION = ("gloo", "nccl", "connection", "broken pipe", "socket", *_NEVER_MET)  # or is gone
_started: list[subprocess.Popen[bytes]] = []


def gather(found: dict[int, Any]) -> dict[int, Any] | None:
    """Bring together, in the first process, what all processes have found for the images, by index.

    Returns:
        All of it in the first process, or the only one; None in the others.
    """
    if not _several():
        return found
    first = distributed.get_rank() == 0
    parts: list[dict[int, Any]] | None = [{}] * distributed.get_world_size() if first else None
    distributed.gather_object(found, parts)
    return {index: one for part in parts or [] for index, one in part.items()} if first else None


def share(value: Any) -> Any:
    """The value that the first process gives, in every process."""
    if not _several():
        return value
    held = [value]
    distributed.broadcast_object_list(held)
    return held[0]


def total(value: Tensor) -> Tensor:
    """The sum of a tensor that each process has one of."""
    if not _several():
        return value
    value = value.clone()
    distributed.all_reduce(value)
    return value


def check_nodes(trainer: L.Trainer) -> None:
    """Say which other machines this process waits for, where no cluster starts their processes.

    Raises:
        ValueError: It cannot find them, and would wait for ever.
    """
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if trainer.num_nodes == 1 or not isinstance(environment, LightningEnvironment):
        return
    if missing := [name for name in _NODE if not os.environ.get(name)]:
        raise ValueError(
            f"trainer.num_nodes={trainer.num_nodes}: this machine does not know the others: start the training by "
            f"-m hydra/launcher=slurm or by torchrun, or on each machine with {', '.join(_NODE)} in its environment, "
            f"where NODE_RANK counts the machines from 0 (missing: {', '.join(missing)})"
        )
    if environment.local_rank():
        return
    address, port, number = (os.environ[name] for name in _NODE)
    first = f"machine {number} of {trainer.num_nodes} waits for the others at {address}:{port}"
    log.info("%s; they get the same command, MASTER_ADDR and MASTER_PORT, and NODE_RANKs of their own", first)


def watch() -> None:
    """End this process with a word and, if it can, a checkpoint when one that it has started for a training has failed.

    Lightning's own way kills it at once, without either.
    """
    subprocess_script._launch_process_observer = _watch  # type: ignore[attr-defined,assignment]


def _watch(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    _started[:] = processes

    def run() -> None:
        try:
            while not (reason := _failure()):
                time.sleep(0.5)
        except KeyboardInterrupt:
            reason = "one of its processes was interrupted"
        time.sleep(_GRACE)  # mostly it has noticed that the connection is lost, and ends by itself
        print(f"error: {reason}", file=sys.stderr)
        for process in processes:
            process.kill()
        os._exit(1)

    threading.Thread(target=run, daemon=True).start()


def lost(error: Exception) -> str:
    """Which process is gone, where an error of torch says that the connection to it is lost; else empty.

    Raises:
        KeyboardInterrupt: It was interrupted.
    """
    words = str(error).lower()
    if not isinstance(error, RuntimeError) or not any(word in words for word in _CONNECTION):
        return ""
    for _ in range(20):  # it may not have ended quite yet
        if reason := _failure():
            return reason
        time.sleep(0.1 if _started else 0)
    if any(word in words for word in _NEVER_MET):
        said = str(error).partition("\n")[0]
        return f"the processes of this training have not found each other ({said}): look at those of all machines"
    return "another process of this training has ended, and the connection to it is lost"


def _failure() -> str:
    """How the first process that has failed has ended; empty as long as none has."""
    for rank, process in enumerate(_started, 1):
        status = process.poll()
        if status in (130, -2):
            raise KeyboardInterrupt
        if status:
            how = f"was killed by signal {-status}" if status < 0 else f"ended with exit status {status}"
            return f"process {rank} of this training {how}{', perhaps for memory' if status == -9 else ''}"
    return ""


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
