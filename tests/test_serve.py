"""The service as its user starts it, and its image for Docker."""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import squad_lit
from squad_lit import serve
from squad_lit.serve import main

pytest.importorskip("fastapi", reason="the extra serve")
ROOT = Path(__file__).parents[1]
SIDE = 64


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a memory."""
    root = tmp_path_factory.mktemp("model")
    (root / "cap" / "good").mkdir(parents=True)
    for i in range(12):
        image = np.random.default_rng(i).normal(120, 8, (SIDE, SIDE, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(image).save(root / "cap" / "good" / f"{i:02}.png")
    overrides = ["trainer=smoke", "model.memory.patches=100", "model.groups={low: [4], high: [8]}", "logger=none"]
    overrides += [f"dataset.image_size={SIDE}", "dataset.limit_train=null", "dataset.test_fraction=0"]
    overrides += ["dataset.validation_fraction=0.5", "callback.progress=null", "callback.panels=null"]
    squad_lit.fit("folder", root=root / "cap", model="memory", output=root, overrides=overrides)
    return root / "last.ckpt"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_starts_answers_and_stops(model: Path, tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "token").write_text("secret\n")
    command = [sys.executable, "-m", "squad_lit.serve", "--checkpoint", f"cap={model}", "--port", "0"]
    command += ["--token-file", str(tmp_path / "token")]
    service = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert service.stdout is not None
        lines = [service.stdout.readline() for _ in range(3)]
        address = re.fullmatch(r"serving at (http://127\.0\.0\.1:\d+)\n", lines[-1])
        assert address is not None, lines
        content = (model.parent / "cap" / "good" / "00.png").read_bytes()
        request = urllib.request.Request(f"{address[1]}/predict", content, {"Authorization": "Bearer secret"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = json.load(answer)
        expected = squad_lit.load(model).predict(model.parent / "cap" / "good" / "00.png")
        assert found["model"] == "cap"
        assert found["images"][0]["anomaly_score"] == pytest.approx(expected.anomaly_score, rel=1e-5)
        service.send_signal(number)
        shown, errors = service.communicate(timeout=60)
    finally:
        service.kill()
    assert (service.returncode, shown) == (0, "stopped\n")
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--checkpoint", "MODEL", "MODEL"], "two models are called last"),
        (["--checkpoint", "a b=MODEL"], "the name 'a b' of the model is part of addresses"),
        (["--checkpoint", "absent.onnx"], "no exported model"),
        (["--checkpoint", "MODEL", "--token-file", "absent"], "--token-file absent: No such file"),
        (["--checkpoint", "MODEL", "--token-file", "EMPTY"], "is empty; expected the token"),
        (["--checkpoint", "MODEL", "--host", "203.0.113.7"], "--host 203.0.113.7 --port 8000: "),
    ],
)
def test_mistakes_are_told_in_words(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], given: list[str], words: str
) -> None:
    (tmp_path / "empty").touch()
    names = {"MODEL": str(model), "a b=MODEL": f"a b={model}", "EMPTY": str(tmp_path / "empty")}
    assert main([names.get(text, text) for text in given]) == 1
    assert words in capsys.readouterr().err


def test_a_kept_connection_does_not_wait_for_acknowledgements() -> None:
    with serve._listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        connection, _ = listening.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_limits_are_above_zero(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--checkpoint", "a.onnx", "--timeout", "0"])
    assert "--timeout: expected more than 0" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--checkpoint", "a.onnx", "--port", "99999"])
    assert "--port: expected 0 to 65535, got 99999" in capsys.readouterr().err


def test_the_image_copies_what_the_package_needs() -> None:
    text = (ROOT / "Dockerfile").read_text()
    copied = [name for names in re.findall(r"^COPY (?!--)(.*)$", text, re.MULTILINE) for name in names.split()[:-1]]
    assert {"pyproject.toml", "README.md", "LICENSE", "src", "conf"} == set(copied)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {f"!{name}" for name in copied} <= set(ignored)


def docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=500)


@pytest.mark.slow
def test_the_image_is_built_and_starts() -> None:
    if shutil.which("docker") is None or docker("info").returncode:
        pytest.skip("there is no Docker")
    if docker("image", "inspect", "python:3.13-slim").returncode and docker("pull", "python:3.13-slim").returncode:
        pytest.skip("the image of Python cannot be had")
    done = docker("build", "--tag", "squad-lit-test", ".")
    assert done.returncode == 0, done.stderr
    try:
        done = docker("run", "--rm", "squad-lit-test", "--help")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("usage: squad-lit serve ")
        done = docker("run", "--rm", "squad-lit-test", "--checkpoint", "/model/absent.onnx")
        assert "error: no exported model /model/absent.onnx" in done.stderr  # and no package is missing
    finally:
        docker("image", "rm", "squad-lit-test")
