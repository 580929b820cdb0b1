"""How the commands that parse their own arguments end. Nothing heavy is imported: some run without torch."""

from __future__ import annotations

import sys
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
    try:
        return run()
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {shown(str(error))}", file=sys.stderr)
        return 1
