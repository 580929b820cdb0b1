"""The truth: SciPy's nearest neighbours."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from torch.nn import functional as F

from squad_lit.network.anomaly import Anomaly
from squad_lit.network.backbone import Backbone
from squad_lit.network.patch_memory import PatchMemory
from squad_lit.training.memory import Memory

GROUPS = {"low": [4, 8], "high": [16]}


def make(**changed: Any) -> Memory:
    torch.manual_seed(0)
    kept = {"patches": 50, "selection": "random"}
    setting: dict[str, Any] = {"seed": 0, "synthesis": object()} | {k: v for k, v in changed.items() if k not in kept}

    def backbone(groups: Any) -> Backbone:
        return Backbone("tf_efficientnet_lite0", groups, weights=None)

    def anomaly(names: Any) -> Anomaly:
        return Anomaly(names, sigma=0.0, top=0.1, weight={"memory": 1.0})

    def memory(channels: Any) -> PatchMemory:
        return PatchMemory(channels, **kept | {k: v for k, v in changed.items() if k in kept})

    return Memory(backbone=backbone, groups=GROUPS, memory=memory, anomaly=anomaly, **setting)


def fill(model: Memory, images: torch.Tensor) -> Memory:
    train_set = [{"image": image} for image in images]
    sets = {"train_set": train_set, "val_set": train_set}
    data: Any = SimpleNamespace(**sets, categories=["x"], image_size=[64, 96], roi=None)
    model.trainer = SimpleNamespace(should_stop=False, is_global_zero=False)  # type: ignore[assignment]
    (batch,) = model.training_batches(data)
    model.training_step(batch, 0)
    return model


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(5, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def patches(model: Memory, images: torch.Tensor) -> np.ndarray:
    low, high = (F.avg_pool2d(f, 3, 1, 1) for f in model.backbone(images).values())
    joined = torch.cat([low, F.interpolate(high, size=low.shape[-2:], mode="bilinear", align_corners=False)], 1)
    return joined.permute(0, 2, 3, 1).numpy()


def test_the_map_is_the_distance_to_the_nearest_remembered_patch(images):
    model = fill(make(), images)
    assert model.state.step == model.steps == 1
    assert model.local_batch == 5
    assert model.memory.rows.shape == (50, sum(model.backbone.channels.values()))
    other = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(2))
    rows = patches(model, other)
    distance, _ = cKDTree(model.memory.rows.numpy()).query(rows.reshape(-1, rows.shape[-1]))
    expected = F.interpolate(
        torch.from_numpy(distance).float().view(2, 1, 8, 12), size=(64, 96), mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(model.forward_tile(other).maps["memory"], expected[:, 0], atol=2e-3, rtol=1e-3)


def test_remembered_patches_are_different_ones_of_the_training_images(images):
    model = fill(make(), images)
    known = patches(model, images).reshape(-1, model.memory.rows.shape[1])
    distance, index = cKDTree(known).query(model.memory.rows.numpy())
    assert distance.max() < 1e-3
    assert len(set(index)) == 50
    assert not torch.equal(fill(make(seed=1), images).memory.rows, model.memory.rows)
    assert torch.equal(fill(make(), images).memory.rows, model.memory.rows)


def test_what_is_remembered_whole_has_distance_zero(images):
    model = fill(make(patches=5 * 8 * 12), images)
    assert len(model.memory.rows) == 5 * 8 * 12
    assert model.forward_tile(images).maps["memory"].max() < 0.05  # cdist by matrix products is exact to about 1e-2


def test_tiles_are_remembered_all_and_looked_at_alike(images):
    model = fill(make(patches=10**6, tile=32, tile_overlap=0.25), images)
    assert len(model.memory.rows) == 5 * len(model.grid((64, 96))) * 4 * 4  # cells of 8 px
    assert model(images).maps["memory"].shape == (5, 64, 96)
    assert model(images).maps["memory"].max() < 0.05
    assert model.forward_tile(images).maps["memory"].max() > 0.1  # as a whole the borders look different


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"patches": 0}, "^patches: expected at least 1, got 0"),
        ({"selection": "best"}, "^selection: expected random or coreset, got 'best'"),
    ],
)
def test_memory_refuses_in_words(wrong, words):
    with pytest.raises(ValueError, match=words):
        make(**wrong)
