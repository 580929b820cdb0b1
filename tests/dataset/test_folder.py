"""A user's own folders: layouts, pairing of masks, what may be missing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from squad_lit.dataset.folder import Folder
from squad_lit.dataset.inspection import inspect

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


def test_good_images_that_nobody_reads_are_told(root: Path) -> None:
    save(root / "good" / "late shift" / "a.png")
    (root / "good" / "empty").mkdir()
    with pytest.warns(UserWarning, match=r"sub-folders of .*good are not read: late shift; move them up"):
        make(root)


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
    with pytest.raises(ValueError, match=r"masks/1\.png fits several images: .*dent/1\.jpg and .*scratch/1\.jpg"):
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
        ({"train_dir": "nowhere"}, FileNotFoundError, r"train_dir: no folder .*nowhere"),
        ({"mask_dir": "nowhere"}, FileNotFoundError, r"mask_dir: no folder .*nowhere"),
        ({"anomalous_test_dir": "dent"}, ValueError, "need train_dir"),
        ({"test_fraction": 1}, ValueError, "test_fraction: expected"),
        ({"category": "bottle"}, ValueError, "known: cap"),
        ({"train_dir": "."}, FileNotFoundError, r"no images in .*cap; its sub-folders dent, .* are not read"),
    ],
)
def test_mistakes_are_told_in_words(root: Path, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make(root, **options)


def problems(data: Folder) -> tuple[list[str], list[str]]:
    """Errors and warnings of the check, with paths relative to the root's parent."""
    _, found = inspect(data)
    texts = [(p.is_error, f"{p.path.relative_to(data.root)}: {p.text}") for p in found]
    return [t for is_error, t in texts if is_error], [t for is_error, t in texts if not is_error]


def paint(*paths: Path) -> None:
    """Images that all differ, so that none is a duplicate."""
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4), number + 1, np.uint8)).save(path)


@pytest.fixture
def distinct(tmp_path: Path) -> Path:
    place = tmp_path / "cap"
    paint(*(place / "good" / f"{i}.png" for i in range(5)), place / "scratch" / "001.png")
    return place


def test_check_lists_masks_that_match_no_image(distinct: Path) -> None:
    save(distinct / "masks/scratch/1.png", distinct / "masks/Scratch/001.png", distinct / "masks/dent/001.png")
    errors, warnings = problems(make(distinct, strict=False))
    names = ("Scratch/001", "dent/001", "scratch/1")
    assert errors == [f"masks/{name}.png: a mask without an image" for name in names]
    assert warnings == ["scratch/001.png: no mask: pixel metrics are undefined"]


def test_check_names_images_that_lie_where_nobody_looks(distinct: Path) -> None:
    paint(distinct / "loose.png", distinct / "good" / "sub" / "a.png")
    paint(*(distinct / "scratch" / "sub" / f"{i}.png" for i in range(7)))
    (distinct / "notes").mkdir()
    (distinct / "notes" / ".DS_Store").touch()
    errors, warnings = problems(make(distinct, strict=False))
    assert errors == []
    assert warnings == [
        "good/sub/a.png: belongs to no image of the data set, left out",
        "loose.png: belongs to no image of the data set, left out",
        "notes/.DS_Store: a file of Windows or macOS, left out",
        "scratch/001.png: no mask: pixel metrics are undefined",
        "scratch/sub: 7 files: belongs to no image of the data set, left out: 0.png, 1.png, 2.png and 4 more",
    ]


def test_two_folders_of_masks_are_a_choice_and_never_a_kind(root: Path) -> None:
    save(root / "masks" / "dent" / "0.png", root / "ground_truth" / "dent" / "1.png")
    with pytest.raises(ValueError, match=r"several folders of masks: .*ground_truth and .*masks; choose with"):
        make(root)
    for given in ("masks", f"../{root.name}/masks"):
        _, test = make(root, mask_dir=given).scans["cap"]
        assert set(kinds(test)) == {"good", "dent", "scratch"}
        assert [s.mask_path for s in test if s.mask_path] == [root / "masks" / "dent" / "0.png"]


def test_a_folder_that_is_named_otherwise_is_no_kind(root: Path) -> None:
    _, test = make(root, train_dir="good", anomalous_test_dir=".").scans["cap"]
    assert set(kinds(test)) == {"good", "dent", "scratch"}
    paths = {s.image_path for s in make(root, train_dir="dent", anomalous_test_dir=".").scans["cap"][1] if s.label}
    assert {path.parent.name for path in paths} == {"scratch"}


def test_absolute_folders_need_no_root(root: Path) -> None:
    data = make(root / "nowhere", train_dir=str(root / "good"), anomalous_test_dir=str(root / "dent"))
    assert data.categories == ["cap"]
    assert len(data.scans["cap"][0]) == 8


def test_a_folder_of_another_case_is_suggested(tmp_path: Path) -> None:
    save(tmp_path / "cap" / "Good" / "0.png")
    with pytest.raises(FileNotFoundError, match=r"no images in .*good; did you mean dataset\.train_dir=.*Good\?"):
        make(tmp_path / "cap")


def test_of_two_good_images_none_is_held_out_for_the_test(tmp_path: Path) -> None:
    save(*(tmp_path / "cap" / "good" / f"{i}.png" for i in range(2)))
    data = make(tmp_path / "cap")
    data.setup()
    assert (len(data.train_set), len(data.val_set), len(data.test_set)) == (1, 1, 0)


def test_masks_of_good_images_are_no_strays_and_have_to_be_black(distinct: Path) -> None:
    save(distinct / "masks" / "001.png", distinct / "masks" / "0.png", distinct / "masks" / "good" / "1.png")
    errors, _ = problems(make(distinct, strict=False))
    assert [e.split(":")[0] for e in errors] == ["masks/001.png"]  # black, of an anomalous image
    paint(distinct / "masks" / "0.png")
    errors, _ = problems(make(distinct, strict=False))
    assert errors[0].startswith("masks/0.png: marks a defect, but image")


@pytest.mark.parametrize("name", ["Good", "ok", "NORMAL"])
def test_a_kind_of_defect_whose_name_means_normal_is_refused(root: Path, name: str) -> None:
    save(root / name / "0.png")
    with pytest.raises(ValueError, match=rf"{name}: every folder beside 'good' is a kind of defect"):
        make(root)
