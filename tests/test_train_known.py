"""A whole training with known defects, from the command's options to the figures."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import squad_lit
from squad_lit.training import checkpoint


def train(mvtec: Path, output: Path, *overrides: str) -> dict[str, Any]:
    given = ["trainer=smoke", "dataset.category=bottle", "dataset.image_size=64", "logger=none", "callback.curves=null"]
    given += ["callback.progress=null", "callback.panels=null", "model.generator.width=16", *overrides]
    given += ["discriminator.segmentation.width=16", "model.memory.patches=50", "model.groups={low: [4], high: [8]}"]
    figures = squad_lit.fit("mvtec", root=mvtec, output=output, overrides=given).figures
    return {key: value for key, value in figures.items() if isinstance(value, float) and "second" not in key}


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_known_defects_are_learned_from_the_same_ones_each_time(mvtec: Path, tmp_path: Path) -> None:
    known = tmp_path / "known"
    screw = mvtec / "screw"
    masks = [screw / "ground_truth" / "broken" / f"{i:03}_mask.png" for i in (0, 1)]  # the third image has none
    for path in (*(screw / "test" / "broken").iterdir(), *masks):
        place = known / ("ground_truth/broken" if path in masks else "broken") / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:  # turned, because those of the bottle look the same
            image.transpose(Image.Transpose.ROTATE_180).save(place)
    option = f"dataset.known_defects={known}"
    without = train(mvtec, tmp_path / "without")
    train(mvtec, tmp_path / "half", option, "trainer.max_epochs=1")
    figures = train(mvtec, tmp_path / "whole", option)
    resumed = train(mvtec, tmp_path / "half", option, f"resume={tmp_path / 'half' / 'last.ckpt'}")
    assert figures["synthetic_ap"] != without["synthetic_ap"]
    for one, other in zip(
        *(checkpoint.load(tmp_path / name / "last.ckpt").parameters() for name in ("whole", "half")), strict=True
    ):
        assert torch.equal(one, other)
    assert resumed["synthetic_ap"] == figures["synthetic_ap"]
