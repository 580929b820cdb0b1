"""How a command ends."""

import re
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import NoReturn

import pytest
import torch

from squad_lit.system.console import exit_status, say, sentence


def fail(error: BaseException) -> Callable[[], NoReturn]:
    def run() -> NoReturn:
        raise error

    return run


@pytest.fixture(autouse=True)
def no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)


@pytest.mark.parametrize("given", [signal.SIG_DFL, signal.SIG_IGN])
def test_after_a_command_ctrl_c_does_what_it_did_before(given: signal.Handlers) -> None:
    handlers = []

    def run() -> int:
        handlers.append(signal.getsignal(signal.SIGINT))
        return 0

    before = signal.signal(signal.SIGINT, given)
    try:
        assert exit_status(run) == 0
        assert signal.getsignal(signal.SIGINT) is given
    finally:
        signal.signal(signal.SIGINT, before)
    assert handlers == [signal.default_int_handler if given is signal.SIG_DFL else signal.SIG_IGN]


@pytest.mark.parametrize("error", [ValueError, TypeError, FileNotFoundError, ImportError, FloatingPointError])
def test_what_a_user_can_mend_is_a_sentence(error: type[Exception], capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status(fail(error("the disk is full"))) == 1
    assert capsys.readouterr().err == "error: the disk is full\n(HYDRA_FULL_ERROR=1 shows where)\n"


def test_a_gpu_without_memory_is_a_sentence_with_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    text = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB."
    assert exit_status(fail(torch.OutOfMemoryError(text))) == 1
    assert capsys.readouterr().err.startswith("error: CUDA out of memory: lower dataset.batch_size or ")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError("Unable to allocate 7.28 TiB for an array"), r"too little memory \(Unable to allocate 7\.28 TiB"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
            "too little memory .*: lower dataset",
        ),
        (
            RuntimeError(
                "Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
                "RuntimeError: unable to write to file </torch_12_3>: No space left on device (28)\n"
            ),
            r"a process that .*\(RuntimeError: unable to write to file .*num_workers=0 .*pool.workers=0, .*--shm-size",
        ),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error."),
            r"a process that .* makes synthetic anomalies cannot go on \(DataLoader .* Bus error\.\), mostly",
        ),
    ],
)
def test_too_little_memory_is_a_sentence_with_what_to_do(
    error: Exception, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(fail(error)) == 1
    assert re.match(f"error: {words}", capsys.readouterr().err)
    with pytest.raises(RuntimeError):
        exit_status(fail(RuntimeError("shape mismatch")))


@pytest.mark.parametrize(
    ("module", "said", "words"),
    [
        (
            "wandb.errors.errors",
            "No API key configured.",
            "W&B: No API key configured; wandb login keeps a key, and logger",
        ),
        (
            "wandb.errors.errors",
            "Failed:\n no such host",
            "W&B: Failed: no such host; .* logger.wandb.offline=true writes",
        ),
        ("wandb.errors.errors", "Invalid project name", "W&B: Invalid project name$"),
        ("wandb.sdk.mailbox", "run ID a is in use", "W&B: run ID a is in use; .* with logger.wandb.resume=null$"),
        ("mlflow.exceptions", "API request failed", "MLflow: API request failed; MLFLOW_TRACKING_URI names"),
    ],
)
def test_what_a_service_says_is_a_sentence(
    module: str, said: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = "UsageError" if "name" in said or "key" in said else "CommError"
    assert exit_status(fail(type(kind, (Exception,), {"__module__": module})(said))) == 1
    assert re.match(f"error: {words}", capsys.readouterr().err.splitlines()[0])


def test_the_status_of_the_command_is_handed_on() -> None:
    assert [exit_status(lambda status=status: status) for status in (0, 2)] == [0, 2]


def test_other_errors_and_asked_for_traces_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError):
        exit_status(fail(ZeroDivisionError("a bug")))
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ValueError, match="the disk is full"):
        exit_status(fail(ValueError("the disk is full")))


def test_ctrl_c_has_its_own_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status(fail(KeyboardInterrupt()), interrupted="interrupted; the same command continues") == 130
    assert capsys.readouterr().err == "interrupted; the same command continues\n"


def test_errors_are_recorded_and_may_be_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    recorded: list[tuple[str, Exception]] = []
    for error in (ValueError("a value"), ZeroDivisionError("a bug")):
        try:
            exit_status(fail(error), failed=lambda text, error: recorded.append((text, error)))
        except ZeroDivisionError:
            assert error is recorded[-1][1]
    assert [text for text, _ in recorded] == ["a value", "ZeroDivisionError: a bug"]

    def replace(text: str, error: Exception) -> NoReturn:
        raise RuntimeError(f"job 3: {text}") from error

    capsys.readouterr()
    with pytest.raises(RuntimeError, match="job 3: a value"):
        exit_status(fail(ValueError("a value")), failed=replace)
    assert capsys.readouterr().err == ""


def test_an_error_of_a_worker_is_told_without_its_trace() -> None:
    trace = 'Original Traceback (most recent call last):\n  File "a.py", line 1, in f\n'
    text = f"Caught OSError in worker 0.\n{trace}OSError: a.png: broken\n"
    assert sentence(OSError(text)) == "a.png: broken"


def test_a_warning_for_the_user_is_a_line_and_a_name_that_is_no_text_is_printed() -> None:
    code = r"""
import sys, warnings
from squad_lit.system.console import exit_status
def run():
    warnings.warn("few images")
    raise ValueError("a\udcff.png")
sys.exit(exit_status(run))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[:2] == ["warning: few images", r"error: a\udcff.png"]


def test_names_do_not_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    name = "a\x1b]0;title\x07\r\x9b31m\u202egnp.b ü漢字\tc"
    spelled = r"a\x1b]0;title\x07\r\x9b31m\u202egnp.b ü漢字" + "\tc"
    say(f"skipped: {name}", to=sys.stderr)
    assert capsys.readouterr().err == f"skipped: {spelled}\n"

    def run() -> int:
        warnings.warn(name, stacklevel=1)
        raise ValueError(name)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        showing = warnings.showwarning  # pytest's, which shows nothing
        warnings.showwarning = lambda *given: print(warnings.formatwarning(*given[:4]), file=sys.stderr, end="")  # type: ignore[misc]
        try:
            assert exit_status(run) == 1
        finally:
            warnings.showwarning = showing
    error = capsys.readouterr().err
    assert error == f"warning: {spelled}\nerror: {spelled}\n(HYDRA_FULL_ERROR=1 shows where)\n"
