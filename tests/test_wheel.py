"""A wheel, built offline and used outside of the checkout, on the computer of a line without torch, too."""

import csv
import os
import re
import subprocess
import sys
import zipfile
from importlib.metadata import Distribution
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="builds the wheel")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
# Runs a module with what the wheel brings instead of the checkout's, and without some packages.
RUN = """
import runpy, sys
checkout, known, module = sys.argv[1:4]
sys.path[:] = [path for path in sys.path if path != checkout]
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("_sysconfigdata"):  # of the standard library, which does not list it
            return
        if name.partition(".")[0] not in {"squad_lit", *known.split(","), *sys.stdlib_module_names}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
if known:
    sys.meta_path.insert(0, Nothing())
sys.argv[1:] = sys.argv[4:]
import squad_lit
print(squad_lit.__file__, file=sys.stderr)
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which the wheel was unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--wheel-dir", str(folder), str(ROOT)], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(installed: Path, folder: Path, module: str, *arguments: str, known: str = "", status: int = 0) -> str:
    """Run a module of the wheel; returns what it printed."""
    call = [sys.executable, "-c", RUN, str(ROOT / "src"), known, f"squad_lit.{module}", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(call, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    assert done.stderr.startswith(f"{installed / 'squad_lit' / '__init__.py'}\n")
    return done.stdout + done.stderr


def names(folder: Path) -> set[str]:
    return {f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file() and f.suffix != ".pyc"}


def test_the_wheel_has_the_configuration_the_pages_and_the_licence(installed: Path) -> None:
    conf = {f"conf/{name}" for name in names(ROOT / "conf")}
    assert names(installed / "squad_lit") == names(ROOT / "src" / "squad_lit") | conf
    assert names(installed / "hydra_plugins") == names(ROOT / "src" / "hydra_plugins")
    (about,) = installed.glob("*.dist-info")
    assert (about / "licenses" / "LICENSE").is_file()
    needed = [line for line in Distribution.at(about).requires or [] if "extra ==" not in line]
    assert [re.split("[<>=]", line)[0] for line in needed] == ["numpy", "pillow"]


def test_a_model_is_trained_exported_and_used_without_torch(installed: Path, mvtec: Path, tmp_path: Path) -> None:
    data = ["dataset=mvtec", f"dataset.root={mvtec}", "dataset.category=bottle", "dataset.image_size=64"]
    small = ["trainer=smoke", "model=memory", "model.memory.patches=50", "model.groups={low: [4], high: [8]}"]
    quiet = ["callback.progress=null", "callback.panels=null", "callback.curves=null", "logger=none"]
    shown = run(installed, tmp_path, "train", *data, *small, *quiet, "hydra.run.dir=run")
    assert "run folder: " in shown
    checkpoint = ["--checkpoint", "run/last.ckpt"]
    run(installed, tmp_path, "export", *checkpoint, "--format", "onnx", "--output", "part.onnx")
    picture = mvtec / "bottle" / "test" / "broken" / "000.png"
    line = "numpy,PIL,onnxruntime"
    predict = ["predict", "--output", "out", str(picture), "--checkpoint"]
    run(installed, tmp_path, *predict, "part.onnx", known=line)
    with (tmp_path / "out" / "predictions.csv").open(encoding="utf-8") as file:
        assert [row["image_path"] for row in csv.DictReader(file)] == [str(picture)]
    shown = run(installed, tmp_path, *predict, "run/last.ckpt", known=line, status=1)
    assert "error: this needs the package torch: pip install 'squad_lit[train]'" in shown
    served = "fastapi,starlette,uvicorn,python_multipart,prometheus_client,pydantic,pydantic_core,annotated_types"
    served += ",annotated_doc,typing_extensions,typing_inspection,anyio,idna,h11,click"
    served += ",opentelemetry"  # fastapi imports it where it is
    nowhere = ["serve", "--checkpoint", "part.onnx", "--host", "203.0.113.7"]  # for documentation: no computer has it
    shown = run(installed, tmp_path, *nowhere, known=f"{line},{served}", status=1)
    assert "error: --host 203.0.113.7 --port 8000: " in shown  # the model and the service were made before
    shown = run(installed, tmp_path, *predict, "part.onnx", known="numpy,PIL", status=1)
    assert "error: this needs the package onnxruntime: pip install 'squad_lit[onnx]'" in shown
