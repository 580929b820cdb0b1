"""Two benchmarks with trees of their own, built from the names of their archives with small images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from squad_lit.dataset.btad import BTAD
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


def test_btad_official_counts_are_those_published() -> None:
    assert [sum(count) for count in zip(*BTAD.COUNTS.values(), strict=True)] == [1799, 451, 290]


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


def test_absent_benchmarks_say_where_to_get_them(tmp_path: Path) -> None:
    for kind, words in ((BTAD, "VT-ADL"), (KSDD2, "vicos")):
        with pytest.raises(FileNotFoundError, match=f"(?s)no folder .*nowhere.*{words}.*dataset.root=PATH"):
            kind(root=tmp_path / "nowhere", **SETTINGS)
