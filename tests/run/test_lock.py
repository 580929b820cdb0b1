"""Locks between processes, and GPUs that are shared out by them: no GPU is needed."""

import subprocess
import sys
from pathlib import Path

import pytest

from squad_lit.run import lock


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock.tempfile, "gettempdir", lambda: str(tmp_path))


def test_a_lock_is_free_again_when_its_process_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "a.lock"
    code = f"import pathlib, squad_lit.run.lock as l; f = l.take(pathlib.Path({str(path)!r})); print('ok', flush=True)"
    code += "; input()"
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ok\n"
        path.write_text(str(other.pid))
        assert lock.take(path) is None  # and it leaves what is written there
        assert lock.owner(path) == other.pid
        other.kill()
        other.wait()
    assert lock.owner(path) is None
    free = lock.take(path)
    assert free is not None
    free.close()


def test_each_taker_gets_another_gpu_until_there_is_none() -> None:
    held = [lock.take_gpu(["0", "MIG-GPU-a/1/0"]) for _ in range(3)]
    assert [taken and taken[0] for taken in held] == ["0", "MIG-GPU-a/1/0", None]
    assert held[0] is not None
    held[0][1].close()
    again = lock.take_gpu(["0", "MIG-GPU-a/1/0"])
    assert again is not None
    assert again[0] == "0"
    again[1].close()


def test_which_gpus_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setenv("SQUAD_LIT_GPUS", "0, 2")
    assert lock.gpus() == ["0", "2"]
    monkeypatch.delenv("SQUAD_LIT_GPUS")
    assert lock.gpus() == ["3"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\nprintf 'GPU-a\\nGPU-b\\n'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert lock.gpus() == ["GPU-a", "GPU-b"]
    smi.unlink()
    with pytest.raises(ValueError, match="no GPU was found"):
        lock.gpus()
