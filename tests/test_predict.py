"""Prediction as its user runs it, with a memory as the model, because that one is made in a second."""

import csv
import fcntl
import io
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

import squad_lit
from squad_lit import calibrate, view
from squad_lit.deploy.output_folder import Predictions, overlay
from squad_lit.deploy.predictor import Result
from squad_lit.deploy.runtime import Checkpoint, Output
from squad_lit.deploy.threshold import extrapolated, from_normals
from squad_lit.image.picture import colour_map
from squad_lit.predict import main
from squad_lit.system.table import read_rows, write_rows

SIDE = 128


def draw(seed: int, defect: bool = False) -> np.ndarray:
    """A soft grey texture, which a change of size hardly changes, with a red square if there is a defect."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(SIDE, SIDE)), 4, mode="wrap")
    image = (120 + 12 * noise / noise.std()).clip(0, 255).astype(np.uint8)[..., None].repeat(3, 2)
    if defect:
        image[20:44, 20:44] = (250, 40, 40)
    return image


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a memory of 20 good parts."""
    root = tmp_path_factory.mktemp("model")
    (root / "cap" / "good").mkdir(parents=True)
    for i in range(20):
        Image.fromarray(draw(i)).save(root / "cap" / "good" / f"{i:02}.png")
    overrides = ["trainer=smoke", "model.memory.patches=300", "model.groups={low: [4], high: [8]}", "logger=none"]
    overrides += ["dataset.image_size=128", "dataset.limit_train=null", "dataset.test_fraction=0"]
    overrides += ["dataset.validation_fraction=0.5", "callback.progress=null", "callback.panels=null"]
    squad_lit.fit("folder", root=root / "cap", model="memory", output=root, overrides=overrides)
    return root / "last.ckpt"


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """New parts: two good ones and a bad one, of other sizes, in folders."""
    place = tmp_path / "new parts, [line 2]"
    (place / "ü=1").mkdir(parents=True)
    Image.fromarray(draw(100).repeat(2, 0).repeat(3, 1)).save(place / "a.png")
    Image.fromarray(draw(101)).save(place / "ü=1" / "a.png")
    Image.fromarray(draw(102, defect=True).repeat(2, 0).repeat(2, 1)).save(place / "a.jpg", quality=100, subsampling=0)
    (place / "._a.png").write_bytes(b"hidden")
    return place


def rows(output: Path) -> list[dict[str, str]]:
    with (output / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_each_image_has_its_files_and_its_row(model: Path, parts: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert main(["--checkpoint", str(model), "--output", str(output), str(parts)]) == 0
    found = {Path(row["image_path"]).relative_to(parts).as_posix(): row for row in rows(output)}
    assert set(found) == {"a.jpg", "a.png", "ü=1/a.png"}
    with Image.open(output / "map" / "a.png.tiff") as tiff:
        assert np.asarray(tiff).dtype == np.float32
        assert tiff.size == (384, 256)
    with Image.open(output / "mask" / "a.jpg.png") as png:
        mask = np.asarray(png)
    assert set(np.unique(mask)) == {0, 255}
    assert mask[64, 64] == 255  # the middle of the square
    assert (mask[200:, 200:] > 0).mean() < 0.1  # noise
    with Image.open(output / "overlay" / "ü=1" / "a.png.png") as png:
        assert png.size == (128, 128)
    bad = found["a.jpg"]
    assert bad["label"] == "1"
    assert float(bad["anomaly_score"]) > float(bad["threshold"])
    row, column, height, width = map(int, bad["largest_box"].split())
    assert row <= 45 <= 83 <= row + height  # the square is 40 to 88 of 128
    assert column <= 45 <= 83 <= column + width
    labelled, count = ndimage.label(mask, np.ones((3, 3)))
    assert int(bad["regions"]) == count
    assert int(bad["largest_area"]) == np.bincount(labelled.ravel())[1:].max()


def test_the_threshold_comes_from_held_out_normal_images(model: Path) -> None:
    predictor = squad_lit.load(model, false_alarm_rate=0.2)
    about = predictor.runtime.metadata
    assert len(about["normal_scores"]) == 10
    assert predictor.threshold == from_normals(about["normal_scores"], 0.2)
    assert predictor.threshold.value == sorted(about["normal_scores"])[-2]
    assert predictor.pixel_threshold.value == sorted(about["normal_maxima"])[-2]


def test_files_that_only_a_training_reads_may_be_gone(model: Path, tmp_path: Path) -> None:
    content = torch.load(model, weights_only=True)
    content["squad_lit"]["config"]["backbone"]["weights"] = "/gone/weights.pth"
    content["squad_lit"]["config"]["synthesis"]["texture_dir"] = "/gone/dtd"
    torch.save(content, tmp_path / "elsewhere.ckpt")
    image = draw(100)
    expected, found = (squad_lit.load(p).predict(image) for p in (model, tmp_path / "elsewhere.ckpt"))
    assert found.anomaly_score == expected.anomaly_score


@pytest.mark.parametrize("lost", ["normal_scores", "config", "state_dict", "backbone.feature_mean"])
def test_a_checkpoint_that_is_not_whole_is_a_sentence(model: Path, tmp_path: Path, lost: str) -> None:
    content = torch.load(model, weights_only=True)
    for place in (content, content["squad_lit"], content["state_dict"]):
        place.pop(lost, None)
    torch.save(content, tmp_path / "part.ckpt")
    with pytest.raises(ValueError, match=r"part\.ckpt does not fit this squad_lit"):
        squad_lit.load(tmp_path / "part.ckpt")


def test_an_image_gives_the_same_in_every_form(model: Path, tmp_path: Path) -> None:
    array = draw(5, defect=True)
    Image.fromarray(array).save(tmp_path / "a.png")
    predictor = squad_lit.load(model)
    forms = [str(tmp_path / "a.png"), Image.fromarray(array), array, array.astype(np.float32) / 255]
    forms.append(torch.from_numpy(array).permute(2, 0, 1) / 255)
    forms.append(array[..., ::-1].copy()[..., ::-1])  # as BGR is turned to RGB
    results = [predictor.predict(form) for form in forms]
    assert len({result.anomaly_score for result in results}) == 1
    assert results[0].label == 1
    grey = predictor.predict(np.full((SIDE, SIDE), 120, np.uint8))
    assert grey.anomaly_map.shape == (SIDE, SIDE)
    deep, turned = Image.fromarray(array[..., 0].astype(np.uint16) * 257), Image.fromarray(array)
    deep.save(tmp_path / "deep.png")
    turned.getexif()[0x112] = 6  # by a quarter
    turned.save(tmp_path / "turned.jpg", quality=100)
    for image, name in ((deep, "deep.png"), (Image.open(tmp_path / "turned.jpg"), "turned.jpg")):
        assert predictor.predict(image).anomaly_score == predictor.predict(tmp_path / name).anomaly_score


def test_what_cannot_be_read_is_skipped_and_said(
    model: Path, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (parts / "b.png").write_bytes(b"no image")
    command = ["--checkpoint", str(model), "--output", str(tmp_path / "out"), str(parts), str(parts / "absent.png")]
    assert main(command) == 2
    errors = capsys.readouterr().err
    assert f"skipped: cannot read image {parts / 'b.png'}: " in errors
    assert f"skipped: cannot read image {parts / 'absent.png'}: " in errors
    assert len(rows(tmp_path / "out")) == 3
    assert main([*command[:4], str(parts / "b.png")]) == 1  # nothing is left
    (parts / "b.png").unlink()
    two_pages = [Image.fromarray(draw(i)) for i in range(2)]
    two_pages[0].save(parts / "b.tiff", save_all=True, append_images=two_pages[1:])
    assert main([*command[:4], str(parts / "b.tiff"), str(parts / "a.png")]) == 2
    assert "b.tiff: it has 2 pages" in capsys.readouterr().err


def test_a_rerun_does_only_what_is_missing(model: Path, parts: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    command = ["--checkpoint", str(model), "--output", str(output), str(parts)]
    main(command)
    before = rows(output)
    kept, missing = output / "map" / "a.png.tiff", output / "overlay" / "a.jpg.png"
    stamp = kept.stat().st_mtime_ns
    missing.unlink()
    with (output / "predictions.csv").open("a") as file:
        file.write(f"{parts / 'half'},3.1")  # what a power cut leaves
    assert main(command) == 0
    assert kept.stat().st_mtime_ns == stamp
    assert missing.exists()
    assert sorted(map(str, rows(output))) == sorted(map(str, before))
    kept.write_bytes(b"")
    main(command)
    assert kept.stat().st_size > 0
    main([*command, "--false-alarm-rate", "0.4"])  # another threshold, other labels and masks
    assert kept.stat().st_mtime_ns > stamp
    assert len(rows(output)) == 3
    assert {row["threshold"] for row in rows(output)} != {row["threshold"] for row in before}


def test_a_table_alone_can_be_asked_for(model: Path, parts: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    command = ["--checkpoint", str(model), "--output", str(output), str(parts)]
    assert main([*command, "--no-map", "--no-overlay"]) == 0
    before = rows(output)
    assert len(before) == 3
    assert {path.name for path in output.iterdir()} == {"predictions.csv", "calibration.json", ".lock"}
    (known,) = json.loads((output / "calibration.json").read_text()).values()
    assert known["normal_scores"] == pytest.approx(squad_lit.load(model).runtime.metadata["normal_scores"], rel=1e-5)
    assert float(before[0]["threshold"]) == max(known["normal_scores"])
    assert main([*command, "--no-overlay"]) == 0  # what is missing is made
    assert {path.name for path in output.iterdir() if path.is_dir()} == {"map", "mask"}
    assert rows(output) == before
    stamp = (output / "map" / "a.jpg.tiff").stat().st_mtime_ns
    main([*command, "--no-overlay"])
    assert (output / "map" / "a.jpg.tiff").stat().st_mtime_ns == stamp


def test_another_image_or_model_is_looked_at_anew(model: Path, parts: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    command = ["--output", str(output), str(parts), "--checkpoint"]
    main([*command, str(model)])
    before = {row["name"]: row["anomaly_score"] for row in rows(output)}
    shutil.copy(parts / "a.jpg", parts / "a.png")  # the next part, under the name of the one before
    main([*command, str(model)])
    found = {row["name"]: row["anomaly_score"] for row in rows(output)}
    assert found["a.png"] == found["a.jpg"] == before["a.jpg"] != before["a.png"]
    content = torch.load(model, weights_only=True)
    content["squad_lit"]["config"]["anomaly"]["top"] = 0.5
    torch.save(content, tmp_path / "other.ckpt")
    main([*command, str(tmp_path / "other.ckpt")])
    assert all(float(row["anomaly_score"]) < float(found[row["name"]]) for row in rows(output))  # of more pixels


def test_images_of_one_name_keep_files_of_their_own(model: Path, parts: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    command = ["--checkpoint", str(model), "--output", str(output)]
    for _ in range(2):  # as on a line, one by one
        for place in (parts / "a.png", parts / "ü=1" / "a.png", parts / "a.jpg"):
            assert main([*command, str(place)]) == 0
    assert {row["name"] for row in rows(output)} == {"a.png", "ü=1/a.png", "a.jpg"}
    for row in rows(output):
        with Image.open(output / "map" / f"{row['name']}.tiff") as tiff, Image.open(row["image_path"]) as image:
            assert tiff.size == image.size
            top = np.sort(np.asarray(tiff), None)[-round(0.01 * SIDE**2) :]
            assert float(row["anomaly_score"]) < top.mean() * 1.2


def test_an_interrupted_rerun_leaves_a_whole_table(
    model: Path, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    command = ["--checkpoint", str(model), "--output", str(output)]
    main([*command, str(parts / "a.png")])
    with monkeypatch.context() as patch:
        add, added = Predictions.add, []

        def stop(self: Predictions, path: Path, row: dict[str, str]) -> None:
            add(self, path, row)
            added.append(path)
            raise KeyboardInterrupt

        patch.setattr(Predictions, "add", stop)
        assert main([*command, str(parts)]) == 130
    assert len(added) == 1
    assert len(rows(output)) == 2
    for row in rows(output):
        assert (float(row["threshold"]) < float(row["anomaly_score"])) == bool(int(row["label"]))
    assert main([*command, str(parts)]) == 0
    assert len(rows(output)) == 3


def test_the_output_is_no_input(model: Path, parts: Path) -> None:
    for _ in range(2):
        assert main(["--checkpoint", str(model), "--output", str(parts / "out"), str(parts)]) == 0
        assert len(rows(parts / "out")) == 3


def test_a_run_keeps_its_table(model: Path, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "predictions.csv").write_text("image_path,category\na.png,bottle\n")
    assert main(["--checkpoint", str(model), "--output", str(tmp_path), str(parts)]) == 1
    assert "predictions.csv has other columns, so a run or another version wrote it" in capsys.readouterr().err
    assert (tmp_path / "predictions.csv").read_text() == "image_path,category\na.png,bottle\n"


def test_a_region_of_interest_is_all_that_counts(
    model: Path, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    roi = np.zeros((SIDE, SIDE), np.uint8)
    roi[:, 64:] = 1  # the defect lies left of it
    Image.fromarray(roi).save(tmp_path / "roi.png")
    output = tmp_path / "out"
    command = ["--checkpoint", str(model), "--output", str(output), str(parts)]
    assert main(command) == 0
    whole = {Path(row["image_path"]).name: row for row in rows(output)}
    assert main([*command, "--roi", str(tmp_path / "roi.png")]) == 0  # another region: nothing of the first run counts
    found = {Path(row["image_path"]).name: row for row in rows(output)}
    assert (whole["a.jpg"]["label"], found["a.jpg"]["label"]) == ("1", "0")
    assert float(found["a.jpg"]["anomaly_score"]) < float(whole["a.jpg"]["anomaly_score"]) / 2
    with Image.open(output / "map" / "a.jpg.tiff") as tiff:
        assert np.array_equal(np.isnan(np.asarray(tiff)), np.arange(256)[None].repeat(256, 0) < 128)
    with Image.open(output / "mask" / "a.jpg.png") as png:
        assert not np.asarray(png)[:, :128].any()
    stamp = (output / "map" / "a.jpg.tiff").stat().st_mtime_ns
    assert main([*command, "--roi", str(tmp_path / "roi.png")]) == 0
    assert (output / "map" / "a.jpg.tiff").stat().st_mtime_ns == stamp
    Image.fromarray(0 * roi).save(tmp_path / "roi.png")
    assert main([*command, "--roi", str(tmp_path / "roi.png")]) == 1
    assert "roi.png: the region of interest is empty" in capsys.readouterr().err


def test_a_list_comes_from_a_file_or_from_standard_input(
    model: Path, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"{parts / 'a.png'}\n\n{parts / 'ü=1'}\n{parts / 'a.png'}\n"
    (tmp_path / "list.txt").write_text(text, encoding="utf-8-sig")
    base = ["--checkpoint", str(model), "--output"]
    assert main([*base, str(tmp_path / "a"), "--from-file", str(tmp_path / "list.txt")]) == 0
    assert len(rows(tmp_path / "a")) == 2
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    assert main([*base, str(tmp_path / "b"), "--from-file", "-"]) == 0
    assert len(rows(tmp_path / "b")) == 2


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--checkpoint", "absent.ckpt", "PARTS"], "error: no checkpoint"),
        (["--checkpoint", "MODEL", "--false-alarm-rate", "1.5", "PARTS"], "error: false-alarm rate"),
        (["--checkpoint", "MODEL", "EMPTY"], "error: no image in"),
        (["--checkpoint", "MODEL", "--from-file", "LIST"], "error: there is no image to predict"),
        (["--checkpoint", "MODEL", "--output", "LIST", "PARTS"], "list.txt: File exists; give a folder"),
    ],
)
def test_mistakes_are_told_in_words(
    model: Path, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], given: list[str], words: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.txt").write_text("\n")
    names = {"MODEL": str(model), "PARTS": str(parts)}
    names |= {"EMPTY": str(tmp_path / "empty"), "LIST": str(tmp_path / "list.txt")}
    assert main(["--output", str(tmp_path / "out"), *(names.get(g, g) for g in given)]) == 1
    assert words in capsys.readouterr().err


def test_overlay_has_one_scale_for_all_images() -> None:
    image = np.full((4, 4, 3), 128, np.uint8)
    maps = [np.zeros((4, 4), np.float32), np.zeros((4, 4), np.float32)]
    maps[0][1, 1] = maps[1][1, 1] = 2.0
    maps[1][3, 3] = 50.0  # a far higher value elsewhere leaves the colour of the first pixel alone
    pictures = [overlay(image, Result(m, 0.0, 0, np.zeros((4, 4), bool), []), 4.0) for m in maps]
    assert (pictures[0][1, 1] == pictures[1][1, 1]).all()
    assert (pictures[0][0, 0] == 128).all()  # nothing found: the image itself
    assert (pictures[0][1, 1] != 128).any()
    at_threshold = overlay(image, Result(np.full((4, 4), 4.0, np.float32), 0.0, 0, np.zeros((4, 4), bool), []), 4.0)
    middle = colour_map(np.array([[0.5]]), 0, 1)[0, 0]
    assert np.allclose(at_threshold[0, 0], 0.65 * 128 + 0.35 * middle, atol=1)


def test_names_do_not_depend_on_how_a_folder_is_written(
    model: Path, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    around = tmp_path / ".." / tmp_path.name / parts.relative_to(tmp_path)
    assert main(["--checkpoint", str(model), "--output", "out", str(around)]) == 0
    assert {row["name"] for row in rows(tmp_path / "out")} == {"a.jpg", "a.png", "ü=1/a.png"}


def test_a_wrong_model_or_list_leaves_no_output_folder(model: Path, parts: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "no.ckpt").write_bytes(b"nothing")
    assert main(["--checkpoint", str(tmp_path / "no.ckpt"), "--output", str(tmp_path / "out"), str(parts)]) == 1
    assert not (tmp_path / "out").exists()
    assert main(["--checkpoint", str(model), "--output", str(tmp_path / "out"), "--from-file", "no.txt"]) == 1
    assert "error: --from-file no.txt: No such file" in capsys.readouterr().err


def test_another_product_is_told_and_a_folder_in_use_is_refused(
    model: Path, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for i in range(5):
        noise = np.random.default_rng(i).integers(0, 256, (128, 128, 3), dtype=np.uint8)
        Image.fromarray(noise).save(other / f"{i}.png")
    output = tmp_path / "found"
    command = ["--checkpoint", str(model), "--output", str(output)]
    assert main([*command, str(other)]) == 0
    assert "warning: 5 of 5 images score far above all 10 normal images that are known" in capsys.readouterr().err
    with (output / ".lock").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert main([*command, str(parts)]) == 1
        assert f"{output} is in use by " in capsys.readouterr().err
    assert len(rows(output)) == 5
    assert main([*command, str(parts)]) == 0
    assert "far above" not in capsys.readouterr().err
    assert len(rows(output)) == 8


ODD = ["carriage\rreturn.png", "line\nfeed.png", "=1+1|cmd.png", "@sum.png", 'comma, "quote".png', " space .png"]


@pytest.mark.timeout(120)
def test_a_hostile_folder_is_judged_as_far_as_it_can_be(
    model: Path, tmp_path: Path, header_of_png: Callable[[Path, int, int], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    place, output = tmp_path / "parts", tmp_path / "out"
    place.mkdir()
    for i, name in enumerate(ODD):
        Image.fromarray(draw(i)).save(place / name)
    header_of_png(place / "giant.png", 65535, 65535)
    (place / "postscript.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(place / "nan.tif")
    os.mkfifo(place / "pipe.png")
    command = ["--checkpoint", str(model), "--output", str(output), str(place), str(place / "pipe.png")]
    assert main(command) == 2
    assert {Path(row["image_path"]).name for row in read_rows(output / "predictions.csv")} == set(ODD)
    with (output / "predictions.csv").open(newline="", encoding="utf-8") as file:
        assert len(list(csv.reader(file))) == 1 + len(ODD)
    error = capsys.readouterr().err
    assert "giant.png: its 65535 x 65535 pixels (height x width) need about 214.7 GB of memory, and" in error
    assert "postscript.png: its content is not that of a PNG, JPEG, BMP, TIFF or WebP file" in error
    assert "nan.tif has values that are NaN or infinite, 64 of 64" in error
    assert "pipe.png: it is no regular file" in error
    assert main(command) == 2  # what is done is found by its name
    assert (
        f"0 images (0.0 per second), 0 of them anomalous; {len(ODD)} done before, 4 skipped" in capsys.readouterr().out
    )
    assert view.main([str(output)]) == 0


@pytest.mark.parametrize("name", ["../../outside", "/tmp/outside", "a/../../../outside", ""])
def test_a_table_of_a_stranger_leads_nowhere(
    model: Path, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    output = tmp_path / "a" / "out"
    command = ["--checkpoint", str(model), "--output", str(output), str(parts / "a.png")]
    assert main(command) == 0
    (row,) = read_rows(output / "predictions.csv")
    write_rows(output / "predictions.csv", [row | {"name": name, "model": "another"}])
    before = sorted(tmp_path.rglob("*"))
    assert main(command) == 1
    assert "predictions.csv is damaged, or of a stranger: the name" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before
    assert not Path("/tmp/outside.tiff").exists()
    assert view.main([str(output)]) == 1
    assert "leads out of" in capsys.readouterr().err


def test_the_image_is_named_whose_score_is_no_number(
    model: Path, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(self: Checkpoint, image: np.ndarray) -> Output:
        found = real(self, image)
        bright = image.max(axis=(1, 2, 3)) >= 250  # the defect
        return found._replace(anomaly_score=np.where(bright, np.nan, found.anomaly_score))

    real = Checkpoint.run
    monkeypatch.setattr(Checkpoint, "run", run)
    assert main(["--checkpoint", str(model), "--output", str(tmp_path / "out"), str(parts)]) == 1
    assert f"error: {parts / 'a.jpg'}: the score of an image is nan: the file of the model" in capsys.readouterr().err
    assert calibrate.main(["--checkpoint", str(model), "--output", str(tmp_path / "a.ckpt"), str(parts)]) == 1
    assert f"error: {parts / 'a.jpg'}: the score of an image is nan" in capsys.readouterr().err
    assert not (tmp_path / "a.ckpt").exists()


def test_an_image_for_which_the_memory_is_too_small_is_skipped(
    model: Path, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(self: Checkpoint, image: np.ndarray) -> Output:
        if image.shape[1] == 256 and image.shape[2] == 384:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes.")
        return real(self, image)

    real = Checkpoint.run
    monkeypatch.setattr(Checkpoint, "run", run)
    assert main(["--checkpoint", str(model), "--output", str(tmp_path / "out"), str(parts)]) == 2
    assert f"skipped: {parts / 'a.png'}: there is not enough memory for it" in capsys.readouterr().err
    assert len(rows(tmp_path / "out")) == 2


def test_a_rate_that_the_images_are_too_few_for_can_be_extrapolated(
    model: Path, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    about = squad_lit.load(model).runtime.metadata
    command = ["--checkpoint", str(model), "--output", str(tmp_path / "out"), str(parts), "--extrapolate"]
    with pytest.warns(UserWarning, match="there are 10, and the threshold is extrapolated"):
        assert main(command) == 0
    assert "lie above it if their scores are normally distributed" in capsys.readouterr().out
    limit = extrapolated(about["normal_scores"], 0.01).value
    assert {row["threshold"] for row in rows(tmp_path / "out")} == {f"{limit:.6g}"}


def test_regions_and_times_on_request(
    model: Path, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    command = ["--checkpoint", str(model), "--output", str(output), str(parts)]
    assert main(command) == 0
    assert not (output / "regions.json").exists()
    anomalous = sum(row["label"] == "1" for row in rows(output))
    assert 0 < anomalous < len(rows(output))
    assert f" per second), {anomalous} of them anomalous; 0 done before" in capsys.readouterr().out
    assert main([*command, "--coco", "--timing"]) == 0  # also of images that were done before
    head, line = capsys.readouterr().out.splitlines()[-2:]
    assert head.split() == ["ms", "per", "image", "decoding", "resizing", "model", "regions", "writing"]
    assert line.startswith("last.ckpt ")
    assert float(line.split()[3]) > 0
    found = json.loads((output / "regions.json").read_text())
    table = {row["name"]: row for row in rows(output)}
    assert {image["file_name"] for image in found["images"]} == set(table)
    for image in found["images"]:
        boxes = [a["bbox"] for a in found["annotations"] if a["image_id"] == image["id"]]
        row = table[image["file_name"]]
        assert len(boxes) == int(row["regions"])
        if boxes:
            x, y, width, height = boxes[0]
            assert f"{y} {x} {height} {width}" == row["largest_box"]


def test_names_as_long_as_can_be_are_shortened_and_stay_apart(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"{'a' * 250}{end}.png" for end in "12"] + [f"{'é' * 125}.png", "short.png"]
    place = tmp_path / "parts"
    place.mkdir()
    for i, name in enumerate(names):
        Image.fromarray(draw(100 + i)).save(place / name)
    output = tmp_path / "out"
    for done in (0, 4):
        assert main(["--checkpoint", str(model), "--output", str(output), str(place)]) == 0
        assert f"{done} done before, 0 skipped" in capsys.readouterr().out
    found = {Path(row["image_path"]).name: row["name"] for row in rows(output)}
    assert found.keys() == set(names)
    assert len(set(found.values())) == 4
    assert found["short.png"] == "short.png"
    for name in found.values():
        assert (output / "map" / f"{name}.tiff").is_file()
    assert view.main([str(output)]) == 0
