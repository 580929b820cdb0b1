"""How the commands that Hydra composes start, and how they end in the terminal and in the run's folder."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import DictConfig

import squad_lit.run.launcher  # noqa: F401  Hydra's callbacks import it: a missing package is named before they do
from squad_lit.run.config import CONF, arrange, check_overrides
from squad_lit.run.folder import restore_record
from squad_lit.run.option import check_effect
from squad_lit.system.console import exit_status, is_mendable, say
from squad_lit.system.file import write_text

log = logging.getLogger(__name__)


def run_task(task: Callable[[DictConfig], object], arguments: Sequence[str] | None) -> int:
    """Run a command on the configuration that Hydra composes from its arguments.

    Args:
        task: The command. It calls :func:`exit_in_words`.
        arguments: None: those of the command line.

    Returns:
        The exit status 0.
    """
    sys.argv[1:] = arrange(sys.argv[1:] if arguments is None else arguments)  # Hydra reads it
    check_overrides(sys.argv[1:])
    hydra.main(config_path=str(CONF), config_name="train", version_base="1.3")(task)()
    return 0


def exit_in_words(run: Callable[[DictConfig, Path], None], config: DictConfig) -> None:
    """Run what a command does with its configuration, and record an error in the run's folder.

    In a sweep, the message names the job, and the error is passed on to Hydra, which runs the other jobs and fails at
    the end.

    Args:
        run: Takes the configuration and the folder of the run.
        config: As composed.

    Raises:
        SystemExit: An error that a user can mend, or Ctrl-C. Hydra would show a stack trace.
    """

    def status() -> int:
        check_effect(config, list(HydraConfig.get().overrides.task))
        run(config, Path(HydraConfig.get().runtime.output_dir))
        return 0

    if code := exit_status(status, failed=_record):
        restore_record()  # after Ctrl-C, too
        sys.exit(code)


def _record(text: str, error: Exception) -> None:
    """Write an error to ``error.txt`` in the run's folder, and to the log, where Hydra does not write it."""
    is_users = is_mendable(error)
    if is_users and os.environ.get("HYDRA_FULL_ERROR") == "1":
        return
    text = text.encode("utf-8", "backslashreplace").decode()  # a name that is no text
    log.debug("stack trace", exc_info=True)
    if not HydraConfig.initialized():
        return
    settings = HydraConfig.get()
    trace = None if is_users else (type(error), error, error.__traceback__)
    record = log.makeRecord(log.name, logging.ERROR, __file__, 0, text, (), trace)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):  # the terminal gets it in another form
            handler.handle(record)
    others = (
        "The other files here are of an earlier run, which this one has not replaced.\n" if restore_record() else ""
    )
    with contextlib.suppress(OSError):  # a full disk may be the error
        write_text(Path(settings.runtime.output_dir) / "error.txt", f"{text}\n{others}")
    if is_users and settings.mode == RunMode.MULTIRUN:
        text = f"job {settings.job.num} ({settings.job.override_dirname}): {text}"
        say(f"error: {text}", to=sys.stderr)
        raise CompactHydraException(text) from error
