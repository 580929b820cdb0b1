"""A full disk: each command says which file had no room, leaves what was there, and nothing that is half-written."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from experiments.reliability.disk import fill
from PIL import Image

import squad_lit.deploy.export
from squad_lit import calibrate, export, predict, train, view
from squad_lit.deploy import rethreshold
from squad_lit.report import __main__ as report_main
from squad_lit.run import fit
from squad_lit.run.config import compose
from squad_lit.system.console import sentence
from test_predict import draw, model, rows

__all__ = ["model"]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("a small disk cannot be mounted here, which only root may")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def content(disk: Path) -> dict[str, bytes]:
    return {str(path.relative_to(disk)): path.read_bytes() for path in disk.rglob("*") if path.is_file()}


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    (tmp_path / "parts").mkdir()
    for i in range(3):
        Image.fromarray(draw(200 + i)).save(tmp_path / "parts" / f"{i}.png")
    return tmp_path / "parts"


@pytest.mark.parametrize("leave", [0, 40_960, 100_000])
def test_a_prediction_goes_on_when_there_is_room_again(
    model: Path, parts: Path, disk: Path, leave: int, capsys: pytest.CaptureFixture[str]
) -> None:
    out = disk / "out"
    command = ["--checkpoint", str(model), "--output", str(out), str(parts)]
    out.mkdir()
    (out / ".lock").touch()
    fill(disk, leave)
    assert predict.main(command) == 1
    assert f"error: no space left on the disk for {out}/" in capsys.readouterr().err
    assert not list(disk.rglob("*.part"))
    if (out / "predictions.csv").exists():
        assert all(None not in row.values() and None not in row for row in rows(out))
    (disk / "fill").unlink()
    assert predict.main(command) == 0
    assert len(rows(out)) == 3


def test_a_calibration_keeps_the_old_file(
    model: Path, parts: Path, disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    subprocess.run(["mount", "-o", f"remount,size={model.stat().st_size + 2**20}", str(disk)], check=True)
    shutil.copy(model, disk / "line.ckpt")
    fill(disk, 100_000)
    before = content(disk)
    line = str(disk / "line.ckpt")
    assert calibrate.main(["--checkpoint", line, "--output", line, str(parts)]) == 1
    assert f"error: no space left on the disk for {line}: free some" in capsys.readouterr().err
    (disk / ".line.ckpt.lock").unlink()  # its owner has ended
    assert content(disk) == before


def test_a_folder_that_cannot_be_written_to_is_told_before_any_work(
    model: Path, parts: Path, disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    monkeypatch.setattr(rethreshold, "load", lambda *args, **options: pytest.fail("works first"))
    monkeypatch.setattr(squad_lit.deploy.export, "write_onnx", lambda *args: pytest.fail("works first"))
    model_and_output = ["--checkpoint", str(model), "--output"]
    assert calibrate.main([*model_and_output, str(disk / "a.ckpt"), str(parts)]) == 1
    assert export.main([*model_and_output, str(disk / "a.onnx"), "--format", "onnx"]) == 1
    error = capsys.readouterr().err
    assert f"--output {disk / 'a.ckpt'}: Read-only file system; name a file in a folder" in error
    assert f"--output {disk / 'a.onnx'}: Read-only file system; name a file in a folder" in error


@pytest.mark.parametrize(("form", "name"), [("torch", "a.pt2"), ("onnx", "a.onnx"), ("openvino", "a.xml")])
@pytest.mark.parametrize("leave", [0, 100_000])
def test_an_export_leaves_nothing(
    model: Path, disk: Path, form: str, name: str, leave: int, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(disk, leave)
    before = content(disk)
    assert export.main(["--checkpoint", str(model), "--format", form, "--output", str(disk / name)]) == 1
    assert f"error: no space left on the disk for {disk}/" in capsys.readouterr().err
    assert content(disk) == before


@pytest.mark.filterwarnings("ignore:.*officially")
def test_a_view_and_a_report_keep_the_old_pages(
    model: Path, parts: Path, mvtec: Path, disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict.main(["--checkpoint", str(model), "--output", str(tmp_path / "out"), str(parts)]) == 0
    small = ["trainer=smoke", "model=memory", "dataset=mvtec", f"dataset.root={mvtec}", "dataset.category=bottle"]
    small += ["dataset.image_size=64", "logger=none", "callback.progress=null", "model.memory.patches=50"]
    (tmp_path / "run").mkdir()
    fit.run(compose(small, output=tmp_path / "run"), tmp_path / "run")
    for old in ("view.html", "report.html", "report.md"):
        (disk / old).write_text("old")
    fill(disk)
    before = content(disk)
    assert view.main([str(tmp_path / "out"), "--output", str(disk / "view.html")]) == 1
    assert f"error: no space left on the disk for {disk}/view.html: free" in capsys.readouterr().err
    assert report_main.main([str(tmp_path / "run"), "--output", str(disk)]) == 1
    assert f"error: no space left on the disk for {disk}/report.html: free" in capsys.readouterr().err
    assert content(disk) == before
    (disk / "run").mkdir()
    with pytest.raises(OSError, match="No space left") as caught:
        fit.run(compose(small, output=disk / "run"), disk / "run")
    assert f"no space left on the disk for {disk}/run" in sentence(caught.value)
    assert not list(disk.rglob("*.part"))


@pytest.mark.parametrize("leave", [0, 8192])
def test_a_training_says_so_before_hydra_writes_there(
    disk: Path, leave: int, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(disk, leave)
    for options in ([f"hydra.run.dir={disk / 'run'}"], ["-m", "seed=0,1", f"hydra.sweep.dir={disk / 'sweep'}"]):
        with pytest.raises(SystemExit) as ended:
            train.main(["trainer=smoke", *options])
        place = options[-1].partition("=")[2]
        assert ended.value.code == f"error: no space left on the disk for {place}: free some, or name another place"
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without a signal")
def test_temporary_files_are_gone_after_sigterm(tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from squad_lit.system.console import exit_status
from squad_lit.system.file import whole, whole_beside

def run():
    with whole(Path(sys.argv[1]) / "a") as part, whole_beside(Path(sys.argv[1]) / "b") as place:
        part.touch()
        (place / "b").touch()
        time.sleep(60)

sys.exit(exit_status(run))
"""
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    deadline = time.monotonic() + 30
    while len(list(tmp_path.rglob("*"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(list(tmp_path.rglob("*"))) == 3
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM
    assert not list(tmp_path.iterdir())


def test_what_another_library_could_not_write_is_told_by_the_system(disk: Path) -> None:
    from squad_lit.system.file import whole_beside

    fill(disk)
    with pytest.raises(OSError, match="No space left") as caught, whole_beside(disk / "a.xml"):
        raise RuntimeError("basic_ios::clear: iostream error")
    assert caught.value.filename == str(disk / "a.xml")
    os.unlink(disk / "fill")
    with pytest.raises(RuntimeError, match="iostream"), whole_beside(disk / "a.xml"):
        raise RuntimeError("basic_ios::clear: iostream error")
    assert not list(disk.iterdir())
    with whole_beside(disk / "a.xml") as place:
        for name in ("a.xml", "a.bin"):
            (place / name).write_bytes(bytes(8))
    assert sorted(content(disk)) == ["a.bin", "a.xml"]
    assert set(map(len, content(disk).values())) == {8}
