"""Each fault is made on purpose in a small tree of MVTec's, and has to be found, and nothing else."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from squad_lit.dataset.inspection import inspect
from squad_lit.dataset.mvtec import MVTec

SETTINGS: dict[str, Any] = {
    "category": "bottle",
    "image_size": 8,
    "batch_size": 2,
    "num_workers": 0,
    "validation_fraction": 0.5,
    "limit_train": None,
    "cache": "off",
    "cache_folder": "unused",
    "intensity_range": None,
    "seed": 0,
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    folder = tmp_path / "bottle"
    for place, count in (("train/good", 3), ("test/good", 2), ("test/cut", 2)):
        (folder / place).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 255, (12, 10, 3), dtype=np.uint8)).save(folder / place / f"{i:03}.png")
    mask = np.zeros((12, 10), np.uint8)
    mask[2:5, 3:6] = 255
    (folder / "ground_truth" / "cut").mkdir(parents=True)
    for i in range(2):
        Image.fromarray(mask).save(folder / "ground_truth" / "cut" / f"{i:03}_mask.png")
    return tmp_path


def found(root: Path) -> tuple[dict[str, Any], list[str], list[str]]:
    """The row, errors and warnings, without the official counts, which a small tree cannot have."""
    (row,), problems = inspect(MVTec(root=root, **SETTINGS, strict=False))
    texts = [(p.is_error, f"{p.path.relative_to(root)}: {p.text}") for p in problems if "officially" not in p.text]
    return row, [t for is_error, t in texts if is_error], [t for is_error, t in texts if not is_error]


def test_a_sound_tree_has_no_problem(root: Path) -> None:
    row, errors, warnings = found(root)
    assert row == {
        "category": "bottle",
        "train": 3,
        "test good": 2,
        "test cut": 2,
        "masks": 2,
        "sizes": "12x10",
        "modes": "RGB",
    }
    assert errors == warnings == []
    _, problems = inspect(MVTec(root=root, **SETTINGS, strict=False))
    assert ["officially (209, 20, 63)" in str(p) for p in problems] == [True]


def damage(root: Path, fault: str) -> None:
    folder = root / "bottle"
    image, mask = folder / "test/cut/000.png", folder / "ground_truth/cut/000_mask.png"
    if fault == "truncated":
        image.write_bytes(image.read_bytes()[:-60])
    elif fault == "not an image":
        (folder / "train/good/000.png").write_text("no image")
    elif fault == "no mask":
        mask.unlink()
    elif fault == "mask without image":
        shutil.copy(mask, mask.with_name("007_mask.png"))
    elif fault == "size":
        Image.new("L", (10, 11), 255).save(mask)
    elif fault == "empty":
        Image.new("L", (10, 12)).save(mask)
    elif fault == "interpolated":
        Image.fromarray(np.arange(120, dtype=np.uint8).reshape(12, 10)).save(mask)
    elif fault == "jpeg":
        with Image.open(mask) as picture:
            picture.save(mask.with_suffix(".jpg"), quality=100)
        mask.with_suffix(".jpg").rename(mask)  # as people do: the content is a JPEG, whatever the name says
    elif fault == "duplicate":
        shutil.copy(folder / "train/good/001.png", folder / "test/good/000.png")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("truncated", "bottle/test/cut/000.png: cannot read image"),
        ("not an image", "bottle/train/good/000.png: cannot read image"),
        ("no mask", "bottle/ground_truth/cut/000_mask.png: no such mask"),
        ("mask without image", "bottle/ground_truth/cut/007_mask.png: a mask without an image"),
        ("size", "bottle/ground_truth/cut/000_mask.png: 11x10 pixels (height x width), but its image"),
        ("empty", "bottle/ground_truth/cut/000_mask.png: all black, but image"),
        ("interpolated", "bottle/ground_truth/cut/000_mask.png: 120 distinct values: the mask was interpolated"),
        ("jpeg", "bottle/ground_truth/cut/000_mask.png: "),
        ("duplicate", "bottle/test/good/000.png: the same file as training image"),
    ],
)
def test_a_fault_is_found_with_its_file(root: Path, fault: str, message: str) -> None:
    damage(root, fault)
    _, errors, _ = found(root)
    assert len(errors) == 1
    assert errors[0].startswith(message)
    assert ("a JPEG" in errors[0]) == (fault == "jpeg")


def test_images_of_any_kind_are_read(root: Path) -> None:
    folder = root / "bottle" / "train" / "good"
    for path in folder.iterdir():
        path.unlink()
    grey = np.arange(120, dtype=np.uint8).reshape(12, 10)
    Image.fromarray(grey).save(folder / "grey.bmp")
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "deep.tif")
    Image.fromarray(np.stack([grey] * 4, -1)).save(folder / "alpha.webp", lossless=True)
    Image.fromarray(grey).convert("RGB").quantize(8).save(folder / "palette.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(grey).save(folder / "turned.JPG", exif=exif)
    row, errors, warnings = found(root)
    assert errors == []
    assert ["such as turned.JPG" in warning for warning in warnings] == [True]  # of another shape
    assert row["train"] == 5
    assert row["modes"] == "I;16, L, P, RGB, RGBA"
    assert row["sizes"] == "10x12, 12x10"


def test_hidden_and_foreign_files_are_warnings(root: Path) -> None:
    for name in ("._000.png", "Thumbs.db", "readme.txt"):
        (root / "bottle" / "train" / "good" / name).write_text("x")
    _, errors, warnings = found(root)
    assert errors == []
    assert [text.partition(": ")[2] for text in warnings] == [
        "a hidden file, left out",
        "a hidden file, left out",
        "not an image, left out",
    ]


def test_images_of_another_shape_are_named(root: Path) -> None:
    for name, shape in (("near", (20, 16)), ("wide", (10, 20))):  # 0.80 instead of 0.83 passes
        Image.fromarray(np.random.default_rng(1).integers(0, 255, (*shape, 3), dtype=np.uint8)).save(
            root / "bottle" / "train" / "good" / f"{name}.png"
        )
    _, errors, (warning,) = found(root)
    assert errors == []
    assert warning == (
        "bottle: 1 of 9 images have another shape than the others, such as wide.png, and are distorted when all are "
        "resized to one; width / height is 2.00 there and mostly 0.83"
    )
