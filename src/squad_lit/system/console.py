"""How a command ends: errors as sentences, Ctrl-C and warnings. It imports no torch, which some commands lack."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from squad_lit.system.package import explain

_Item = TypeVar("_Item")

USER_ERRORS = (ValueError, TypeError, OSError, ImportError, FloatingPointError)
"""Errors that a user can cause and mend."""


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
    try:
        return run()
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 130
    except Exception as error:
        text = sentence(error)
        if failed is not None:
            failed(text, error)
        mendable = isinstance(error, USER_ERRORS) or _is_out_of_memory(error)
        if not mendable or os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        print(f"error: {text}\n(HYDRA_FULL_ERROR=1 shows where)", file=sys.stderr)
        return 1


def sentence(error: Exception) -> str:
    """The message of an error without a stack trace; for a missing package it has the command that installs it."""
    if isinstance(error, ImportError):
        return explain(error)
    if _is_out_of_memory(error):
        what = str(error).partition(". ")[0]
        return f"{what}: lower dataset.batch_size or dataset.image_size, or run fewer jobs on this GPU (jobs_per_gpu)"
    if not isinstance(error, USER_ERRORS):
        return f"{type(error).__name__}: {error}"
    text = str(error)
    if "Original Traceback" in text:  # from a process of a DataLoader
        return text.strip().splitlines()[-1].partition(": ")[2]
    return text


def _is_out_of_memory(error: Exception) -> bool:
    return type(error).__name__ == "OutOfMemoryError"  # torch's, which is not imported here


def format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A ``UserWarning`` as a sentence alone, and other warnings as Python shows them."""
    if category is UserWarning:
        return f"warning: {message}\n"
    return _FORMAT_WARNING(message, category, filename, lineno, line)


_FORMAT_WARNING = warnings.formatwarning


def progress(items: Sequence[_Item], unit: str) -> Iterable[_Item]:
    """The items, with a progress bar if tqdm is installed; an exported model runs without it."""
    try:
        from tqdm import tqdm
    except ImportError:
        return items
    return tqdm(items, unit=unit)


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
