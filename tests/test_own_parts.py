"""The sample package: parts from outside are trained, interrupted, resumed, tested, used and exported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import squad_lit
from squad_lit import calibrate, export, predict
from squad_lit.report.__main__ import main as report
from squad_lit.run.fit import Run, fit

SAMPLE = Path(__file__).parent / "sample"
QUIET = ["callback.progress=null", "callback.curves=null"]  # Matplotlib takes as long as a short training
SMALL = ["trainer=smoke", "dataset.image_size=64", "model.pool.refresh_every=2", "threads=1", *QUIET]
OWN = ["quantizer=sign", "backbone=colours", "discriminator=linear", "+defect=dot", "logger=lines", *SMALL]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey plates with noise; the bad ones have a dark corner."""
    folder = tmp_path_factory.mktemp("parts")
    rng = np.random.default_rng(0)
    for number in range(13):
        plate = rng.normal(160, 6, (64, 64, 3)).clip(0, 255).astype(np.uint8)
        if number >= 10:
            plate[4:20, 4:20] = 20
            mask = np.zeros((64, 64), np.uint8)
            mask[4:20, 4:20] = 255
            Image.fromarray(mask).save(folder / f"mask_{number:02d}.png")
        Image.fromarray(plate).save(folder / f"{'bad' if number >= 10 else 'good'}_{number:02d}.png")
    return folder


@pytest.fixture(autouse=True)
def _on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SAMPLE)


def train(data: Path, output: Path, *overrides: str, **options: Any) -> Run:
    return fit("parts", root=data, output=output, overrides=overrides, config_dir=SAMPLE / "conf", **options)


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    sys.path.insert(0, str(SAMPLE))
    try:
        return train(data, tmp_path_factory.mktemp("whole") / "run", *OWN)
    finally:
        sys.path.remove(str(SAMPLE))


def test_a_training_makes_what_the_users_configuration_names(whole: Run) -> None:
    assert (whole.folder / "lines" / "metrics.csv").is_file()
    written = json.loads((whole.folder / "metrics.json").read_text())
    assert written["image_auroc"] == pytest.approx(whole.figures["image_auroc"])
    assert 1 <= whole.figures["perplexity/low"] <= 2**6


def test_an_interrupted_training_ends_as_the_uninterrupted_one(data: Path, whole: Run, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path, *OWN, "callback=[default,stop]")
    resumed = train(data, tmp_path, *OWN, f"resume={tmp_path / 'last.ckpt'}")
    same = ("pixel_auroc", "image_auroc", "synthetic_ap", "normal_score", "copy_ratio/low", "perplexity/high")
    assert {key: resumed.figures[key] for key in same} == pytest.approx(
        {key: whole.figures[key] for key in same}, nan_ok=True
    )


def test_a_file_makes_own_parts_by_name_only(whole: Run, data: Path) -> None:
    with pytest.raises(ValueError, match=r"'my_parts\.\w+'.*trust=\[my_parts\]"):
        squad_lit.load(whole.folder / "last.ckpt")
    detector = squad_lit.load(whole.folder / "last.ckpt", trust=["my_parts"])
    good, bad = detector.predict([data / "good_09.png", data / "bad_10.png"])
    assert good.anomaly_map.shape == bad.anomaly_map.shape == (64, 64)
    assert whole.detector.predict(data / "bad_10.png").anomaly_score == bad.anomaly_score


def test_it_is_tested_again_from_its_checkpoint(whole: Run, data: Path, tmp_path: Path) -> None:
    given = ["fit=false", f"checkpoint={whole.folder / 'last.ckpt'}", "dataset.image_size=64", *QUIET]
    with pytest.raises(ValueError, match="trust"):
        fit("parts", root=data, output=tmp_path, overrides=given, config_dir=SAMPLE / "conf")
    again = fit("parts", root=data, output=tmp_path, overrides=[*given, "trust=[my_parts]"], config_dir=SAMPLE / "conf")
    assert again.figures["image_auroc"] == pytest.approx(whole.figures["image_auroc"], abs=1e-9)


def test_the_commands_take_own_parts(
    whole: Run, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = ["--checkpoint", str(whole.folder / "last.ckpt")]
    out = ["--output", str(tmp_path / "out"), str(data / "bad_10.png")]
    assert predict.main([*checkpoint, *out]) == 1
    assert "--trust" in capsys.readouterr().err
    assert predict.main([*checkpoint, "--trust", "my_parts", *out]) == 0
    line = ["--output", str(tmp_path / "line.ckpt"), "--trust", "my_parts", str(data / "good_08.png")]
    assert calibrate.main([*checkpoint, *line]) == 0
    assert report([str(whole.folder), "--output", str(tmp_path / "report")]) == 0
    assert "parts,parts," in (tmp_path / "report" / "results.csv").read_text()


@pytest.mark.slow
def test_an_export_gives_what_the_checkpoint_gives(whole: Run, data: Path, tmp_path: Path) -> None:
    file = tmp_path / "own.onnx"
    given = ["--checkpoint", str(whole.folder / "last.ckpt"), "--format", "onnx", "--output", str(file)]
    assert export.main([*given, "--trust", "my_parts"]) == 0
    expected = whole.detector.predict(data / "bad_10.png").anomaly_score
    assert squad_lit.load(file).predict(data / "bad_10.png").anomaly_score == pytest.approx(expected, rel=1e-3)


def test_a_model_and_a_synthesis_of_ones_own(data: Path, tmp_path: Path) -> None:
    own = ["backbone=colours", "synthesis=squares", "+anomaly.weight.distance=1.0", "dataset.image_size=64"]
    run = train(data, tmp_path / "run", *own, *QUIET, model="mean")
    # A dark corner is far from the mean of grey plates.
    assert run.figures["image_auroc"] == 1.0
    assert (
        run.detector.predict(data / "bad_11.png").anomaly_score
        > run.detector.predict(data / "good_01.png").anomaly_score
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("model.sign.dim=17", r"model\.sign\.dim: expected at most 16, got 17"),
        ("model.sign.dim=x", r"model\.sign\.dim: expected a whole number, got 'x'"),
        (
            "backbone._target_=my_parts.Colors",
            r"backbone\._target_: my_parts has no 'Colors'; did you mean my_parts\.Colours",
        ),
        ("backbone._target_=no_parts.Colours", r"backbone\._target_: cannot import 'no_parts\.Colours'"),
        ("+backbone.cells=3", r"backbone\.cells: Colours has no such option; did you mean backbone\.cell\?"),
    ],
)
def test_options_of_own_parts_are_checked_by_the_name_that_is_typed(
    given: str, message: str, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        train(data, tmp_path, *OWN, given)


def test_the_command_line_takes_own_parts(data: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "squad_lit", "train", "--config-dir", str(SAMPLE / "conf"), "dataset=parts"]
    given = [f"dataset.root={data}", f"hydra.run.dir={tmp_path / 'run'}", "model=mean", "backbone=colours"]
    given += ["+anomaly.weight.distance=1.0", "dataset.image_size=64", *QUIET]
    done = subprocess.run([*command, *given], cwd=SAMPLE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["image_auroc"] == 1.0
