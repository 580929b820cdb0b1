"""The public names, and what importing them costs."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import squad_lit


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = """
import sys
before = {*sys.modules}
import squad_lit
print(sorted({"numpy", "PIL", "torch", "hydra", "importlib.metadata"} & ({*sys.modules} - before)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("start", [["-m", "squad_lit.predict"], ["-m", "squad_lit", "predict"]])
@pytest.mark.parametrize("first", ["typing", "numpy"])  # of the standard library, and of what takes long
def test_ctrl_c_while_a_command_is_imported_leaves_no_trace(tmp_path: Path, start: list[str], first: str) -> None:
    (tmp_path / f"{first}.py").write_text("import os, _signal\nos.kill(os.getpid(), _signal.SIGINT)\n")
    source = str(Path(squad_lit.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-S", *start],  # without site-packages, whose files may import typing before
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{source}"},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a suite in the background ignores it
    )
    assert done.returncode == -signal.SIGINT
    assert done.stderr == ""


def test_a_program_that_imports_the_package_keeps_its_ctrl_c() -> None:
    code = "import signal, squad_lit; assert signal.getsignal(signal.SIGINT) is not signal.SIG_DFL"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_there_and_is_listed() -> None:
    for name in squad_lit.__all__:
        assert getattr(squad_lit, name)
        assert name in dir(squad_lit)
    assert not hasattr(squad_lit, "predictor_of_nothing")
    assert squad_lit.Result.__module__ == squad_lit.Predictor.__module__ == "squad_lit.deploy.predictor"
