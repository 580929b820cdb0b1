"""Thresholds from new images, with a memory as the model, because that one is made in a second."""

import fcntl
import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

import squad_lit
from squad_lit.calibrate import main
from squad_lit.deploy.export import export
from squad_lit.deploy.runtime import Checkpoint, Output
from squad_lit.deploy.threshold import from_defects, from_normals
from squad_lit.predict import main as predict
from squad_lit.training import checkpoint
from test_predict import draw, model

__all__ = ["model"]


def save(folder: Path, images: dict[str, np.ndarray]) -> Path:
    folder.mkdir(parents=True)
    for name, image in images.items():
        Image.fromarray(image).save(folder / name)
    return folder


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return save(tmp_path / "good", {f"{i:02}.png": draw(200 + i) for i in range(12)})


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    return save(tmp_path / "bad", {f"{i}.png": draw(300 + i, defect=True) for i in range(3)})


def scores(path: Path, folder: Path) -> list[float]:
    detector = squad_lit.load(path)
    return [detector.predict(file).anomaly_score for file in sorted(folder.iterdir())]


def test_new_normal_images_replace_those_of_the_training_and_nothing_else(
    model: Path, good: Path, tmp_path: Path
) -> None:
    output = tmp_path / "new" / "line.ckpt"
    assert main(["--checkpoint", str(model), "--output", str(output), str(good)]) == 0
    expected = scores(model, good)
    detector = squad_lit.load(output, false_alarm_rate=0.1)
    assert detector.threshold.value == pytest.approx(from_normals(expected, 0.1).value)
    assert detector.threshold.images == 12
    assert scores(output, good) == expected  # the weights and the scale of the maps are the same
    assert checkpoint.load(model).state.normal_scores != checkpoint.load(output).state.normal_scores


def test_known_defects_give_the_threshold_between_them_and_the_good_ones(
    model: Path, good: Path, bad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "line.ckpt"
    assert main(["--checkpoint", str(model), "--output", str(output), str(good), "--defective", str(bad)]) == 0
    limit = squad_lit.load(output).threshold
    assert limit.value == pytest.approx(from_defects(scores(model, good), scores(model, bad)).value)
    assert max(scores(model, good)) < limit.value < min(scores(model, bad))
    assert f"threshold now:    {limit.value:.3g}" in capsys.readouterr().out
    # A rate that is asked for comes from the normal images alone.
    assert squad_lit.load(output, false_alarm_rate=0.1).threshold.value == pytest.approx(
        sorted(scores(model, good))[-1]
    )


def test_an_image_counts_once_and_masks_do_not_count(
    model: Path, good: Path, bad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(good / "03.png", good / "z copy.png")
    white = np.full((96, 96, 3), 255, np.uint8)
    Image.fromarray(white).save(bad / "0_mask.png")
    save(bad / "masks" / "dent", {"1.png": white})
    output = tmp_path / "line.ckpt"
    assert main(["--checkpoint", str(model), "--output", str(output), str(good), "--defective", str(bad)]) == 2
    assert "1 of 13 good images, which are there twice: z copy.png" in capsys.readouterr().err
    state = checkpoint.load(output).state
    (good / "z copy.png").unlink()
    assert state.normal_scores == pytest.approx(scores(model, good))
    detector = squad_lit.load(model)
    assert state.defective_scores == pytest.approx([detector.predict(bad / f"{i}.png").anomaly_score for i in range(3)])


def test_thresholds_can_be_those_of_a_region(model: Path, good: Path, tmp_path: Path) -> None:
    roi = np.zeros((128, 128), np.uint8)
    roi[:50, :50] = 255
    Image.fromarray(roi).save(tmp_path / "roi.png")
    output = tmp_path / "line.ckpt"
    command = ["--checkpoint", str(model), "--output", str(output), "--roi", str(tmp_path / "roi.png"), str(good)]
    assert main(command) == 0
    detector = squad_lit.load(output, roi=roi)
    results = [detector.predict(file) for file in sorted(good.iterdir())]
    state = checkpoint.load(output).state
    assert state.normal_scores == pytest.approx([result.anomaly_score for result in results])
    assert state.normal_maxima == pytest.approx([result.anomaly_map[:50, :50].max() for result in results])
    whole = scores(model, good)
    assert all(n <= w + 1e-5 for n, w in zip(state.normal_scores, whole, strict=True))
    assert sum(state.normal_scores) < sum(whole)
    # The checkpoint keeps the region.
    assert [squad_lit.load(output).predict(file).anomaly_score for file in sorted(good.iterdir())] == [
        result.anomaly_score for result in results
    ]
    Image.fromarray(roi[::-1]).save(tmp_path / "other.png")
    again = ["--checkpoint", str(output), "--output", str(output), str(good)]
    assert main([*again, "--roi", str(tmp_path / "other.png")]) == 1  # they have nothing in common
    Image.fromarray(roi.T * (roi > 0) * np.eye(128, dtype=np.uint8)).save(tmp_path / "part.png")
    assert main([*again, "--add", "--roi", str(tmp_path / "part.png")]) == 1  # scores of two regions


def test_images_can_be_added_to_those_that_are_known(
    model: Path, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "line.ckpt"
    assert main(["--checkpoint", str(model), "--output", str(output), "--add", str(good)]) == 0
    before, after = checkpoint.load(model).state, checkpoint.load(output).state
    assert after.normal_scores[: len(before.normal_scores)] == before.normal_scores
    assert len(after.normal_scores) == len(after.normal_maxima) == len(before.normal_scores) + 12
    assert main(["--checkpoint", str(output), "--output", str(output), "--add", str(good)]) == 2
    assert "12 good images whose scores the checkpoint has already" in capsys.readouterr().err
    assert checkpoint.load(output).state == after


def test_a_checkpoint_that_another_process_calibrates_is_refused_at_once_and_stays(
    model: Path, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(model, tmp_path / "line.ckpt")
    command = ["--checkpoint", str(tmp_path / "line.ckpt"), "--output", str(tmp_path / "line.ckpt"), "--add", str(good)]
    with (tmp_path / ".line.ckpt.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert main(command) == 1
    assert f"error: {tmp_path / 'line.ckpt'} is in use by another process: wait" in capsys.readouterr().err
    assert (tmp_path / "line.ckpt").read_bytes() == model.read_bytes()
    assert main(command) == 0


def test_images_are_judged_together_and_the_device_is_said(
    model: Path, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    batches: list[int] = []
    run = Checkpoint.run

    def counted(self: Checkpoint, image: np.ndarray) -> Output:
        batches.append(len(image))
        return run(self, image)

    monkeypatch.setattr(Checkpoint, "run", counted)
    command = ["--checkpoint", str(model), "--output", str(tmp_path / "line.ckpt"), "--device", "cpu", str(good)]
    assert main(command) == 0
    assert sum(batches) == 12
    assert len(batches) == -(-12 // Checkpoint.batch)
    assert capsys.readouterr().out.startswith("device cpu\nthreshold before: ")


def test_a_file_that_cannot_be_read_is_skipped_and_said(
    model: Path, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (good / "broken.png").write_bytes(b"no image")
    assert main(["--checkpoint", str(model), "--output", str(tmp_path / "line.ckpt"), str(good)]) == 2
    assert "broken.png" in capsys.readouterr().err
    assert squad_lit.load(tmp_path / "line.ckpt").threshold.images == 12


def test_images_of_the_training_do_not_count_as_new(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--checkpoint", str(model), "--output", str(tmp_path / "line.ckpt")]
    assert main([*command, str(model.parent / "cap")]) == 2
    assert "10 of 20 good images, which the model was trained on" in capsys.readouterr().err
    # What is left are the images that the training held out.
    before, after = checkpoint.load(model).state, checkpoint.load(tmp_path / "line.ckpt").state
    assert sorted(after.normal_scores) == pytest.approx(sorted(before.normal_scores), rel=1e-5)
    renamed = tmp_path / "renamed"
    renamed.mkdir()
    for file in (model.parent / "cap" / "good").iterdir():
        if hashlib.sha256(file.read_bytes()).hexdigest()[:16] in before.trained_on:
            shutil.copy(file, renamed / f"new_{file.name}")
    assert main([*command, str(renamed)]) == 1
    assert "the model was trained on all 10 good images" in capsys.readouterr().err


def test_defects_that_score_no_higher_choose_no_threshold(
    model: Path, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    no_defects = save(tmp_path / "no_defects", {f"{i}.png": draw(400 + i) for i in range(6)})
    command = ["--checkpoint", str(model), "--output", str(tmp_path / "line.ckpt"), str(good)]
    assert main([*command, "--defective", str(no_defects)]) == 1
    error = capsys.readouterr().err
    found = roc_auc_score([0] * 12 + [1] * 6, scores(model, good) + scores(model, no_defects))
    assert f"the 6 defective images score hardly higher than the 12 good ones (image AUROC {found:.2f}" in error
    assert not (tmp_path / "line.ckpt").exists()


def test_what_cannot_be_is_a_sentence_and_writes_nothing(
    model: Path, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "line.ckpt"
    command = ["--checkpoint", str(model), "--output", str(output), str(good)]
    assert main([*command, "--defective", str(good / "00.png")]) == 1
    assert "images are both good and defective: 1, such as" in capsys.readouterr().err
    broken = save(tmp_path / "broken", {}) / "a.png"
    broken.write_bytes(b"no image")
    assert main([*command[:4], str(broken)]) == 1
    assert "none of the good images can be read" in capsys.readouterr().err
    assert main([*command, "--defective", str(broken)]) == 1
    assert "none of the defective images can be read" in capsys.readouterr().err
    assert main([*command[:3], str(tmp_path / "line.onnx"), str(good)]) == 1
    assert "line.onnx: expected" in capsys.readouterr().err
    assert main([*command[:3], "/proc/line.ckpt", str(good)]) == 1  # where even root cannot write
    assert "--output /proc/line.ckpt: " in capsys.readouterr().err
    (tmp_path / "folder.ckpt").mkdir()
    assert main([*command[:3], str(tmp_path / "folder.ckpt"), str(good)]) == 1
    assert "is a folder; name a file in it" in capsys.readouterr().err
    assert main(["--checkpoint", str(tmp_path / "no.ckpt"), *command[2:]]) == 1
    assert not output.exists()


def test_a_threshold_that_somebody_has_chosen_is_kept_and_its_rate_is_said(
    model: Path, good: Path, bad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    normal = sorted(checkpoint.load(model).state.normal_scores)
    value = (normal[-3] + normal[-2]) / 2  # 2 of 10 lie above
    output = tmp_path / "line.ckpt"
    assert main(["--checkpoint", str(model), "--output", str(output), "--threshold", f"{value!r}"]) == 0
    assert f"threshold now:    {value:.3g}: about 20 % of normal images lie above it" in capsys.readouterr().out
    detector = squad_lit.load(output)
    assert detector.threshold.value == value
    # Clopper and Pearson's interval of 2 in 10, from R's binom.test.
    assert detector.threshold.interval == pytest.approx((0.02521, 0.55610), abs=1e-4)
    assert squad_lit.load(output, false_alarm_rate=0.2).threshold.value == normal[-2]
    assert squad_lit.load(output, threshold=7).threshold.value == 7
    for wrong in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="threshold: expected a finite number"):
            squad_lit.load(output, threshold=wrong)
    with pytest.raises(ValueError, match="but not both"):
        squad_lit.load(output, threshold=1.0, false_alarm_rate=0.1)
    # New scores choose anew, and a threshold may come with them.
    again = ["--checkpoint", str(output), "--output", str(output), str(good), "--defective", str(bad)]
    assert main([*again, "--threshold", "5"]) == 0
    assert squad_lit.load(output).threshold[:2] == (5.0, 0.0)
    assert main(again) == 0
    assert squad_lit.load(output).threshold.value == from_defects(scores(model, good), scores(model, bad)).value


def test_a_threshold_goes_into_the_exported_file_and_commands_take_another(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line, part = tmp_path / "line.ckpt", tmp_path / "part.onnx"
    assert main(["--checkpoint", str(model), "--output", str(line), "--threshold", "5.5"]) == 0
    export(line, part, "onnx")
    assert squad_lit.load(part).threshold.value == 5.5
    command = ["--checkpoint", str(part), "--output", str(tmp_path / "out"), str(model.parent / "cap")]
    assert predict([*command, "--threshold", "-100"]) == 0
    assert "threshold -100: about 100 % of normal images lie above it" in capsys.readouterr().out
    for wrong in ("nan", "inf", "x"):
        with pytest.raises(SystemExit):
            predict([*command, "--threshold", wrong])
        assert f"expected a finite number, got {wrong}" in capsys.readouterr().err
    assert predict([*command, "--threshold", "1", "--false-alarm-rate", "0.1"]) == 1
    assert "threshold: give it, or a false-alarm rate, but not both" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--checkpoint", str(model), "--output", str(line)])
    assert "name good parts; --threshold alone needs none" in capsys.readouterr().err
