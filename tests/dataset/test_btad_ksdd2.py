"""Two benchmarks with trees of their own, built from the names of their archives with small images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from squad_lit.dataset.btad import BTAD
from squad_lit.dataset.inspection import inspect
from squad_lit.dataset.ksdd2 import KSDD2

pytestmark = pytest.mark.filterwarnings("ignore:.*officially")

SETTINGS: dict[str, Any] = {
    "category": "all",
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


def save(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((6, 4), np.uint8)
    pixels[2, 1] = value
    Image.fromarray(pixels).save(path)


@pytest.fixture
def btad(tmp_path: Path) -> Path:
    root = tmp_path / "BTech_Dataset_transformed"
    for category, image, mask in (("01", "bmp", "png"), ("02", "png", "png"), ("03", "bmp", "bmp")):
        for stem in ("0000", "0001", "0002"):
            save(root / category / "train" / "ok" / f"{stem}.{image}")
        for stem in ("0000", "0001"):
            save(root / category / "test" / "ok" / f"{stem}.{image}")
            save(root / category / "test" / "ko" / f"{stem}.{image}")
            save(root / category / "ground_truth" / "ko" / f"{stem}.{mask}", 255)
    return root


def test_btad_pairs_inside_ko_whatever_the_extension(btad: Path) -> None:
    data = BTAD(root=btad, **SETTINGS)
    assert data.categories == ["01", "02", "03"]
    for category, (train, test) in data.scans.items():
        assert len(train) == 3
        assert [(s.defect, s.label) for s in test] == [("good", 0)] * 2 + [("ko", 1)] * 2
        suffix = ".bmp" if category == "03" else ".png"
        for sample in test[2:]:
            assert sample.mask_path == btad / category / "ground_truth" / "ko" / f"{sample.image_path.stem}{suffix}"


def test_btad_missing_mask_is_named(btad: Path) -> None:
    (btad / "03" / "ground_truth" / "ko" / "0001.bmp").unlink()
    with pytest.raises(FileNotFoundError, match=r"no mask for image .*03/test/ko/0001\.bmp"):
        BTAD(root=btad, **SETTINGS)


def test_btad_categories_are_text(btad: Path) -> None:
    assert BTAD(root=btad, **{**SETTINGS, "category": "02"}).categories == ["02"]
    with pytest.raises(ValueError, match="quote it"):
        BTAD(root=btad, **{**SETTINGS, "category": 2})


@pytest.fixture
def ksdd2(tmp_path: Path) -> Path:
    root = tmp_path / "KolektorSDD2"
    for split, defects in (("train", {"10002"}), ("test", {"20001", "20003"})):
        for number in range(1, 5):
            stem = f"{1 if split == 'train' else 2}000{number}"
            save(root / split / f"{stem}.png", 100)
            save(root / split / f"{stem}_GT.png", 255 if stem in defects else 0)
    save(root / "train" / "10001 (copy).png", 100)
    save(root / "train" / "10001_GT (copy).png")
    return root


def test_ksdd2_label_comes_from_the_mask_and_copies_are_left_out(ksdd2: Path) -> None:
    train, test = KSDD2(root=ksdd2, **SETTINGS).scans["ksdd2"]
    assert [s.image_path.name for s in train] == ["10001.png", "10003.png", "10004.png"]
    assert {s.label for s in train} == {0}
    assert [s.label for s in test] == [1, 0, 1, 0]
    assert test[0].mask_path == ksdd2 / "test" / "20001_GT.png"
    assert test[1].mask_path is None


def test_ksdd2_keeps_the_stated_size(ksdd2: Path) -> None:
    data = KSDD2(root=ksdd2, **{**SETTINGS, "image_size": [16, 8]})
    data.setup()
    assert data.test_set[0]["image"].shape == (3, 16, 8)
    assert data.test_set[0]["mask"].sum() > 0


def test_ksdd2_missing_mask_is_named(ksdd2: Path) -> None:
    (ksdd2 / "test" / "20002_GT.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"expected .*20002_GT\.png"):
        KSDD2(root=ksdd2, **SETTINGS)


def problems(data: Any, root: Path) -> list[str]:
    _, found = inspect(data)
    return [f"{p.path.relative_to(root)}: {p.text}" for p in found if "officially" not in p.text]


def paint(root: Path) -> None:
    """Make all images of a tree differ, so that none is a duplicate; masks stay."""
    for number, path in enumerate(sorted(p for p in root.rglob("*.png") if "_GT" not in p.name)):
        save(path, 1 + number)


def test_check_of_a_sound_ksdd2_names_only_the_copies(ksdd2: Path) -> None:
    paint(ksdd2)
    assert problems(KSDD2(root=ksdd2, **SETTINGS, strict=False), ksdd2) == [
        "train/10001 (copy).png: belongs to no image of the data set, left out",
        "train/10001_GT (copy).png: belongs to no image of the data set, left out",
    ]


def test_check_of_ksdd2_reads_the_masks_of_all_images(ksdd2: Path) -> None:
    paint(ksdd2)
    (ksdd2 / "train" / "10003_GT.png").unlink()
    (ksdd2 / "test" / "20001_GT.png").write_bytes(b"no image")
    Image.new("L", (5, 5)).save(ksdd2 / "test" / "20002_GT.png")
    found = [text for text in problems(KSDD2(root=ksdd2, **SETTINGS, strict=False), ksdd2) if "copy" not in text]
    assert len(found) == 3
    assert found[0].startswith("test/20001_GT.png: cannot read image: its content is not that of a PNG")
    assert found[1].startswith("test/20002_GT.png: 5x5 pixels (height x width), but its image")
    assert found[2].startswith("train/10003_GT.png: no such mask; image")
    with pytest.raises((OSError, ValueError)):
        KSDD2(root=ksdd2, **SETTINGS)


def test_check_goes_on_after_a_category_that_cannot_be_used(btad: Path) -> None:
    for stem in ("0000", "0001"):
        save(btad / "01" / "ground_truth" / "ko" / f"{stem}.bmp", 255)
    (btad / "02" / "ground_truth" / "ko" / "0001.png").unlink()
    data = BTAD(root=btad, **SETTINGS, strict=False)
    rows, found = inspect(data)
    texts = [f"{p.path.relative_to(btad)}: {p.text}" for p in found if p.is_error]
    assert [row["category"] for row in rows] == ["02", "03"]
    (ambiguous,) = (t for t in texts if t.startswith("01: "))
    assert ambiguous.count("several masks for") == 2
    assert any(t.startswith("02/ground_truth/ko/0001.png: no such mask") for t in texts)
