"""Locks between the processes of a machine: the system frees them when their process ends, however it ends."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import IO


def take(path: Path) -> IO[str] | None:
    """Take a file as a lock, if nobody has it.

    Args:
        path: Created where it is missing. What its owner writes into it, :func:`owner` reads.

    Returns:
        The open file: the lock lasts until it is closed here and in every process that inherited it. None: taken.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+")  # not "w": what is in it is its owner's
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    file.truncate(0)
    return file


def owner(path: Path) -> int | None:
    """The process that the owner of a lock has written into it; None: the lock is free, or nothing is written."""
    if (free := take(path)) is not None:
        free.close()
        return None
    text = path.read_text()
    return int(text) if text else None


def hold(folder: Path) -> IO[str]:
    """Take the folder of a sweep or a search; the open file as of :func:`take`.

    Raises:
        ValueError: Another one runs there.
    """
    if (held := take(folder / ".sweep.lock")) is None:
        raise ValueError(f"another sweep or search is running in {folder}: wait for its end, or choose another folder")
    return held


def gpus() -> list[str]:
    """GPUs that may be used, as in ``CUDA_VISIBLE_DEVICES``; found without torch, so that none is touched.

    ``SQUAD_LIT_GPUS`` (such as ``0,2``) goes before ``CUDA_VISIBLE_DEVICES``, and that before what
    ``nvidia-smi`` lists.

    Raises:
        ValueError: There is none.
    """
    given = os.environ.get("SQUAD_LIT_GPUS", os.environ.get("CUDA_VISIBLE_DEVICES"))
    if given is None and shutil.which("nvidia-smi"):
        # Not its numbers: by default CUDA counts the fastest first.
        command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        given = done.stdout.replace("\n", ",") if done.returncode == 0 else None
    found = [name.strip() for name in (given or "").split(",") if name.strip()]
    if not found:
        raise ValueError(
            "no GPU was found to give to jobs: SQUAD_LIT_GPUS=0,1 names them; on a machine without one use "
            "hydra/launcher=joblib, or leave the launcher out"
        )
    return found


def take_gpu(among: list[str]) -> tuple[str, IO[str]] | None:
    """Take the first GPU that no other job of this user on this machine has; None if all are taken."""
    folder = Path(tempfile.gettempdir()) / f"squad_lit_{os.getuid()}"
    for name in among:
        if (file := take(folder / f"gpu_{name.replace('/', '_')}.lock")) is not None:
            return name, file
    return None
