"""A user's own folders: layouts, pairing of masks, what may be missing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from squad_lit.dataset.folder import Folder

SETTINGS: dict[str, Any] = {
    "category": "all",
    "train_dir": None,
    "normal_test_dir": None,
    "anomalous_test_dir": None,
    "mask_dir": None,
    "test_fraction": 0.2,
    "image_size": 8,
    "batch_size": 2,
    "num_workers": 0,
    "validation_fraction": 0.1,
    "limit_train": None,
    "cache": "off",
    "cache_folder": "unused",
    "intensity_range": None,
    "seed": 0,
}


def save(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(path)


def make(root: Path, **options: Any) -> Folder:
    return Folder(root=root, **{**SETTINGS, **options})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Ten good images, two kinds of defect with two images each."""
    place = tmp_path / "cap"
    save(*(place / "good" / f"{i}.png" for i in range(10)))
    save(*(place / kind / f"{i}.jpg" for kind in ("dent", "scratch") for i in range(2)))
    return place


def kinds(samples: Any) -> list[str]:
    return [sample.defect for sample in samples]


def test_good_and_anything_else(root: Path) -> None:
    data = make(root)
    assert data.categories == ["cap"]
    train, test = data.scans["cap"]
    assert len(train) == 8
    assert kinds(test) == ["good"] * 2 + ["dent"] * 2 + ["scratch"] * 2
    assert all(sample.mask_path is None for sample in test)
    assert not {s.image_path for s in train} & {s.image_path for s in test}


def test_held_out_test_images_do_not_depend_on_the_seed(root: Path) -> None:
    assert make(root, seed=0).scans == make(root, seed=7).scans


def test_masks_pair_by_stem_in_the_folder_of_the_kind(root: Path) -> None:
    save(root / "masks" / "dent" / "1_mask.png", root / "masks" / "scratch" / "0.png")
    _, test = make(root).scans["cap"]
    found = {f"{s.defect}/{s.image_path.stem}": s.mask_path for s in test if s.mask_path}
    assert found == {"dent/1": root / "masks/dent/1_mask.png", "scratch/0": root / "masks/scratch/0.png"}
    assert "masks" not in kinds(test)


def test_a_stem_that_is_part_of_another_is_no_match(root: Path) -> None:
    save(root / "masks" / "dent" / "11.png", root / "masks" / "dent" / "01_mask.png")
    _, test = make(root).scans["cap"]
    assert not [s for s in test if s.mask_path]


def test_two_masks_for_an_image_are_listed(root: Path) -> None:
    save(root / "masks" / "dent" / "1.png", root / "masks" / "dent" / "1_GT.bmp")
    with pytest.raises(ValueError, match=r"several masks for .*dent/1\.jpg: .*1\.png, .*1_GT\.bmp"):
        make(root)


def test_a_mask_that_fits_images_of_two_kinds_is_refused(root: Path) -> None:
    save(root / "masks" / "1.png")
    with pytest.raises(ValueError, match=r"mask .*masks/1\.png fits two images: .*dent/1\.jpg and .*scratch/1\.jpg"):
        make(root)


def test_folders_named_one_by_one(root: Path, tmp_path: Path) -> None:
    save(tmp_path / "bad" / "a.png", tmp_path / "labels" / "a.png", root / "extra" / "x.png")
    data = make(
        root,
        train_dir="good",
        normal_test_dir="extra",
        anomalous_test_dir=str(tmp_path / "bad"),
        mask_dir=str(tmp_path / "labels"),
    )
    train, test = data.scans["cap"]
    assert len(train) == 10
    assert kinds(test) == ["good", "anomaly"]
    assert test[1].mask_path == tmp_path / "labels" / "a.png"


def test_layout_of_mvtec_is_recognised(tmp_path: Path) -> None:
    root = tmp_path / "part"
    save(*(root / "train" / "good" / f"{i}.png" for i in range(3)))
    save(root / "test" / "good" / "0.png", root / "test" / "cut" / "0.png", root / "ground_truth/cut/0_mask.png")
    train, test = make(root).scans["part"]
    assert len(train) == 3
    assert kinds(test) == ["good", "cut"]
    assert test[1].mask_path == root / "ground_truth" / "cut" / "0_mask.png"


def test_good_images_alone_are_enough(tmp_path: Path) -> None:
    save(*(tmp_path / "good" / f"{i}.png" for i in range(4)))
    data = make(tmp_path, test_fraction=0)
    data.setup()
    assert (len(data.train_set), len(data.val_set), len(data.test_set)) == (3, 1, 0)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"train_dir": "nowhere"}, FileNotFoundError, r"dataset\.train_dir: no folder .*nowhere"),
        ({"mask_dir": "nowhere"}, FileNotFoundError, r"dataset\.mask_dir: no folder .*nowhere"),
        ({"anomalous_test_dir": "dent"}, ValueError, "need train_dir"),
        ({"test_fraction": 1}, ValueError, "test_fraction must be in"),
        ({"category": "bottle"}, ValueError, "known: cap"),
        ({"train_dir": "."}, FileNotFoundError, "no normal training images"),
    ],
)
def test_mistakes_are_told_in_words(root: Path, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make(root, **options)
