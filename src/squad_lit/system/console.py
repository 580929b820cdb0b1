"""How the commands that parse their own arguments end. Nothing heavy is imported: some run without torch."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any


def exit_status(run: Callable[[], int], *, interrupted: str = "interrupted", shown: Callable[[str], str] = str) -> int:
    """Run a command, and turn what a user can mend into a sentence.

    Args:
        run: Returns its exit status.
        interrupted: What is said after Ctrl-C.
        shown: Makes a message fit to be printed.

    Returns:
        That of ``run``; 1 after an error, 130 after Ctrl-C.
    """
    warnings.formatwarning = format_warning
    try:
        return run()
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {shown(str(error))}", file=sys.stderr)
        return 1


def format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Of what is meant for the user the sentence alone; other warnings as Python shows them."""
    if category is UserWarning:
        return f"warning: {message}\n"
    return _FORMAT_WARNING(message, category, filename, lineno, line)


_FORMAT_WARNING = warnings.formatwarning


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back until the end of the block, so that a checkpoint never holds half a step.

    By a handler and not by a signal mask: the system would hand the signal to another thread (torch has some), and
    Python would raise in this one all the same.
    """
    if threading.current_thread() is not threading.main_thread():  # only there Python handles signals
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
