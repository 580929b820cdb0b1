"""VisA's folders and CSV files, on a tree written out here."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from PIL import Image

from squad_lit.dataset.inspection import inspect
from squad_lit.dataset.sample import Sample
from squad_lit.dataset.visa import VisA

CONF = Path(__file__).parents[2] / "conf"

SPLIT = """\
object,split,label,image,mask
candle,train,normal,candle/Data/Images/Normal/0001.JPG,
candle,train,normal,candle/Data/Images/Normal/0000.JPG,
candle,test,normal,candle/Data/Images/Normal/0002.JPG,
candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,candle/Data/Masks/Anomaly/000.png
candle,test,anomaly,candle/Data/Images/Anomaly/001.JPG,candle/Data/Masks/Anomaly/001.png
pcb1,train,normal,pcb1/Data/Images/Normal/0000.JPG,
pcb1,train,normal,pcb1/Data/Images/Normal/0001.JPG,
pcb1,test,anomaly,pcb1/Data/Images/Anomaly/000.JPG,pcb1/Data/Masks/Anomaly/000.png
"""
ANNOTATION = """\
image,label,mask
candle/Data/Images/Normal/0000.JPG,normal,
candle/Data/Images/Anomaly/000.JPG," wax missing,foreign particals on it ",candle/Data/Masks/Anomaly/000.png
candle/Data/Images/Anomaly/001.JPG,weird candle wick,candle/Data/Masks/Anomaly/001.png
"""
SETTINGS: dict[str, Any] = {
    "image_size": [4, 4],
    "batch_size": 2,
    "num_workers": 0,
    "validation_fraction": 0.0,
    "limit_train": None,
    "cache": "off",
    "cache_folder": "unused",
    "intensity_range": None,
    "seed": 0,
}
pytestmark = pytest.mark.filterwarnings("ignore:.*officially")


@pytest.fixture
def root(tmp_path) -> Path:
    """Images of 4 x 4 grey pixels; masks with the class indices 1 and 2."""
    for line in SPLIT.splitlines()[1:]:
        *_, image, mask = line.split(",")
        arrays = [(image, np.full((4, 4), 102)), (mask, np.array([[0, 0, 1, 2]] * 4))]
        for name, array in arrays:
            if name:
                (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array.astype(np.uint8)).save(tmp_path / name)
    (tmp_path / "split_csv").mkdir()
    (tmp_path / "split_csv/1cls.csv").write_text(SPLIT)
    (tmp_path / "candle/image_anno.csv").write_text(ANNOTATION)
    return tmp_path


def visa(root: Path, category: str = "candle") -> VisA:
    return VisA(root=root, category=category, **SETTINGS)


def test_scan_follows_the_split_file(root):
    train, test = visa(root).scan("candle")
    images, masks = root / "candle/Data/Images", root / "candle/Data/Masks/Anomaly"
    assert train == [
        Sample(images / "Normal/0000.JPG", "candle", "good", 0, None),
        Sample(images / "Normal/0001.JPG", "candle", "good", 0, None),
    ]
    both = "wax missing,foreign particals on it"
    assert test == [
        Sample(images / "Normal/0002.JPG", "candle", "good", 0, None),
        Sample(images / "Anomaly/000.JPG", "candle", both, 1, masks / "000.png"),
        Sample(images / "Anomaly/001.JPG", "candle", "weird candle wick", 1, masks / "001.png"),
    ]


def test_without_annotation_the_kind_is_anomaly(root):
    _, test = visa(root, "pcb1").scan("pcb1")
    assert [sample.defect for sample in test] == ["anomaly"]


def test_masks_hold_class_indices(root):
    data = visa(root)
    data.setup()
    assert data.test_set[1]["mask"].tolist() == [[[0, 0, 1, 1]] * 4]
    assert data.test_set[1]["image"].mean().item() == pytest.approx(0.4, abs=0.01)


def test_byte_order_mark_and_spaces_are_harmless(root):
    (root / "split_csv/1cls.csv").write_text("\ufeff" + SPLIT.replace("candle,test,", "candle, test ,"))
    train, test = visa(root).scan("candle")
    assert (len(train), len(test)) == (2, 3)


def test_missing_split_file(root):
    (root / "split_csv/1cls.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"visa: no file .*split_csv/1cls\.csv\nExpected.*"):
        visa(root)


def test_missing_image_and_mask_are_named(root):
    (root / "candle/Data/Masks/Anomaly/001.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"Anomaly/001\.JPG: expected .*Masks/Anomaly/001\.png"):
        visa(root)
    (root / "candle/Data/Images/Normal/0002.JPG").unlink()
    with pytest.raises(FileNotFoundError, match=r"1cls\.csv, line 4: no image .*0002\.JPG"):
        visa(root)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("train,normal,candle", "train,anomaly,candle", r"line 2: split 'train' with label 'anomaly'"),
        ("object,split,label", "object,split,kind", r"line 2: no column label"),
        ("candle,test,normal,", "candle,val,normal,", r"line 4: split 'val' with label 'normal'"),
        (",candle/Data/Masks/Anomaly/000.png", "", r"line 5: no column mask"),
        ("candle/Data/Masks/Anomaly/000.png", "", r"line 5: an anomalous image without a mask"),
        ("object,split,label,image,mask", "object;split", r"line 2: no column object.*separated by commas"),
    ],
)
def test_damaged_split_file_names_the_line(root, old, new, message):
    (root / "split_csv/1cls.csv").write_text(SPLIT.replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        visa(root)


def test_a_split_file_of_another_encoding_is_named(root):
    (root / "split_csv/1cls.csv").write_bytes(SPLIT.encode() + b"candle,test,normal,\xf6.JPG,\n")
    with pytest.raises(ValueError, match=r"1cls\.csv is not UTF-8 text"):
        visa(root)


def test_check_lists_every_missing_image(root):
    for name in ("0000", "0002"):
        (root / f"candle/Data/Images/Normal/{name}.JPG").unlink()
    data = VisA(**(SETTINGS | {"root": root, "category": "candle", "strict": False}))
    found = [p.path.name for p in inspect(data)[1] if p.text.startswith("no such image")]
    assert found == ["0000.JPG", "0002.JPG"]


def test_yaml(root):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(
            "dataset/visa", overrides=["+seed=7", f"dataset.root={root}", "dataset.category=[candle,pcb1]"]
        )
    data = instantiate(config.dataset, _convert_="all")
    data.setup()
    assert type(data) is VisA
    assert [len(part) for part in (data.train_set, data.val_set, data.test_set)] == [2, 2, 4]
    assert data.test_set[3]["image"].shape == (3, 256, 256)
    assert data.test_set[3]["mask"].sum() == 256 * 128
