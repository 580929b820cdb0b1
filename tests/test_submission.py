"""The files for the evaluation server of MVTec AD 2, read back with tifffile as the server's own tools read them."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

import squad_lit
from squad_lit.submission import main

pytestmark = pytest.mark.filterwarnings("ignore:.*officially", "ignore:.*undefined")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The category vial, of grey noise, whose bad images have a bright square."""
    root, rng = tmp_path_factory.mktemp("mvtec_ad_2"), np.random.default_rng(0)
    splits = {"train/good": 6, "validation/good": 3, "test_public/good": 2, "test_public/bad": 2}
    splits |= {"test_private": 2, "test_private_mixed": 1}
    for split, count in splits.items():
        (root / "vial" / split).mkdir(parents=True)
        for i in range(count):
            image = rng.normal(120, 10, (64, 96)).clip(0, 255).astype(np.uint8)
            if split.endswith(("bad", "private")) and i == 0:
                image[20:44, 20:44] = 255
            Image.fromarray(image).save(root / "vial" / split / f"{i:03}_regular.png")
    masks = root / "vial" / "test_public" / "ground_truth" / "bad"
    masks.mkdir(parents=True)
    for i in range(2):
        mask = np.zeros((64, 96), np.uint8)
        mask[20:44, 20:44] = 255
        Image.fromarray(mask).save(masks / f"{i:03}_regular_mask.png")
    return root


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A memory of the category."""
    folder = tmp_path_factory.mktemp("run")
    overrides = ["trainer=smoke", "model.memory.patches=100", "model.groups={low: [4], high: [8]}", "logger=none"]
    overrides += ["dataset.image_size=64", "dataset.limit_train=null", "callback.progress=null", "callback.panels=null"]
    overrides += ["dataset.category=vial"]
    squad_lit.fit("mvtec_ad2", root=root, model="memory", output=folder, overrides=overrides)
    return folder


def test_each_private_image_has_a_half_precision_map_and_a_mask(
    root: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--root", str(root), "--output", str(tmp_path / "out"), str(run)]) == 0
    told = capsys.readouterr().out
    assert "vial: 3 images" in told
    assert "lacks can, fabric, " in told
    names = {"test_private/000_regular", "test_private/001_regular", "test_private_mixed/000_regular"}
    files = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert files == {f"anomaly_images/vial/{name}.tiff" for name in names} | {
        f"anomaly_images_thresholded/vial/{name}.png" for name in names
    }
    predictor = squad_lit.load(run / "last.ckpt")
    for name in names:
        found = tifffile.imread(tmp_path / "out" / "anomaly_images" / "vial" / f"{name}.tiff")
        expected = predictor.predict(root / "vial" / f"{name}.png")
        assert found.dtype == np.float16
        assert found.shape == (64, 96)
        np.testing.assert_allclose(found, expected.anomaly_map, rtol=2e-3, atol=2e-3)
        with Image.open(tmp_path / "out" / "anomaly_images_thresholded" / "vial" / f"{name}.png") as mask:
            assert np.array_equal(np.asarray(mask), expected.mask * 255)
    assert main(["--root", str(root), "--output", str(tmp_path / "out"), str(run)]) == 0
    assert "vial: 0 images" in capsys.readouterr().out  # it goes on where it was stopped


def test_mistakes_are_told(root: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = ["--output", str(tmp_path / "out")]
    assert main(["--root", str(root), *output, str(tmp_path)]) == 1
    assert "no last.ckpt in" in capsys.readouterr().err
    assert main(["--root", str(tmp_path), *output, str(run)]) == 1
    assert "no images in" in capsys.readouterr().err
    shutil.copy(run / "last.ckpt", tmp_path / "other.ckpt")
    assert main(["--root", str(root), *output, str(run), str(tmp_path / "other.ckpt")]) == 1
    assert "two models of vial" in capsys.readouterr().err
