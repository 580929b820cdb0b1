"""Four benchmarks as their authors distribute them, as trees of small images."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from squad_lit.dataset.core import AnomalyDataModule
from squad_lit.dataset.inspection import inspect
from squad_lit.dataset.mvtec import MVTec
from squad_lit.dataset.mvtec_3d import MVTec3D
from squad_lit.dataset.mvtec_ad2 import MVTecAD2
from squad_lit.dataset.mvtec_loco import MVTecLOCO
from squad_lit.dataset.real_iad import RealIAD
from squad_lit.dataset.sample import Sample

pytestmark = pytest.mark.filterwarnings("ignore:.*officially")

SETTINGS: dict[str, Any] = {
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


def picture(path: Path, number: int) -> None:
    """An image that no other number has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 4, 3), 20 * number, np.uint8)).save(path)


def mask(path: Path, *rows: int, value: int = 255) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((6, 4), np.uint8)
    pixels[list(rows)] = value
    Image.fromarray(pixels).save(path)


@pytest.fixture
def loco(tmp_path: Path) -> Path:
    folder = tmp_path / "breakfast_box"
    splits = {"train/good": 3, "validation/good": 2, "test/good": 2}
    splits |= {"test/logical_anomalies": 2, "test/structural_anomalies": 1}
    number = 0
    for split, count in splits.items():
        for i in range(count):
            picture(folder / split / f"{i:03}.png", number := number + 1)
    truth = folder / "ground_truth"
    mask(truth / "logical_anomalies" / "000" / "000.png", 1, value=255)
    mask(truth / "logical_anomalies" / "000" / "001.png", 4, value=254)  # a second part, of another kind
    mask(truth / "logical_anomalies" / "001" / "000.png", 2, value=253)
    mask(truth / "structural_anomalies" / "000" / "000.png", 3)
    (folder / "defects_config.json").write_text("[]")
    return tmp_path


@pytest.fixture
def ad2(tmp_path: Path) -> Path:
    folder = tmp_path / "can"
    number = 0
    splits = {"train/good": 3, "validation/good": 2, "test_public/good": 2, "test_public/bad": 2, "test_private": 2}
    for split, count in splits.items():
        for i in range(count):
            picture(folder / split / f"{i:03}_regular.png", number := number + 1)
    for i in range(2):
        mask(folder / "test_public" / "ground_truth" / "bad" / f"{i:03}_regular_mask.png", i)
    return tmp_path


@pytest.fixture
def depth(tmp_path: Path) -> Path:
    folder = tmp_path / "tire"
    number = 0
    for split, count in {"train/good": 3, "validation/good": 2, "test/good": 2, "test/hole": 2}.items():
        for i in range(count):
            picture(folder / split / "rgb" / f"{i:03}.png", number := number + 1)
            (folder / split / "xyz").mkdir(exist_ok=True)
            (folder / split / "xyz" / f"{i:03}.tiff").write_bytes(b"no image")
            if not split.startswith("train"):
                mask(folder / split / "gt" / f"{i:03}.png", *([i] if "hole" in split else []))
    return tmp_path


@pytest.fixture
def real(tmp_path: Path) -> Path:
    rows: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
    folder = tmp_path / "realiad_1024" / "mint"
    number = 0
    for split, kind, count in (("train", "OK", 4), ("test", "OK", 2), ("test", "AK", 2), ("test", "HS", 1)):
        for i in range(count):
            place = "OK" if kind == "OK" else f"NG/{kind}"
            name = f"{place}/S{number:04}/mint_{number:04}_{kind[:2]}_C1_2023"
            picture(folder / f"{name}.jpg", number := number + 1)
            row = {"category": "mint", "anomaly_class": kind, "image_path": f"{name}.jpg", "mask_path": None}
            if kind != "OK":
                mask(folder / f"{name}.png", i)
                row["mask_path"] = f"{name}.png"
            rows[split].append(row)
    file = tmp_path / "realiad_jsons" / "realiad_jsons" / "mint.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"meta": {"normal_class": "OK", "prefix": "mint/"}, **rows}))
    return tmp_path


def make(kind: type[AnomalyDataModule], root: Path, category: str, **options: Any) -> AnomalyDataModule:
    if kind is RealIAD:
        options = {"resolution": 1024, "split": "realiad_jsons"} | options
    return kind(root=root, category=category, **(SETTINGS | options))


def problems(data: AnomalyDataModule) -> list[str]:
    return [f"{p.path.relative_to(data.root)}: {p.text}" for p in inspect(data)[1] if "officially" not in p.text]


def kinds(samples: list[Sample]) -> list[str]:
    return [sample.defect for sample in samples]


def test_loco_keeps_logical_and_structural_apart_and_unites_the_parts_of_a_mask(loco: Path) -> None:
    data = make(MVTecLOCO, loco, "breakfast_box")
    data.setup()
    assert kinds(data.test_set.samples) == ["good"] * 2 + ["logical_anomalies"] * 2 + ["structural_anomalies"]
    assert [len(data.train_set), len(data.val_set)] == [3, 2]
    assert {s.image_path.parts[-3] for s in data.val_set.samples} == {"validation"}
    data = make(MVTecLOCO, loco, "breakfast_box", image_size=[6, 4])
    data.setup()
    items = {(item["defect"], Path(item["image_path"]).stem): item["mask"][0, :, 0].tolist() for item in data.test_set}
    assert items["logical_anomalies", "000"] == [0, 1, 0, 0, 1, 0]
    assert items["logical_anomalies", "001"] == [0, 0, 1, 0, 0, 0]
    assert items["good", "000"] == [0] * 6


def test_loco_is_checked_mask_by_mask(loco: Path) -> None:
    data = make(MVTecLOCO, loco, "breakfast_box", strict=False)
    assert problems(data) == []
    assert inspect(data)[0][0]["masks"] == 3
    truth = loco / "breakfast_box" / "ground_truth" / "logical_anomalies"
    Image.new("L", (5, 5)).save(truth / "000" / "001.png")
    (truth / "001" / "000.png").unlink()
    picture(truth / "002" / "000.png", 1)
    found = problems(make(MVTecLOCO, loco, "breakfast_box", strict=False))
    place = "breakfast_box/ground_truth/logical_anomalies"
    assert any(text.startswith(f"{place}/000/001.png: 5x5 pixels (height x width), but its image") for text in found)
    assert any(text.startswith(f"{place}/001: no such mask; image") for text in found)
    assert f"{place}/002/000.png: a mask without an image" in found
    with pytest.raises(ValueError, match=r"001\.png is 5x5 pixels"):
        make(MVTecLOCO, loco, "breakfast_box")
    (truth / "000" / "001.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"no mask for image .*001\.png: expected .*/001"):
        make(MVTecLOCO, loco, "breakfast_box")


def test_ad2_reads_the_public_part_alone(ad2: Path) -> None:
    data = make(MVTecAD2, ad2, "can")
    data.setup()
    assert kinds(data.test_set.samples) == ["good", "good", "bad", "bad"]
    assert [item["mask"].sum() > 0 for item in data.test_set] == [False, False, True, True]
    assert [len(data.train_set), len(data.val_set)] == [3, 2]
    assert problems(make(MVTecAD2, ad2, "can", strict=False)) == []


def test_3d_reads_the_colour_images_and_checks_the_black_masks(depth: Path) -> None:
    data = make(MVTec3D, depth, "tire")
    data.setup()
    assert kinds(data.test_set.samples) == ["good", "good", "hole", "hole"]
    assert data.test_set.samples[2].mask_path == depth / "tire/test/hole/gt/000.png"
    assert [len(data.train_set), len(data.val_set)] == [3, 2]
    assert problems(make(MVTec3D, depth, "tire", strict=False)) == []
    mask(depth / "tire/test/good/gt/001.png", 1)
    (found,) = problems(make(MVTec3D, depth, "tire", strict=False))
    assert found.startswith("tire/test/good/gt/001.png: marks a defect, but image")


def test_real_iad_is_split_by_its_json(real: Path) -> None:
    data = make(RealIAD, real, "mint")
    data.setup()
    assert kinds(data.test_set.samples) == ["good", "good", "AK", "AK", "HS"]
    assert [len(data.train_set), len(data.val_set)] == [2, 2]
    assert data.test_set[2]["mask"].sum() > 0
    assert problems(make(RealIAD, real, "mint", strict=False)) == []
    (real / "realiad_jsons" / "realiad_jsons" / "mint.json").rename(real / "realiad_jsons" / "mint.json")
    assert len(make(RealIAD, real, "mint").scans["mint"][0]) == 4


def test_real_iad_says_what_is_wrong(real: Path) -> None:
    file = real / "realiad_jsons" / "realiad_jsons" / "mint.json"
    content = json.loads(file.read_text())
    image = real / "realiad_1024" / "mint" / content["test"][0]["image_path"]
    image.unlink()
    with pytest.raises(FileNotFoundError, match=r"mint\.json: 1 images are missing, such as .*\.jpg"):
        make(RealIAD, real, "mint")
    (found,) = problems(make(RealIAD, real, "mint", strict=False))
    assert "no such image, although the data set names it" in found
    content["train"].append(content["test"][-1])
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="1 training images are anomalous"):
        make(RealIAD, real, "mint")
    file.write_text("{}")
    with pytest.raises(ValueError, match=r"mint\.json: expected train and test, lists of entries"):
        make(RealIAD, real, "mint")
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"real_iad: no file .*mint\.json"):
        make(RealIAD, real, "mint")


@pytest.mark.parametrize(("kind", "category"), [(MVTecLOCO, "breakfast_box"), (MVTecAD2, "can"), (MVTec3D, "tire")])
def test_a_few_images_are_drawn_from_training_and_validation(
    kind: type[AnomalyDataModule], category: str, request: pytest.FixtureRequest
) -> None:
    root = request.getfixturevalue({MVTecLOCO: "loco", MVTecAD2: "ad2", MVTec3D: "depth"}[kind])
    data = make(kind, root, category, limit_train=4)
    data.setup()
    assert [len(data.train_set), len(data.val_set)] == [2, 2]


@pytest.mark.parametrize(
    ("kind", "normal", "anomalous", "train"),
    [
        (MVTecLOCO, 575, 561 + 432, 1778 + 305),
        (MVTecAD2, 379, 705, 2528 + 302),
        (MVTec3D, 249, 948, 2656 + 294),
    ],
)
def test_counts_add_up_to_those_of_the_authors(
    kind: type[AnomalyDataModule], normal: int, anomalous: int, train: int
) -> None:
    assert tuple(map(sum, zip(*kind.COUNTS.values(), strict=True))) == (train, normal, anomalous)


def test_an_unknown_category_names_the_data_set_for_folders(depth: Path) -> None:
    message = r"unknown 'tire' for mvtec; .* in the same layout: dataset=folder dataset\.root=.*/tire"
    with pytest.raises(ValueError, match=message):
        make(MVTec, depth, "tire")
