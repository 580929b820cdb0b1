"""How the commands that Hydra runs end: errors are sentences, in the terminal and in the run's folder."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode

from squad_lit.system.console import USER_ERRORS, format_warning, sentence
from squad_lit.system.file import write_text

log = logging.getLogger(__name__)


@contextlib.contextmanager
def exit_with_sentence() -> Iterator[None]:
    """Turn what a user can mend into a sentence and exit status 1, Ctrl-C into 130, warnings into a line.

    In a sweep the sentence names the job, and the error goes on to Hydra, which runs the other jobs and fails at the
    end; with HYDRA_FULL_ERROR=1 all goes on.
    """
    warnings.formatwarning = format_warning
    for stream in (sys.stdout, sys.stderr):  # a file name that is no text must not end a run when it is printed
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except USER_ERRORS as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        log.debug("stack trace", exc_info=True)
        _record(sentence(error))
        if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
            hydra_config = HydraConfig.get()
            text = f"job {hydra_config.job.num} ({hydra_config.job.override_dirname}): {sentence(error)}"
            print(f"error: {text}", file=sys.stderr)
            raise CompactHydraException(text) from error
        print(f"error: {sentence(error)}\n(HYDRA_FULL_ERROR=1 shows where)", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        _record(f"{type(error).__name__}: {error}", error)
        raise


def _record(text: str, error: Exception | None = None) -> None:
    """Leave an error in the run's folder: in ``error.txt``, and in the log, which Hydra does not write it to."""
    if not HydraConfig.initialized():
        return
    trace = (type(error), error, error.__traceback__) if error is not None else None
    record = log.makeRecord(log.name, logging.ERROR, __file__, 0, text, (), trace)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):  # the terminal gets it in another form
            handler.handle(record)
    with contextlib.suppress(OSError):  # a full disk may be the error
        write_text(Path(HydraConfig.get().runtime.output_dir) / "error.txt", f"{text}\n")
