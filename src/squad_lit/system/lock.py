"""A folder, or a file, that one process has at a time, however that process ends."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import IO

# Where msvcrt locks: what lies before stays readable to others.
_FAR = 2**30
_HELD: set[tuple[Path, int]] = set()  # by path and thread
_TAKEN = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)  # a file system without them


@contextlib.contextmanager
def hold(path: Path) -> Iterator[None]:
    """Keep other processes out of a folder, or off a file, until the end of a ``with`` block or of this process.

    The thread that has it may take it again.

    Args:
        path: The folder, whose lock is ``.lock`` in it, or the file, whose lock is ``.NAME.lock`` beside it.

    Raises:
        ValueError: Another process has it; says which and since when.
        OSError: The lock cannot be written.
    """
    key = path.absolute(), threading.get_ident()
    if key in _HELD:
        yield
        return
    is_folder = path.is_dir()
    file = path / ".lock" if is_folder else path.with_name(f".{path.name}.lock")
    if (taken := take(file)) is None:
        with contextlib.suppress(OSError):
            owner = file.read_text(encoding="utf-8", errors="replace").strip()
        kind = "folder" if is_folder else "file"
        raise ValueError(
            f"{path} is in use by {owner or 'another process'}: wait for its end, or choose another {kind}"
        )
    _HELD.add(key)
    try:
        yield
    finally:
        _HELD.discard(key)
        taken.close()


def take(file: Path) -> IO[bytes] | None:
    """Take the lock of a file, which is made if it is missing, and write into it who has it.

    A link in its place is not followed: it may be of another user and lead to any file.

    Returns:
        What frees the lock when it is closed, as the end of this process does; None if another one has the lock. Where
        the file system has no locks, nothing is locked.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    stream = os.fdopen(os.open(file, flags, 0o666), "r+b", buffering=0)  # nothing is left to write when it is closed
    try:
        _lock(stream)
    except OSError as error:
        if error.errno in _TAKEN:
            stream.close()
            return None
        if error.errno not in _NO_LOCKS:
            stream.close()
            raise
    stream.seek(0)
    stream.truncate()
    program, now = Path(sys.argv[0]).stem or "python", f"{datetime.now():%Y-%m-%d %H:%M:%S}"
    with contextlib.suppress(OSError):  # on a full disk it is not said who has it
        stream.write(f"process {os.getpid()} ({program}) on {platform.node()} since {now}\n".encode())
    return stream


@contextlib.contextmanager
def in_use(make: Callable[[], Path]) -> Iterator[Path]:
    """Make a temporary file or folder, and show other processes that it is in use, for :func:`remove_abandoned`.

    It lasts until the end of a ``with`` block or of this process. Where the system or the file system has no such
    locks, nothing is shown.

    Args:
        make: Makes it, each time under a new name, and returns its path.
    """
    if sys.platform == "win32":
        yield make()
        return
    while True:
        path = make()
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDONLY)
            with contextlib.suppress(OSError):
                _lock(descriptor)
            if path.exists():
                break
            os.close(descriptor)  # another process took it for abandoned, before it was locked
    try:
        yield path
    finally:
        os.close(descriptor)


def remove_abandoned(path: Path) -> None:
    """Remove a temporary file or folder if the process that had it :func:`in_use` has ended; not if this is unknown."""
    if sys.platform == "win32":
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            _lock(descriptor)
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        finally:
            os.close(descriptor)


def _lock(file: IO[bytes] | int) -> None:
    """Lock an open file until it is closed, without waiting."""
    if sys.platform == "win32":
        import msvcrt

        assert not isinstance(file, int)
        file.seek(_FAR)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
