"""Each command in an environment that lacks a package: a sentence with its name and its command, and no trace."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from squad_lit.system.table import write_rows

BLOCKED = """
import runpy, sys
blocked = set(sys.argv[1].split(","))
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
module, sys.argv[1:] = sys.argv[2], sys.argv[3:]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""
CHECKPOINT = ["--checkpoint", "last.ckpt"]

COMMANDS = {
    "train without torch": ("torch", ["train", "trainer=smoke", "hydra.run.dir=run"]),
    "train without Hydra": ("hydra", ["train", "trainer=smoke"]),
    "train without pydantic": ("pydantic", ["train", "trainer=smoke", "hydra.run.dir=run"]),
    "check without torch": ("torch", ["check", "hydra.run.dir=run"]),
    "check without Hydra": ("hydra", ["check"]),
    "predict with a checkpoint": ("torch", ["predict", *CHECKPOINT, "--output", "out", "a.png"]),
    "predict with ONNX": ("onnxruntime", ["predict", "--checkpoint", "a.onnx", "--output", "out", "a.png"]),
    "predict with OpenVINO": ("openvino", ["predict", "--checkpoint", "a.xml", "--output", "out", "a.png"]),
    "watch with ONNX": ("onnxruntime", ["watch", ".", "--checkpoint", "a.onnx", "--output", "out"]),
    "calibrate": ("torch", ["calibrate", *CHECKPOINT, "--output", "new.ckpt", "a.png"]),
    "export without torch": ("torch", ["export", *CHECKPOINT, "--format", "torch", "--output", "a.pt2"]),
    "export without onnx": ("onnx", ["export", *CHECKPOINT, "--format", "onnx", "--output", "b.onnx"]),
    "export int8": ("onnxruntime", ["export", *CHECKPOINT, "--format", "onnx", "--output", "b.onnx", "--int8", "."]),
    "validate": ("onnxruntime", ["validate", "a.onnx", "a.onnx", "--images", "a.png"]),
    "serve": ("uvicorn", ["serve", "--checkpoint", "a.onnx"]),
    "serve without forms": ("python_multipart", ["serve", "--checkpoint", "a.onnx"]),
    "view without tqdm": ("tqdm", ["view", "."]),
    "view without jinja2": ("jinja2", ["view", "."]),
    "report": ("jinja2", ["report", "."]),
    "search without Optuna": ("optuna", ["search", "--output", "study", "--trials", "1", "seed=0,1"]),
    "search without Hydra": ("hydra", ["search", "--output", "study", "--trials", "1", "seed=0,1"]),
    "workspace": ("wandb_workspaces", ["workspace", "--entity", "someone"]),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files that are looked at before the package is needed."""
    image = Image.fromarray(np.zeros((8, 8, 3), np.uint8))
    for name in ("a.png", "overlay/a.png.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        image.save(tmp_path / name)
    row = {"image_path": str(tmp_path / "a.png"), "name": "a.png", "anomaly_score": "1", "threshold": "2"}
    write_rows(tmp_path / "predictions.csv", [row])
    for name in ("last.ckpt", "a.onnx", "a.xml", "a.bin"):
        (tmp_path / name).write_bytes(b"a model")
    return tmp_path


@pytest.mark.parametrize("name", COMMANDS)
def test_a_missing_package_is_a_sentence(name: str, folder: Path) -> None:
    package, (command, *arguments) = COMMANDS[name]
    call = [sys.executable, "-c", BLOCKED, package, f"squad_lit.{command}", *arguments]
    done = subprocess.run(call, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    shown = {"hydra": "hydra-core", "python_multipart": "python-multipart"}.get(package, package)
    assert f"this needs the package {shown}: pip install " in done.stderr
    assert "\nerror: " in f"\n{done.stderr}"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "command",
    ["predict", "watch", "drift", "calibrate", "validate", "serve", "export", "search", "report", "view", "workspace"],
)
def test_the_help_of_a_command_needs_numpy_and_pillow_alone(command: str, folder: Path) -> None:
    code = BLOCKED.replace("in blocked", "not in {'numpy', 'PIL', 'squad_lit', 'runpy', *sys.stdlib_module_names}")
    call = [sys.executable, "-c", code, "", f"squad_lit.{command}", "--help"]
    done = subprocess.run(call, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: squad-lit {command} ")
