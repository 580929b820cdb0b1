"""Known defects as an engineer lays them down: the truth is which files were written where."""

import shutil
import warnings
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest
from PIL import Image

from squad_lit.dataset.core import AnomalyDataModule
from squad_lit.dataset.known_defects import scan_known_defects
from squad_lit.run.config import CONF


def draw(path: Path, seed: int, size: int = 64) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)
    Image.fromarray(noise).resize((size, size)).save(path)
    return path


def make(root: Path, *overrides: str) -> AnomalyDataModule:
    given = ["dataset=mvtec", f"dataset.root={root}", "dataset.category=bottle", "dataset.image_size=32", *overrides]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose("train", given)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of the number of images
        data: Any = hydra.utils.instantiate(config.dataset, _convert_="all")
    data.setup()
    return data  # type: ignore[no-any-return]


def test_masks_lie_beside_the_image_or_in_a_folder_of_masks(tmp_path: Path) -> None:
    known = tmp_path / "known"
    beside = [draw(known / "a.png", 1), draw(known / "a_mask.png", 2)]
    by_kind = [draw(known / "scratch" / "b.jpg", 3), draw(known / "ground_truth" / "scratch" / "b_mask.png", 4)]
    sibling = [draw(known / "dent" / "c.png", 5), draw(known / "masks" / "dent" / "c.png", 6)]
    without = draw(known / "dent" / "d.png", 7)
    found = {s.image_path: s.mask_path for s in scan_known_defects(known, "cap")}
    assert found == {beside[0]: beside[1], by_kind[0]: by_kind[1], sibling[0]: sibling[1], without: None}
    assert {s.label for s in scan_known_defects(known, "cap")} == {1}


def test_the_layout_of_mvtec_is_taken_as_it_is(mvtec: Path, tmp_path: Path) -> None:
    shutil.copytree(mvtec / "bottle" / "test" / "broken", tmp_path / "test" / "broken")
    shutil.copytree(mvtec / "bottle" / "ground_truth", tmp_path / "ground_truth")
    found = scan_known_defects(tmp_path / "test" / "broken", "bottle")
    assert [s.mask_path for s in found] == [tmp_path / "ground_truth" / "broken" / f"{i:03}_mask.png" for i in range(3)]


def test_known_defects_are_a_set_of_their_own(mvtec: Path, tmp_path: Path) -> None:
    draw(tmp_path / "a.png", 1)
    draw(tmp_path / "a_mask.png", 2)
    data = make(mvtec, f"dataset.known_defects={tmp_path}")
    assert [s.image_path.name for s in data.known_set.samples] == ["a.png"]
    assert data.known_set[0]["mask"].any()
    assert len(make(mvtec).known_set) == 0


def test_test_images_and_good_ones_are_refused_by_their_content(mvtec: Path, tmp_path: Path) -> None:
    shutil.copy(mvtec / "bottle" / "test" / "broken" / "001.png", tmp_path / "other name.png")
    with pytest.raises(ValueError, match=r"1 of its images are test images(.|\n)*other name.png is .*broken/001.png"):
        make(mvtec, f"dataset.known_defects={tmp_path}")
    shutil.copy(mvtec / "bottle" / "train" / "good" / "000.png", tmp_path / "other name.png")
    with pytest.raises(ValueError, match="1 of its images are normal training images"):
        make(mvtec, f"dataset.known_defects={tmp_path}")


@pytest.mark.parametrize("count", [1, 3])
def test_test_images_that_were_saved_again_are_refused_however_few_they_are(tmp_path: Path, count: int) -> None:
    for i in range(12):
        draw(tmp_path / "parts" / "good" / f"{i}.png", i)
    for i in range(count):
        draw(tmp_path / "parts" / "scratch" / f"{i}.png", 100 + i)
    draw(tmp_path / "known" / "new.png", 200)
    given = ["dataset=folder", "dataset.category=parts", f"dataset.root={tmp_path / 'parts'}"]
    given.append(f"dataset.known_defects={tmp_path / 'known'}")
    assert len(make(tmp_path / "parts", *given).known_set) == 1
    with Image.open(tmp_path / "parts" / "scratch" / "0.png") as image:
        image.resize((50, 50)).save(tmp_path / "known" / "copy.jpg", quality=60)
    with pytest.raises(
        ValueError, match=r"1 of its images are copies(.|\n)*copy.jpg looks the same as .*scratch/0.png"
    ):
        make(tmp_path / "parts", *given)
    # The part before it was damaged, or after, is no copy.
    (tmp_path / "known" / "copy.jpg").unlink()
    with Image.open(tmp_path / "parts" / "good" / "0.png") as image:
        image.save(tmp_path / "known" / "before.jpg", quality=95)
    assert len(make(tmp_path / "parts", *given).known_set) == 2


def test_what_is_wrong_is_said(mvtec: Path, tmp_path: Path) -> None:
    with pytest.raises(hydra.errors.InstantiationException, match="no folder"):
        make(mvtec, f"dataset.known_defects={tmp_path / 'none'}")
    with pytest.raises(hydra.errors.InstantiationException, match="no images in"):
        make(mvtec, f"dataset.known_defects={tmp_path}")
    draw(tmp_path / "a.png", 1)
    with pytest.raises(hydra.errors.InstantiationException, match="expected one category, got 2"):
        make(mvtec, f"dataset.known_defects={tmp_path}", "dataset.category=[bottle,screw]")
    draw(tmp_path / "a_mask.png", 2, size=32)
    with pytest.raises(hydra.errors.InstantiationException, match="they must be equal"):
        make(mvtec, f"dataset.known_defects={tmp_path}")
