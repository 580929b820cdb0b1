"""``calibrate --remember``: the truth is the memory without the patches of the image that is judged."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

import squad_lit
from squad_lit.calibrate import main
from squad_lit.export import main as export
from squad_lit.system.file import digest
from squad_lit.training import checkpoint
from test_calibrate import save, scores
from test_predict import draw, model

__all__ = ["model"]


def dark(seed: int) -> np.ndarray:
    """A good part in other light than those of the training."""
    return (draw(seed) * 0.5).astype(np.uint8)


@pytest.fixture
def new(tmp_path: Path) -> Path:
    return save(tmp_path / "new", {f"{i}.png": dark(600 + i) for i in range(8)})


@pytest.fixture
def line(model: Path, new: Path, tmp_path: Path) -> Path:
    output = tmp_path / "line.ckpt"
    assert main(["--checkpoint", str(model), "--output", str(output), "--remember", str(new)]) == 0
    return output


def test_the_model_knows_the_new_look_and_the_threshold_comes_from_images_without_their_own_patches(
    model: Path, line: Path, new: Path, tmp_path: Path
) -> None:
    other = save(tmp_path / "other", {f"{i}.png": dark(700 + i) for i in range(8)})
    before, after = checkpoint.load(model), checkpoint.load(line)
    assert len(after.memory.rows) <= before.memory.patches == 300
    assert max(scores(line, other)) < min(scores(model, other))
    found = []
    content = checkpoint.read(line)
    rows, source = content["state_dict"]["memory.rows"], content["state_dict"]["memory.source"]
    for number, file in enumerate(sorted(new.iterdir())):
        others = source != -1 - number
        content["state_dict"] |= {"memory.rows": rows[others], "memory.source": source[others]}
        checkpoint.write(content, tmp_path / "without.ckpt")
        found.append(squad_lit.load(tmp_path / "without.ckpt").predict(file).anomaly_score)
    assert after.state.normal_scores == pytest.approx(found, rel=1e-4)
    assert np.mean(found) > np.mean(scores(line, new))  # what would have been promised by images that are known


def test_the_checkpoint_and_its_exports_say_what_was_added(line: Path, new: Path, tmp_path: Path) -> None:
    files = sorted(new.iterdir())
    state = checkpoint.load(line).state
    assert len(state.remembered) == 8
    assert not set(state.remembered) & set(state.trained_on)
    assert export(["--checkpoint", str(line), "--format", "onnx", "--output", str(tmp_path / "line.onnx")]) == 0
    about = json.loads(onnx.load(tmp_path / "line.onnx").metadata_props[0].value)
    assert about["remembered"] == state.remembered
    found = squad_lit.load(tmp_path / "line.onnx").predict(files[0]).anomaly_score
    assert found == pytest.approx(squad_lit.load(line).predict(files[0]).anomaly_score, rel=1e-3)


def test_images_that_are_known_are_named_and_count_as_before(
    model: Path, line: Path, new: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = checkpoint.load(line).state
    shutil.copy(new / "3.png", new / "copy.png")
    trained = next(file for file in (model.parent / "cap" / "good").iterdir() if digest(file) in state.trained_on)
    output = tmp_path / "again.ckpt"
    command = ["--checkpoint", str(line), "--output", str(output)]
    assert main([*command, "--remember", str(new), str(trained)]) == 2
    said = capsys.readouterr()
    assert f"1 of 10 good images, which the model was trained on: {trained.name}" in said.err
    assert "1 of 10 good images, which are there twice: copy.png" in said.err
    assert "8 of 10 good images were remembered before: 0.png, 1.png" in said.out
    again = checkpoint.load(output)
    assert again.state.normal_scores == pytest.approx(state.normal_scores)
    assert torch.equal(again.memory.rows, checkpoint.load(line).memory.rows)
    # Without --remember they would be judged by a memory that has their patches.
    assert main([*command, str(new / "0.png"), str(new / "1.png")]) == 1
    assert "the model was trained on all 2 good images" in capsys.readouterr().err
    Image.fromarray(dark(900)).save(new / "late.png")
    assert main([*command, "--remember", str(new)]) == 2
    late = checkpoint.load(output).state
    assert late.remembered[:8] == state.remembered
    assert len(late.remembered) == len(late.normal_scores) == 9


def test_each_new_image_is_decoded_for_the_memory_and_for_its_score_alone(
    model: Path, new: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []
    read = squad_lit.Predictor.read
    monkeypatch.setattr(squad_lit.Predictor, "read", lambda self, path: decoded.append(path.name) or read(self, path))
    (new / "5 broken.png").write_bytes(b"no image")
    assert main(["--checkpoint", str(model), "--output", str(tmp_path / "line.ckpt"), "--remember", str(new)]) == 2
    assert sorted(decoded) == sorted([*(f"{i}.png" for i in range(8)), *(f"{i}.png" for i in range(8)), "5 broken.png"])


def test_what_cannot_be_remembered_is_a_sentence(
    model: Path, new: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--checkpoint", str(model), "--output", str(tmp_path / "line.ckpt"), "--remember"]
    with pytest.raises(SystemExit):
        main([*command, "--add", str(new)])
    assert "--remember finds all scores anew" in capsys.readouterr().err
    broken = save(tmp_path / "broken", {}) / "a.png"
    broken.write_bytes(b"no image")
    assert main([*command, str(broken)]) == 1
    assert "none of the good images can be read" in capsys.readouterr().err
    assert main([*command, str(broken), str(new)]) == 2
    assert len(checkpoint.load(tmp_path / "line.ckpt").state.remembered) == 8


def test_a_model_without_a_memory_is_refused(
    model: Path, new: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ["trainer=smoke", "model.steps=1", "model.groups={low: [4], high: [8]}", "logger=none"]
    overrides += ["dataset.image_size=64", "dataset.test_fraction=0", "callback.progress=null", "callback.panels=null"]
    root = tmp_path / "squad"
    squad_lit.fit("folder", root=model.parent / "cap", model="squad", output=root, overrides=overrides)
    command = ["--checkpoint", str(root / "last.ckpt"), "--output", str(tmp_path / "line.ckpt")]
    assert main([*command, "--remember", str(new)]) == 1
    assert "--remember: the model (Squad) has no memory of patches" in capsys.readouterr().err
    assert not (tmp_path / "line.ckpt").exists()
