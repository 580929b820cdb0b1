"""How a command ends: errors as sentences, Ctrl-C and warnings. It imports no torch, which some commands lack."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from squad_lit.system.package import explain

_ALLOCATION = re.compile("can't allocate memory|[Ff]ailed to allocate|bad allocation|bad_alloc|DefaultCPUAllocator")
# Without line feed and tab; after those of ASCII and Latin-1 the ones that turn the direction of writing.
_CONTROL = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u200e\\u200f\\u202a-\\u202e\\u2066-\\u2069]")
_SHARED = re.compile(r"[^\n]*(</torch_|shared memory|DataLoader worker \(pid)[^\n]*")
USER_ERRORS = (ValueError, TypeError, OSError, ImportError, FloatingPointError)
"""Errors that a user can cause and mend."""

_SERVICES = {
    "wandb": (
        "W&B",
        "wandb login keeps a key, and logger.wandb.offline=true writes to the disk, without key or network",
    ),
    "mlflow": ("MLflow", "MLFLOW_TRACKING_URI names its server; without it, MLflow writes to a folder"),
}
"""Packages whose errors, each of a class of its own, say what a service refuses: its name, and what one can do."""

FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", None))
"""Numbers of errors of a full disk, and of a user's quota."""


def exit_status(
    run: Callable[[], int],
    *,
    interrupted: str = "interrupted",
    failed: Callable[[str, Exception], None] | None = None,
) -> int:
    """Run a command, and print an error that its user can mend as a sentence.

    Args:
        run: The command; returns its exit status.
        interrupted: What is printed after Ctrl-C.
        failed: Called with each error and its sentence before anything is printed. It may record the error, or raise
            another one.

    Returns:
        The status of ``run``; 1 after an error, 130 after Ctrl-C.

    Raises:
        Exception: The error is not one of ``USER_ERRORS``, or HYDRA_FULL_ERROR=1 is in the environment.
    """
    warnings.formatwarning = format_warning
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file name that is no text must not end a run when it is printed
            stream.reconfigure(errors="backslashreplace")
    at_once = signal.getsignal(signal.SIGINT) is signal.SIG_DFL  # see squad_lit/__init__.py
    try:
        if at_once:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        with on_sigterm(end):
            return run()
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 130
    except Exception as error:
        text = sentence(error)
        if failed is not None:
            failed(text, error)
        if not is_mendable(error) or os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        say(f"error: {text}\n(HYDRA_FULL_ERROR=1 shows where)", to=sys.stderr)
        return 1
    finally:
        if at_once:  # while the interpreter ends, Ctrl-C would show a trace again
            signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextlib.contextmanager
def on_sigterm(handler: Callable[[int, Any], object] | int) -> Iterator[None]:
    """Handle SIGTERM until the end of the block; a thread other than the main one cannot."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)  # None: of something that is not Python


def end(number: int, frame: Any) -> None:
    """A handler of signals that ends the program as an exception does, so that temporary files are removed."""
    signal.signal(number, signal.SIG_IGN)  # once is enough
    sys.exit(128 + number)


def is_mendable(error: Exception) -> bool:
    """Whether a user can do something about an error, so that a sentence says more than a stack trace."""
    return isinstance(error, USER_ERRORS) or bool(_of_memory(error) or _of_service(error))


def sentence(error: Exception) -> str:
    """The message of an error without a stack trace; for a missing package it has the command that installs it."""
    if isinstance(error, ImportError):
        return explain(error)
    if text := _of_memory(error) or _of_service(error):
        return text
    if not isinstance(error, USER_ERRORS):
        return f"{type(error).__name__}: {error}"
    if isinstance(error, OSError) and error.errno in FULL:
        return f"no space left on the disk for {error.filename or 'a file'}: free some, or name another place"
    text = str(error)
    if "Original Traceback" in text:  # from a process of a DataLoader
        return text.strip().splitlines()[-1].partition(": ")[2]
    return text


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that there is too little memory; libraries that are not imported here have their own."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return not isinstance(error, OSError) and _ALLOCATION.search(str(error)) is not None


def _of_memory(error: Exception) -> str:
    """What to do about a lack of memory; empty for all other errors."""
    text = str(error)
    what = text.partition(". ")[0].partition("\n")[0] or "there is not enough memory"
    if type(error).__name__ == "OutOfMemoryError":
        return f"{what}: lower dataset.batch_size or dataset.image_size, or run fewer jobs on this GPU (jobs_per_gpu)"
    if is_out_of_memory(error):
        return f"too little memory ({what}): lower dataset.image_size, dataset.batch_size or model.pool.clean_limit"
    if isinstance(error, RuntimeError) and (shared := _SHARED.search(text)):
        return (
            f"a process that reads images or makes synthetic anomalies cannot go on ({shared[0].strip()}), mostly for "
            f"too little (shared) memory: set dataset.num_workers=0 and model.pool.workers=0, or start the container "
            f"with a larger --shm-size"
        )
    return ""


def _of_service(error: Exception) -> str:
    """What W&B or MLflow says and what to do about it; empty for all other errors."""
    package = type(error).__module__.partition(".")[0]
    if package not in _SERVICES:
        return ""
    service, remedy = _SERVICES[package]
    said = " ".join(str(error).split()).rstrip(".")
    if type(error).__name__ == "UsageError" and "API key" not in said:
        return f"{service}: {said}"
    if said.endswith("is in use"):  # in the service of a process that lives, such as a notebook's
        remedy = (
            "a process that still runs has opened it: end that one, or start a new run with logger.wandb.resume=null"
        )
    return f"{service}: {said}; {remedy}"


def format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A ``UserWarning`` as a sentence alone, and other warnings as Python shows them, :func:`visible`."""
    if category is UserWarning:
        return visible(f"warning: {message}\n")
    return visible(_FORMAT_WARNING(message, category, filename, lineno, line))


_FORMAT_WARNING = warnings.formatwarning


def say(text: object, *, to: TextIO | None = None, end: str = "\n") -> None:
    """Print at once what may have names of files or texts of others in it.

    Characters that would move the cursor, change colours or turn the direction of writing are spelled with backslashes.

    Args:
        text: What is printed.
        to: None: standard output, as it is now.
        end: What follows.
    """
    print(visible(str(text)), file=to or sys.stdout, end=end, flush=True)


def visible(text: str) -> str:
    r"""A text without characters that control a terminal, except for line feeds and tabs.

    Example:
        >>> print(visible("a\x1b[31m.png"))
        a\x1b[31m.png
    """
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back until the end of the block, so that a checkpoint never holds half a step.

    This needs a handler. With a signal mask, the system gives the signal to another thread (torch has some), and
    Python raises in this one nevertheless.
    """
    if threading.current_thread() is not threading.main_thread():  # Python handles signals only there
        yield
        return
    held: list[Any] = []
    handler = signal.signal(signal.SIGINT, lambda *signal_and_frame: held.append(signal_and_frame))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if held and callable(handler):
            handler(*held[0])
