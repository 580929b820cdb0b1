"""The embedded benchmark: what is written, that it is written once, and that masks say the truth."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from PIL import Image
from scipy import ndimage
from skimage.morphology import skeletonize

from squad_lit.dataset import synthetic
from squad_lit.dataset.synthetic import Recipe, Synthetic, generate, render

CONF = Path(__file__).parents[2] / "conf"
DEFECTS = {
    "fabric": ["contamination", "cut", "hole", "stain", "thread_pull"],
    "wood": ["contamination", "crack", "hole", "scratch", "stain"],
    "gear": ["bent", "contamination", "crack", "missing_part", "scratch", "stain"],
    "circuit": ["bent", "contamination", "crack", "missing_part", "scratch", "stain"],
}
EACH_DEFECT = [(category, defect) for category, defects in DEFECTS.items() for defect in defects]
SMALL = Recipe(seed=3, size=64, train=2, test_good=1, per_defect=1)
FULL_SIZE = Recipe(seed=0, size=256, train=1, test_good=1, per_defect=1)
SETTINGS: dict[str, Any] = {
    "image_size": 32,
    "batch_size": 4,
    "num_workers": 0,
    "validation_fraction": 0.5,
    "limit_train": None,
    "cache": "off",
    "cache_folder": "unused",
    "intensity_range": None,
    "seed": 0,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A folder with the small benchmark in it."""
    path = tmp_path_factory.mktemp("synthetic")
    generate(path, SMALL)
    return path


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_layout(root):
    folder = root / SMALL.folder
    expected = {"recipe.json"}
    for category, defects in DEFECTS.items():
        expected |= {
            f"{category}/train/good/000.png",
            f"{category}/train/good/001.png",
            f"{category}/test/good/000.png",
        }
        for defect in defects:
            expected |= {f"{category}/test/{defect}/000.png", f"{category}/ground_truth/{defect}/000_mask.png"}
    assert names(folder) == expected
    assert [path.name for path in root.iterdir()] == [SMALL.folder]
    with Image.open(folder / "gear/test/bent/000.png") as image:
        assert (image.size, image.mode) == ((64, 64), "RGB")
    with Image.open(folder / "gear/ground_truth/bent/000_mask.png") as mask:
        assert {value for _, value in mask.getcolors()} == {0, 255}


def test_second_call_uses_what_is_there(root, monkeypatch):
    monkeypatch.setattr(synthetic, "render", None)
    assert generate(root, SMALL) == root / SMALL.folder


def test_same_recipe_gives_the_same_pictures(root):
    picture, _, mask = render(SMALL, "circuit", "scratch", 0)
    with Image.open(root / SMALL.folder / "circuit/test/scratch/000.png") as file:
        assert np.array_equal(np.asarray(file), picture)
    with Image.open(root / SMALL.folder / "circuit/ground_truth/scratch/000_mask.png") as file:
        assert np.array_equal(np.asarray(file) > 0, mask)


def test_another_recipe_goes_to_another_folder():
    recipes = [Recipe(s, z, t, g, d) for s in (0, 1) for z in (64, 65) for t in (1, 2) for g in (1, 2) for d in (1, 2)]
    assert len({recipe.folder for recipe in recipes}) == 32


def test_process_that_lost_the_race_uses_the_winner_s_files(tmp_path, monkeypatch):
    def slow(recipe: Recipe, *split: Any) -> Any:
        monkeypatch.setattr(synthetic, "render", render)
        (generate(tmp_path, recipe) / "winner").touch()  # meanwhile, the other process does it all
        return render(recipe, *split)

    monkeypatch.setattr(synthetic, "render", slow)
    folder = generate(tmp_path, SMALL)
    assert (folder / "winner").exists()
    assert list(tmp_path.iterdir()) == [folder]


def test_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*picture: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(synthetic, "render", interrupted)
    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path, SMALL)
    assert list(tmp_path.iterdir()) == []


def test_foreign_folder_is_not_taken_for_the_benchmark(tmp_path):
    (tmp_path / SMALL.folder).mkdir()
    with pytest.raises(FileExistsError, match="is not a synthetic benchmark of this recipe"):
        generate(tmp_path, SMALL)


def test_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"cannot write the synthetic benchmark to .*dataset\.root=PATH"):
        generate(tmp_path / "file" / "below", SMALL)


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"size": 63}, {"train": 0}, {"per_defect": 1.0}, {"test_good": True}])
def test_recipe_is_checked(wrong):
    name = next(iter(wrong))
    with pytest.raises(ValueError, match=rf"^{name}: expected (at least|a whole number)"):
        Recipe(**{"seed": 0, "size": 64, "train": 1, "test_good": 1, "per_defect": 1, **wrong})


@pytest.mark.parametrize(("category", "defect"), EACH_DEFECT)
def test_mask_is_where_the_picture_changed(category, defect):
    damaged, whole, mask = render(FULL_SIZE, category, defect, 0)
    change = np.abs(damaged.astype(int) - whole.astype(int)).max(axis=2)
    assert 24 <= mask.sum() < 0.15 * mask.size
    assert (change[mask] >= 8).mean() > 0.75  # the rest: gaps of a pixel or two that were closed
    outside = ndimage.label((change >= 8) & ~mask, np.ones((3, 3)))[0]
    assert max(np.bincount(outside.ravel())[1:], default=0) < 8  # specks only
    assert change[~ndimage.binary_dilation(mask, iterations=40)].max() < 8
    regions, count = ndimage.label(mask, np.ones((3, 3)))
    assert count >= 1
    assert np.bincount(regions.ravel())[1:].min() >= 8


@pytest.mark.parametrize("category", ["wood", "gear", "circuit"])
def test_cracks_are_hair_thin(category):
    for index in range(2):
        _, _, mask = render(FULL_SIZE, category, "crack", index)
        assert mask.sum() / skeletonize(mask).sum() < 5.5  # the mean width of what shows, blur and lit edge included


@pytest.mark.parametrize("category", DEFECTS)
def test_stains_are_of_low_contrast(category):
    damaged, whole, mask = render(FULL_SIZE, category, "stain", 0)
    change = np.abs(damaged.astype(int) - whole.astype(int)).max(axis=2)[mask]
    assert 8 < change.mean() < 50


@pytest.mark.parametrize("category", DEFECTS)
def test_normal_images_vary_and_have_no_damage(category):
    pictures = []
    for split, index in (("train", 0), ("train", 1), ("good", 0)):
        picture, whole, mask = render(FULL_SIZE, category, split, index)
        assert np.array_equal(picture, whole)
        assert not mask.any()
        assert 10 < picture.mean() < 245
        assert picture.std() > 10
        pictures.append(picture.astype(int))
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(pictures[one] - pictures[other]).mean() > 2
        assert np.abs(pictures[one].mean(axis=(0, 1)) - pictures[other].mean(axis=(0, 1))).max() < 40


def test_construction_writes_nothing(tmp_path):
    Synthetic(root=tmp_path / "new", recipe=SMALL, category="all", **SETTINGS)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match=r"category: unknown 'gaer' for synthetic; did you mean 'gear'\?"):
        Synthetic(root=tmp_path, recipe=SMALL, category="gaer", **SETTINGS)


def test_yaml_draws_and_reads(root):
    recipe = {"seed": 3, "size": 64, "train": 2, "test_good": 1, "per_defect": 1}
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(
            "dataset/synthetic",
            overrides=["+seed=7", f"dataset.root={root}", *(f"dataset.recipe.{k}={v}" for k, v in recipe.items())],
        )
    data = instantiate(config.dataset, _convert_="all")
    data.setup()
    assert data.categories == ["fabric", "wood", "gear", "circuit"]
    assert [len(part) for part in (data.train_set, data.val_set, data.test_set)] == [4, 4, 4 + 22]
    found = Counter((sample.category, sample.defect) for sample in data.test_set.samples if sample.label)
    assert found == Counter(EACH_DEFECT)
    for item in data.test_set:
        assert item["image"].shape == (3, 256, 256)
        assert bool(item["mask"].any()) == (item["label"] == 1)


def test_yaml_states_the_default_recipe():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("dataset/synthetic", overrides=["+seed=7"])
    data = instantiate(config.dataset, _convert_="all")
    assert data.recipe == Recipe(seed=0, size=256, train=40, test_good=10, per_defect=4)
    assert data.image_size == (256, 256)
