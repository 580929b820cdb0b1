"""Two checkpoints compared as their user does it."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import squad_lit
from squad_lit.validate import main

SIDE = 64


def draw(seed: int, defect: bool = False) -> np.ndarray:
    image = np.random.default_rng(seed).normal(120, 8, (SIDE, SIDE, 3)).clip(0, 255).astype(np.uint8)
    if defect:
        image[20:40, 20:40] = (250, 40, 40)
    return image


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint of a memory, a copy, and one whose score is the mean of half of the pixels."""
    root = tmp_path_factory.mktemp("model")
    (root / "cap" / "good").mkdir(parents=True)
    for i in range(16):
        Image.fromarray(draw(i)).save(root / "cap" / "good" / f"{i:02}.png")
    overrides = ["trainer=smoke", "model.memory.patches=100", "model.groups={low: [4], high: [8]}", "logger=none"]
    overrides += [f"dataset.image_size={SIDE}", "dataset.limit_train=null", "dataset.test_fraction=0"]
    overrides += ["dataset.validation_fraction=0.5", "callback.progress=null", "callback.panels=null"]
    squad_lit.fit("folder", root=root / "cap", model="memory", output=root, overrides=overrides)
    content = torch.load(root / "last.ckpt", weights_only=True)
    torch.save(content, root / "same.ckpt")
    content["squad_lit"]["config"]["anomaly"]["top"] = 0.5
    torch.save(content, root / "other.ckpt")
    return {name: root / f"{name}.ckpt" for name in ("last", "same", "other")}


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    (tmp_path / "parts").mkdir()
    for i in range(3):
        Image.fromarray(draw(100 + i, defect=i == 2)).save(tmp_path / "parts" / f"{i}.png")
    return tmp_path / "parts"


def test_equal_files_agree_and_others_do_not(
    models: dict[str, Path], parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = [str(models["last"]), "--images", str(parts), "--tolerance", "0"]
    assert main([str(models["same"]), *base]) == 0
    shown = capsys.readouterr().out
    assert "0 of 3 images beyond the tolerance of 0 % of the threshold" in shown
    assert "labels: 0 of 3 differ" in shown
    table = tmp_path / "rows.csv"
    assert main([str(models["other"]), *base, "--output", str(table)]) == 3
    assert "3 of 3 images beyond the tolerance" in capsys.readouterr().out
    a, b = squad_lit.load(models["other"]), squad_lit.load(models["last"])
    with table.open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["image_path"] for row in found] == [str(parts / f"{i}.png") for i in range(3)]
    for row in found:
        first, second = a.predict(row["image_path"]), b.predict(row["image_path"])
        assert float(row["score_a"]) == pytest.approx(first.anomaly_score, rel=1e-6)
        apart = abs(first.anomaly_score - second.anomaly_score) / a.threshold.value
        assert float(row["score_difference"]) == pytest.approx(apart, rel=1e-5)
        assert float(row["map_difference"]) == 0  # the maps are the same, and only the score is another
        assert (int(row["label_a"]), int(row["label_b"])) == (first.label, second.label)


def test_what_cannot_be_read_is_skipped_and_said(
    models: dict[str, Path], parts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (parts / "b.png").write_bytes(b"no image")
    command = [str(models["last"]), str(models["same"]), "--images"]
    assert main([*command, str(parts)]) == 2
    assert f"skipped: cannot read image {parts / 'b.png'}: its content" in capsys.readouterr().err  # named once
    assert main([*command, str(parts / "b.png")]) == 1
    assert "error: none of 1 images can be read" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*command, str(parts), "--tolerance", "-1"])
