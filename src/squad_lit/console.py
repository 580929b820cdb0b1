"""How the commands that parse their own arguments end. Nothing heavy is imported: some run without torch."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable


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
