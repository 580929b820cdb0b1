"""Items, and what the data module checks and splits."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from squad_lit.dataset.btad import BTAD
from squad_lit.dataset.cache import DiskCache, MemoryCache
from squad_lit.dataset.core import AnomalyDataModule
from squad_lit.dataset.image import list_images
from squad_lit.dataset.ksdd2 import KSDD2
from squad_lit.dataset.mpdd import MPDD
from squad_lit.dataset.mvtec import MVTec
from squad_lit.dataset.sample import AnomalyDataset, Sample
from squad_lit.dataset.visa import VisA


def save(path: Path, pixels: Any) -> Path:
    """Write an 8-bit image."""
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(path)
    return path


# Items


@pytest.fixture
def pair(tmp_path) -> list[Sample]:
    """A normal and an anomalous sample, 4 x 2 pixels."""
    good = save(tmp_path / "good.png", [[[51, 102, 255]] * 4] * 2)
    bad = save(tmp_path / "bad.png", [[[0, 51, 0]] * 4] * 2)
    mask = save(tmp_path / "bad_mask.png", [[0, 0, 0, 2]] * 2)
    return [Sample(good, "nut", "good", 0), Sample(bad, "nut", "rust", 1, mask)]


def test_items(pair):
    dataset = AnomalyDataset(pair, (2, 4))
    assert len(dataset) == 2
    good, bad = dataset[0], dataset[1]
    assert list(bad) == ["image", "mask", "label", "index", "category", "defect", "image_path", "mask_path"]
    torch.testing.assert_close(good["image"][:, 0, 0], torch.tensor([0.2, 0.4, 1.0]))
    assert good["mask"].shape == (1, 2, 4)
    assert good["mask"].dtype == torch.uint8
    assert good["mask"].sum() == 0
    assert bad["mask"].tolist() == [[[0, 0, 0, 1]] * 2]
    assert [good[key] for key in ("label", "index", "category", "defect", "mask_path")] == [0, 0, "nut", "good", ""]
    assert [bad[key] for key in ("label", "index", "category", "defect")] == [1, 1, "nut", "rust"]
    assert bad["image_path"] == str(pair[1].image_path)
    assert bad["mask_path"] == str(pair[1].mask_path)
    assert dataset[-1]["index"] == 1


@pytest.mark.parametrize("mode", ["memory", "disk", "off"])
@pytest.mark.parametrize("reading", [1, 2])
def test_items_are_resized_and_collated(pair, tmp_path, mode, reading):
    cache = {"memory": MemoryCache(), "disk": DiskCache(tmp_path / "cache"), "off": None}[mode]
    dataset = AnomalyDataset(pair, (6, 8), cache=cache)
    for _ in range(reading):
        batch = next(iter(DataLoader(dataset, batch_size=2)))
    assert batch["image"].shape == (2, 3, 6, 8)
    assert batch["mask"].shape == (2, 1, 6, 8)
    assert batch["mask"][1].sum() == 6 * 2
    assert batch["label"].tolist() == batch["index"].tolist() == [0, 1]
    assert batch["defect"] == ["good", "rust"]


def test_iteration_ends(pair):
    assert [item["index"] for item in AnomalyDataset(pair, (2, 4))] == [0, 1]


def test_memory_cache_reads_a_file_once(pair):
    dataset = AnomalyDataset(pair, (2, 4), cache=MemoryCache())
    first = [dataset[i] for i in range(2)]
    kept = first[1]["image"].clone()
    for sample in pair:
        sample.image_path.unlink()
    first[1]["image"].zero_()  # a caller that works in place
    first[0]["mask"].fill_(1)
    assert torch.equal(dataset[1]["image"], kept)
    assert dataset[0]["mask"].sum() == 0
    with pytest.raises(OSError, match=r"good\.png"):
        AnomalyDataset(pair, (2, 4))[0]


def test_mask_of_another_size_than_its_image(pair):
    save(pair[1].mask_path, [[0, 1], [0, 1]])
    with pytest.raises(ValueError, match=r"bad_mask\.png is 2x2 .*bad\.png is 2x4"):
        AnomalyDataset(pair, (2, 4))[1]


# Data module


class Toy(AnomalyDataModule):
    """Two categories of images that are never read."""

    name = "toy"
    CATEGORIES = ("01", "bottle", "cap")
    HELP = "Get it from the shop. Licence: free."

    def scan(self, category: str) -> tuple[list[Sample], list[Sample]]:
        folder = self.root / category
        train = [Sample(path, category, "good", 0) for path in list_images(folder)]
        return train, [
            Sample(folder / "test" / "t.png", category, "good", 0),
            Sample(folder / "test" / "u.png", category, "rust", 1),
        ]


SETTINGS: dict[str, Any] = {
    "category": "all",
    "image_size": 8,
    "batch_size": 2,
    "num_workers": 0,
    "validation_fraction": 0.2,
    "limit_train": None,
    "cache": "off",
    "cache_folder": "unused",
    "intensity_range": None,
    "seed": 0,
}


@pytest.fixture
def root(tmp_path) -> Path:
    """10 training images in each category, and what the Toy's test set names, beside them."""
    for category in Toy.CATEGORIES:
        (tmp_path / category / "test").mkdir(parents=True)
        for number in range(10):
            save(tmp_path / category / f"{number}.png", [[0]])
        for name in ("t", "u"):
            save(tmp_path / category / "test" / f"{name}.png", [[0]])
    return tmp_path


def toy(root: Path, **settings: Any) -> Toy:
    module = Toy(root=root, **{**SETTINGS, **settings})
    module.setup()
    return module


def names(dataset: AnomalyDataset, category: str = "bottle") -> list[str]:
    return [sample.image_path.stem for sample in dataset.samples if sample.category == category]


def test_split_takes_a_share_of_the_normal_training_images(root):
    module = toy(root)
    assert module.categories == ["01", "bottle", "cap"]
    for category in module.categories:
        train, val = names(module.train_set, category), names(module.val_set, category)
        assert len(val) == 2
        assert sorted(train + val) == [str(number) for number in range(10)]
        assert train == sorted(train)
    assert {sample.label for sample in module.train_set.samples + module.val_set.samples} == {0}
    assert len(module.test_set) == 6


def test_split_depends_on_the_seed_and_the_category_only(root):
    module = toy(root)
    assert names(toy(root).val_set) == names(module.val_set)
    assert names(toy(root, category="bottle").val_set) == names(module.val_set)
    assert names(toy(root, category=["cap", "bottle"]).val_set) == names(module.val_set)
    assert len({tuple(names(toy(root, seed=seed).val_set)) for seed in range(8)}) > 3
    assert len({tuple(names(toy(root, seed=seed).val_set, "cap")) for seed in range(8)}) > 3


@pytest.mark.parametrize(("fraction", "count"), [(0.0, 0), (0.01, 1), (0.26, 3), (0.99, 9), (0, 0)])
def test_validation_keeps_at_least_one_and_never_all(root, fraction, count):
    module = toy(root, validation_fraction=fraction)
    assert len(names(module.val_set)) == count
    assert len(names(module.train_set)) == 10 - count
    assert len(module.val_dataloader()) == -(-3 * count // 2)


def test_a_single_image_is_trained_on_and_held_out_with_a_warning(root, caplog):
    module = toy(root, limit_train=1)
    module.setup()
    assert [s.image_path for s in module.train_set.samples] == [s.image_path for s in module.val_set.samples]
    assert len(module.train_set) == len(module.categories)
    assert "limit_train=1 trains on the image that brings the maps to one scale" in caplog.text
    module = toy(root, limit_train=1, validation_fraction=0.0)
    module.setup()
    assert len(module.val_set) == 0


def test_all_images_are_as_without_a_limit(root):
    every, limited = toy(root), toy(root, limit_train="all")
    every.setup()
    limited.setup()
    assert limited.train_set.samples == every.train_set.samples


def test_limit_train_is_drawn_before_the_split_and_nested(root):
    drawn = []
    for limit in (2, 5, 10, 99):
        module = toy(root, limit_train=limit)
        train, val = names(module.train_set), names(module.val_set)
        assert len(train) + len(val) == min(limit, 10)
        assert len(val) == {2: 1, 5: 1, 10: 2, 99: 2}[limit]
        drawn.append(set(train + val))
    assert drawn[0] < drawn[1] < drawn[2] == drawn[3]


def test_setup_twice_keeps_the_datasets(root):
    module = toy(root)
    before = module.train_set
    module.setup("test")
    assert module.train_set is before


def test_loaders_are_in_order_and_workers_give_the_same(root):
    for name in ("t.png", "u.png"):
        save(root / "cap" / name, [[[51, 0, 0]] * 5] * 4)
    batches = [list(toy(root, category="cap", num_workers=n, batch_size=1).test_dataloader()) for n in (0, 1)]
    for one, other in zip(*batches, strict=True):
        assert torch.equal(one["image"], other["image"])
        assert one["index"] == other["index"]
    assert [batch["index"].item() for batch in batches[0]] == [0, 1]


def test_a_model_that_makes_no_batches_of_its_own_gets_all_training_images_shuffled(root):
    data = toy(root)
    orders = [[i for batch in data.train_dataloader() for i in batch["index"].tolist()] for _ in range(4)]
    assert {tuple(sorted(order)) for order in orders} == {tuple(range(len(data.train_set)))}
    assert len({tuple(order) for order in orders}) > 1


def test_memory_is_said_before_it_is_filled(root, caplog):
    with caplog.at_level("INFO", logger="squad_lit"):
        toy(root, cache="memory", image_size=[500, 1000])
    assert "36 images of 500 x 1000, 0.22 GB" in caplog.text  # 36 x 3 x 500 x 1000 x 4 bytes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"category": "bottel"},
            r"category: unknown 'bottel' for toy; did you mean 'bottle'\? known: 01, bottle, cap",
        ),
        ({"category": "Bottle"}, r"did you mean 'bottle'\?"),
        ({"category": ["cap", "zebra"]}, r"category: unknown 'zebra' for toy\. known: 01, bottle, cap"),
        ({"category": 1}, r"category must be text; got 1 \(int\).*quote it.*known: 01"),
        ({"category": ["cap", 1]}, r"category must be text; got 1 \(int\)"),
        ({"category": None}, r"category must be text; got None"),
        ({"category": []}, r"category is empty"),
        ({"category": ["cap", "cap"]}, r"'cap' is named twice"),
        ({"category": ["all"]}, r"category: unknown 'all'"),
        ({"image_size": 0}, "^image_size: expected at least 1 or a list, got 0"),
        ({"image_size": 8.0}, r"^image_size: expected .* got 8\.0"),
        ({"image_size": "256"}, "^image_size: expected .* got '256'"),
        ({"image_size": [8, 8, 3]}, r"^image_size: expected .*at most 2 values.* got \[8, 8, 3\]"),
        ({"image_size": True}, "^image_size: expected .* got true"),
        ({"batch_size": 0}, "^batch_size: expected at least 1, got 0"),
        ({"num_workers": -1}, "^num_workers: expected at least 0, got -1"),
        ({"seed": -1}, "^seed: expected at least 0, got -1"),
        ({"validation_fraction": 1}, "^validation_fraction: expected less than 1, got 1"),
        ({"validation_fraction": -0.1}, "^validation_fraction: expected at least 0"),
        ({"validation_fraction": "0.1"}, "^validation_fraction: expected a number"),
        ({"validation_fraction": float("nan")}, "^validation_fraction: expected a finite number"),
        ({"limit_train": 0}, "^limit_train: expected at least 1 or all or null, got 0"),
        ({"limit_train": 0, "validation_fraction": 0.0}, "^limit_train: expected at least 1 or all or null, got 0"),
        ({"corruption": {"fog": 1}}, "^corruption: unknown fog; known: light, blur, noise, shift"),
        ({"corruption": {"blur": -1}}, r"^corruption\.blur: expected at least 0, got -1"),
        ({"intensity_range": [5, 5]}, r"intensity_range must be \[LOW,HIGH\]"),
        ({"intensity_range": [0]}, r"^intensity_range: expected at least 2 values or null, got \[0\]"),
        ({"intensity_range": 4095}, "^intensity_range: expected a list or null, got 4095"),
        ({"cache": "ram"}, "^cache: expected auto, memory, disk or off, got 'ram'"),
    ],
)
def test_wrong_settings_are_explained_at_construction(root, settings, message):
    with pytest.raises(ValueError, match=message):
        Toy(root=root, **{**SETTINGS, **settings})


def test_category_that_looks_like_a_number(root):
    assert toy(root, category="01").categories == ["01"]


def test_missing_root_says_where_and_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as caught:
        toy(Path("data/toy"))
    message = str(caught.value)
    assert f"toy: no folder {tmp_path}/data/toy" in message
    assert "Get it from the shop. Licence: free." in message
    assert "dataset.root=PATH" in message


def test_missing_category_says_what_is_there(root):
    shutil.rmtree(root / "cap")
    with pytest.raises(FileNotFoundError, match=r"no folder for category cap in .*\n.*dataset\.category=\[01,bottle\]"):
        toy(root)
    assert toy(root, category="bottle").categories == ["bottle"]


def test_category_without_training_images(root):
    for path in (root / "cap").glob("*.png"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"toy: no normal training images of category cap in .*cap\nGet it"):
        toy(root)


def test_one_training_image_cannot_be_split(root):
    for number in range(1, 10):
        (root / "cap" / f"{number}.png").unlink()
    with pytest.raises(ValueError, match=r"category cap has only one normal training image; at least two are needed"):
        toy(root)
    assert len(toy(root, category="cap", validation_fraction=0.0).train_set) == 1


def test_counts_that_differ_from_the_official_ones_are_a_warning(root):
    class Official(Toy):
        COUNTS = {"bottle": (10, 1, 1), "cap": (12, 1, 1)}  # noqa: RUF012

    with pytest.warns(UserWarning, match=r"category cap has .* \(10, 1, 1\) images, officially \(12, 1, 1\)") as caught:
        Official(root=root, **SETTINGS)
    assert len(caught) == 1


@pytest.mark.parametrize(
    ("benchmark", "categories", "published", "words"),
    [
        (MVTec, 15, [3629, 467, 1258], ["train/good", "_mask.png", "mvtec.com", "CC BY-NC-SA 4.0"]),
        (MPDD, 6, [888, 176, 282], ["train/good", "_mask.png", "github.com/stepanje/MPDD", "CC BY-NC-SA 4.0"]),
        (VisA, 12, [8659, 962, 1200], ["1cls.csv", "spot-diff", "CC BY 4.0"]),
        (BTAD, 3, [1799, 451, 290], ["train/ok", "VT-ADL", "CC BY-NC-SA 4.0"]),
        (KSDD2, 1, [2085, 894, 110], ["_GT.png", "vicos", "CC BY-NC-SA 4.0"]),
    ],
)
def test_a_benchmark_has_the_published_size_and_says_where_to_get_it(tmp_path, benchmark, categories, published, words):
    assert len(benchmark.CATEGORIES) == categories
    assert [sum(column) for column in zip(*benchmark.COUNTS.values(), strict=True)] == published
    with pytest.raises(FileNotFoundError) as caught:
        benchmark(root=tmp_path / "none", **SETTINGS)
    for part in (f"no folder {tmp_path / 'none'}", *words, "dataset.root=PATH"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("files", "given", "expected"),
    [
        ([(40, 40)], 250, (250, 250)),  # squares stay what was asked for, and the model says what is wrong with it
        ([(1000, 1500)], 256, (208, 320)),  # 209.02 and 313.53
        ([(630, 230)], 380, (624, 224)),  # 628.9 and 229.6
        ([(10, 400)], 64, (16, 400)),  # 10.1 is rounded to no less than one multiple
        ([(10, 20), (10, 20), (30, 10)], 64, (48, 96)),  # the median, of 45.3 and 90.5
        ([(1000, 1500)], [64, 64], (64, 64)),
    ],
)
def test_images_keep_the_shape_of_the_training_images(root, monkeypatch, files, given, expected):
    monkeypatch.setattr(Toy, "training_sizes", lambda self: dict(enumerate(files)))
    data = Toy(root=root, **{**SETTINGS, "image_size": given})
    data.keep_shape(16)
    assert data.image_size == expected


def test_the_shape_is_that_of_the_files_after_their_orientation(root):
    for category in Toy.CATEGORIES:
        for path in list_images(root / category):
            save(path, np.zeros((30, 20)))
    data = Toy(root=root, **SETTINGS)
    assert set(data.training_sizes().values()) == {(30, 20)}
    data.keep_shape(2)
    data.setup()
    assert data.image_size == (10, 6)
    assert data.train_set[0]["image"].shape == (3, 10, 6)


# Files that cannot be read


@pytest.fixture
def broken(root) -> Path:
    """The Toy's folder with a file that is none, one that is cut off, one without numbers, and one that is damaged."""
    (root / "cap" / "1.png").write_bytes(b"no image")
    rng = np.random.default_rng(0)
    content = save(root / "cap" / "2.png", rng.integers(0, 256, (20, 20, 3))).read_bytes()
    (root / "cap" / "2.png").write_bytes(content[:-100])  # the header is whole
    Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(root / "cap" / "3.tif")
    content = bytearray(save(root / "cap" / "5.png", rng.integers(0, 256, (20, 20, 3))).read_bytes())
    content[len(content) // 2] ^= 255
    (root / "cap" / "5.png").write_bytes(content)
    return root


def test_all_broken_files_are_named_before_a_training(broken):
    with pytest.raises(OSError, match="3 files are wrong:") as caught:
        toy(broken, intensity_range=[0.0, 1.0])
    assert type(caught.value) is OSError
    lines = str(caught.value).splitlines()
    assert lines[1].endswith("cap/1.png: its content is not that of a PNG, JPEG, BMP, TIFF or WebP file")
    assert f"cannot read image {broken}/cap/2.png: " in lines[2]
    assert f"{broken}/cap/3.tif has values that are NaN or infinite, 16 of 16; squad-lit check names" in lines[3]
    assert "dataset.skip_unreadable=true" in lines[3]
    with pytest.raises(OSError, match=r"cap/5\.png: .*; squad-lit check names all such files, and dataset"):
        AnomalyDataset([Sample(broken / "cap" / "5.png", "cap", "good", 0)], (8, 8))[0]


def test_many_broken_files_are_counted(root):
    for number in range(10, 40):
        (root / "cap" / f"{number}.png").write_bytes(b"")
    with pytest.raises(OSError, match=r"^30 files are wrong:\n(cannot .*\n){20}\.\.\. and 10 more; squad-lit check"):
        toy(root)


def test_broken_files_are_left_out_where_that_is_asked_for(broken):
    words = r"toy: 4 of 13 images of category cap cannot be read and are left out \(dataset\.skip_unreadable=true\):"
    with pytest.warns(UserWarning, match=words) as caught:
        module = toy(broken, skip_unreadable=True, intensity_range=[0.0, 1.0])
    assert len(caught) == 1
    assert len(module.unreadable) == 4
    left = sorted(names(module.train_set, "cap") + names(module.val_set, "cap"))
    assert left == ["0", "3", "4", "6", "7", "8", "9"]
    assert all(reason in str(caught[0].message) for reason in module.unreadable)


def test_a_missing_mask_is_an_error_also_where_broken_files_are_left_out(root):
    class Masked(Toy):
        def scan(self, category: str) -> tuple[list[Sample], list[Sample]]:
            train, (good, bad) = super().scan(category)
            return train, [good, Sample(bad.image_path, category, "rust", 1, self.root / "none.png")]

    for skip in (False, True):
        with pytest.raises(FileNotFoundError, match=r"no mask for image .*u\.png: expected .*none\.png"):
            Masked(root=root, **{**SETTINGS, "category": "cap", "skip_unreadable": skip})
