"""The public names, and what importing them costs."""

import subprocess
import sys

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


def test_every_public_name_is_there_and_is_listed() -> None:
    for name in squad_lit.__all__:
        assert getattr(squad_lit, name)
        assert name in dir(squad_lit)
    assert not hasattr(squad_lit, "predictor_of_nothing")
    assert squad_lit.Result.__module__ == squad_lit.Predictor.__module__ == "squad_lit.deploy.predictor"
