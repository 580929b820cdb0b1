"""The command that looks at data, as its user runs it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig
from PIL import Image

import squad_lit
from squad_lit import check
from squad_lit.report.suspects import SHOWN, rank
from squad_lit.run import config as configuration
from squad_lit.run import fit

pytestmark = pytest.mark.filterwarnings("ignore:.*officially")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve good images, one of which is not good."""
    rng = np.random.default_rng(0)
    (tmp_path / "cap" / "good").mkdir(parents=True)
    for i in range(12):
        image = rng.normal(120, 8, (64, 64, 3)).clip(0, 255).astype(np.uint8)
        if i == 5:
            image[20:44, 20:44] = (250, 40, 40)
        Image.fromarray(image).save(tmp_path / "cap" / "good" / f"{i:02}.png")
    return tmp_path / "cap"


def compose(folder: Path, run: Path, *overrides: str) -> DictConfig:
    base = ["trainer=smoke", "dataset=folder", f"dataset.root={folder}", "dataset.image_size=64", "logger=none"]
    base += ["dataset.batch_size=4", "dataset.limit_train=null", "dataset.test_fraction=0", "callback.progress=null"]
    return configuration.compose([*base, *overrides], output=run)


def test_check_says_what_there_is_and_what_is_wrong(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = compose(folder, folder.parent)
    assert check.check(config)
    output = capsys.readouterr().out
    assert "cap: train 12, test good 0, masks 0, sizes 64x64, modes RGB" in output
    assert "errors: 0, warnings: 0" in output
    (folder / "good" / "03.png").write_bytes(b"")
    assert not check.check(config)
    output = capsys.readouterr().out
    assert "03.png: cannot read image" in output
    assert "errors: 1, warnings: 0" in output


def test_a_bad_part_among_the_good_ranks_first(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    fit.run(compose(folder, run, "model.steps=6", "model.pool.refresh_every=6"), run)
    config = compose(folder, run, "fit=false", f"checkpoint={run / 'last.ckpt'}")
    rows = rank(config, run)
    assert len(rows) == 12
    assert Path(rows[0]["image_path"]).name == "05.png"
    assert (run / "suspects.csv").read_text().splitlines()[1].split(",")[0] == rows[0]["image_path"]
    with Image.open(run / "suspects.png") as picture:
        assert picture.height > 2 * SHOWN * 64
    assert "05.png" in capsys.readouterr().out


def run(*overrides: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "squad_lit.check", *overrides]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=cwd)


def test_the_command_leaves_no_folder_and_names_a_fault_once(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    data = ["dataset=folder", f"dataset.root={folder}"]
    (folder / "good" / "03.png").write_bytes(b"no image")
    done = run(*data, cwd=tmp_path / "here")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "errors: 1, warnings: 0"
    assert (done.stdout + done.stderr).count("03.png") == 1
    assert "Error executing job" not in done.stderr
    done = run(*data, "dataset.category=cup", cwd=tmp_path / "here")
    assert done.returncode == 1
    assert done.stderr.startswith("error: dataset.category: unknown 'cup' for folder")
    assert list((tmp_path / "here").iterdir()) == []


def test_a_device_that_is_not_there_is_refused_as_by_the_other_commands(folder: Path, tmp_path: Path) -> None:
    options = ["fit=false", "checkpoint=x.ckpt", f"hydra.run.dir={tmp_path / 'run'}", "--device", "cuda:99"]
    done = run("dataset=folder", f"dataset.root={folder}", *options)
    assert done.returncode == 1
    assert done.stderr.startswith("error: device=cuda:99 is not there: torch sees")
    done = run("dataset=folder", f"dataset.root={folder}", "--device", "cuda:99")
    assert done.returncode == 1
    assert done.stderr.startswith("error: --device cuda:99 is for a model: add fit=false checkpoint=PATH")


@pytest.mark.filterwarnings("ignore:a false-alarm rate of")
def test_images_that_are_not_square_are_ranked_in_the_shape_of_the_training(tmp_path: Path, capsys: Any) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "cap" / "good").mkdir(parents=True)
    for i in range(8):
        wide = rng.normal(120, 8, (64, 128, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(wide).save(tmp_path / "cap" / "good" / f"{i}.png")
    shutil.copy(tmp_path / "cap" / "good" / "3.png", tmp_path / "cap" / "good" / "twice.png")
    memory = ["model=memory", "model.memory.patches=50", "dataset.batch_size=1"]  # a memory has no batches to train on
    fit.run(compose(tmp_path / "cap", tmp_path, *memory), tmp_path)
    capsys.readouterr()
    rows = rank(compose(tmp_path / "cap", tmp_path, "fit=false", f"checkpoint={tmp_path / 'last.ckpt'}"), tmp_path)
    said = capsys.readouterr().out
    assert said.startswith("device ")
    twice, warning = [str(tmp_path / "cap" / "good" / name) for name in ("twice.png", "3.png")], said.splitlines()[1]
    assert warning.startswith("warning: ")
    assert "looks the same as training image" not in warning
    assert all(path in warning for path in twice)
    detector = squad_lit.load(tmp_path / "last.ckpt")
    # Of the same shape, and so of the same score up to the rounding of two ways to resize.
    for row in rows:
        assert detector.predict(row["image_path"]).anomaly_score == pytest.approx(row["anomaly_score"], rel=1e-3)


def test_the_command_refuses_what_has_no_effect(folder: Path, tmp_path: Path) -> None:
    options = ["fit=false", "checkpoint=x.ckpt", "quantizer=vq", f"hydra.run.dir={tmp_path / 'run'}"]
    done = run("dataset=folder", f"dataset.root={folder}", *options)
    assert done.returncode == 1
    assert "error: fit=false tests the checkpoint as it is, so quantizer=vq would have no effect" in done.stderr
    assert "Traceback" not in done.stderr


def test_ranking_needs_a_scale_for_its_pictures(folder: Path, tmp_path: Path) -> None:
    config = compose(folder, tmp_path, "fit=false", "checkpoint=x.ckpt")
    config.callback.panels = None
    with pytest.raises(ValueError, match=r"callback\.panels=null"):
        rank(config, tmp_path)


def test_a_file_name_that_is_no_text_is_ranked_and_written(folder: Path, tmp_path: Path) -> None:
    (folder / "good" / "00.png").rename(os.fsdecode(os.fsencode(folder / "good") + b"/sch\xf6n.png"))
    fit.run(compose(folder, tmp_path, "model=memory", "model.memory.patches=50"), tmp_path)
    rows = rank(compose(folder, tmp_path, "fit=false", f"checkpoint={tmp_path / 'last.ckpt'}"), tmp_path)
    assert len(rows) == 12
    assert b"/sch\xf6n.png" in (tmp_path / "suspects.csv").read_bytes()


def test_in_a_sweep_the_other_categories_are_checked_too(mvtec: Path, tmp_path: Path) -> None:
    shutil.copytree(mvtec, tmp_path / "data")
    (tmp_path / "data" / "bottle" / "ground_truth" / "broken" / "000_mask.png").unlink()
    sweep = ["experiment=mvtec", "dataset.category=bottle,screw", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    done = run(*sweep, f"dataset.root={tmp_path / 'data'}")
    assert done.returncode == 1
    assert "bottle/ground_truth/broken/000_mask.png: no such mask" in done.stdout
    assert "screw: train 8, test good 2, test broken 3" in done.stdout
    assert "Error executing job" not in done.stderr
    assert not (tmp_path / "sweep" / "0" / "error.txt").exists()
    assert "Traceback" not in done.stderr


@pytest.mark.filterwarnings("ignore:.*undefined")  # there are no anomalous test images
def test_images_that_were_held_out_are_ranked_too(folder: Path, tmp_path: Path) -> None:
    options = ["dataset.test_fraction=0.3", "dataset.limit_train=6", "model=memory", "model.memory.patches=50"]
    fit.run(compose(folder, tmp_path, *options), tmp_path)
    config = compose(folder, tmp_path, *options[:2], "fit=false", f"checkpoint={tmp_path / 'last.ckpt'}")
    rows = rank(config, tmp_path)
    assert len(rows) == 12
    assert [row["anomaly_score"] for row in rows] == sorted((row["anomaly_score"] for row in rows), reverse=True)
