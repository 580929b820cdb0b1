"""The layout of MVTec AD, on a tree written out here and on real categories where they are at hand."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from PIL import Image

from squad_lit.dataset.mpdd import MPDD
from squad_lit.dataset.mvtec import MVTec, scan_mvtec_layout
from squad_lit.dataset.sample import Sample

REPOSITORY = Path(__file__).parents[2]
DATA = Path(os.environ.get("SQUAD_LIT_DATA", REPOSITORY / "../shared/data")).resolve()

IMAGES = [
    "train/good/000.png",
    "train/good/001.png",
    "train/good/002.JPG",
    "test/good/000.png",
    "test/good/001.png",
    "test/broken_large/000.png",
    "test/broken_large/001.png",
    "test/contamination/000.png",
]
MASKS = [
    "ground_truth/broken_large/000_mask.png",
    "ground_truth/broken_large/001_mask.png",
    "ground_truth/contamination/000_mask.png",
]
LITTER = [
    "license.txt",
    "readme.txt",
    ".DS_Store",
    "train/good/._000.png",
    "train/good/Thumbs.db",
    "train/good/notes.txt",
    "test/._good",
    "test/.ipynb_checkpoints/000.png",
    "test/good/.hidden.png",
    "test/list.txt",
    "ground_truth/broken_large/._000_mask.png",
]

SETTINGS: dict[str, Any] = {
    "image_size": [6, 4],
    "batch_size": 2,
    "num_workers": 0,
    "validation_fraction": 0.34,
    "limit_train": None,
    "cache": "off",
    "cache_folder": "unused",
    "intensity_range": None,
    "seed": 0,
}
small_counts = pytest.mark.filterwarnings("ignore:.*officially")


def write_tree(folder: Path) -> None:
    """Images of 4 x 6 pixels (width x height); masks with one row of 255."""
    rows = np.zeros((6, 4), dtype=np.uint8)
    mask = rows.copy()
    mask[2] = 255
    for name, array in [(name, rows + 51) for name in IMAGES] + [(name, mask) for name in MASKS]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(folder / name)
    for name in LITTER:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("not an image")


@pytest.fixture
def root(tmp_path) -> Path:
    write_tree(tmp_path / "bottle")
    return tmp_path


def load(group: str, *overrides: str) -> Any:
    """What a yaml of the group dataset instantiates."""
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        config = compose(f"dataset/{group}", overrides=["+seed=7", *(f"dataset.{item}" for item in overrides)])
    return instantiate(config.dataset, _convert_="all")


def test_scan_finds_each_image_with_its_mask(root):
    train, test = scan_mvtec_layout(root, "bottle")
    at = root / "bottle"
    assert train == [
        Sample(at / "train/good/000.png", "bottle", "good", 0, None),
        Sample(at / "train/good/001.png", "bottle", "good", 0, None),
        Sample(at / "train/good/002.JPG", "bottle", "good", 0, None),
    ]
    masks = at / "ground_truth"
    assert test == [
        Sample(at / "test/broken_large/000.png", "bottle", "broken_large", 1, masks / "broken_large/000_mask.png"),
        Sample(at / "test/broken_large/001.png", "bottle", "broken_large", 1, masks / "broken_large/001_mask.png"),
        Sample(at / "test/contamination/000.png", "bottle", "contamination", 1, masks / "contamination/000_mask.png"),
        Sample(at / "test/good/000.png", "bottle", "good", 0, None),
        Sample(at / "test/good/001.png", "bottle", "good", 0, None),
    ]


def test_anomalous_image_without_mask_names_both(root):
    (root / "bottle/ground_truth/broken_large/001_mask.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"test/broken_large/001\.png: expected .*broken_large/001_mask\.png"):
        MVTec(root=root, category="bottle", **SETTINGS)


@small_counts
def test_mvtec_yaml(root):
    data = load(
        "mvtec", f"root={root}", "category=bottle", "image_size=[6,4]", "validation_fraction=0.34", "batch_size=5"
    )
    data.setup()
    assert type(data) is MVTec
    assert data.image_size == (6, 4)
    assert data.seed == 7
    assert [len(part) for part in (data.train_set, data.val_set, data.test_set)] == [2, 1, 5]
    batches = list(data.test_dataloader())
    assert [batch["label"].tolist() for batch in batches] == [[1, 1, 1, 0, 0]]
    assert batches[0]["mask"].sum(dim=(1, 2, 3)).tolist() == [4, 4, 4, 0, 0]
    assert batches[0]["image"].unique().tolist() == pytest.approx([0.2])


@small_counts
def test_mpdd_yaml(tmp_path):
    write_tree(tmp_path / "tubes")
    write_tree(tmp_path / "connector")
    data = load("mpdd", f"root={tmp_path}", "category=[tubes,connector]")
    data.setup()
    assert type(data) is MPDD
    assert data.image_size == (256, 256)
    assert data.categories == ["tubes", "connector"]
    assert [len(part) for part in (data.train_set, data.val_set, data.test_set)] == [4, 2, 10]
    assert [item["category"] for item in data.val_set] == ["tubes", "connector"]


def test_yaml_defaults_to_all_categories(monkeypatch):
    monkeypatch.setenv("SQUAD_LIT_DATA", "/no/such/place")
    for group in ("mvtec", "mpdd"):
        with pytest.raises(Exception, match=f"no folder /no/such/place/{group}"):
            load(group)


@pytest.mark.parametrize(
    ("benchmark", "category", "counts", "defects"),
    [
        (MVTec, "bottle", (209, 20), {"broken_large": 20, "broken_small": 22, "contamination": 21}),
        (
            MVTec,
            "screw",
            (320, 41),
            {"manipulated_front": 24, "scratch_head": 24, "scratch_neck": 25, "thread_side": 23, "thread_top": 23},
        ),
        (MPDD, "metal_plate", (54, 26), {"major_rust": 14, "scratches": 34, "total_rust": 23}),
    ],
)
def test_real_category(benchmark, category, counts, defects, recwarn):
    root = DATA / benchmark.name
    if not (root / category).is_dir():
        pytest.skip(f"no real images at {root / category}; set SQUAD_LIT_DATA")
    data = benchmark(root=root, category=category, **{**SETTINGS, "image_size": 64, "validation_fraction": 0.1})
    data.setup()
    assert not [warning for warning in recwarn if "officially" in str(warning.message)]
    assert len(data.train_set) + len(data.val_set) == counts[0]
    assert len(data.val_set) == round(0.1 * counts[0])
    kinds = [sample.defect for sample in data.test_set.samples]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"good": counts[1], **defects}
    anomalous = next(item for item in data.test_set if item["label"] == 1)
    assert anomalous["image"].shape == (3, 64, 64)
    assert anomalous["mask"].sum() > 0
    assert 0.05 < anomalous["image"].mean() < 0.95
