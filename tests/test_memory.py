"""The truths: SciPy's nearest neighbours, a greedy choice written out, and the whole command."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from torch.nn import functional as F

from squad_lit import memory
from squad_lit.anomaly import Anomaly
from squad_lit.backbone import Backbone
from squad_lit.memory import Memory, coreset

GROUPS = {"low": [4, 8], "high": [16]}


def make(**changed: Any) -> Memory:
    torch.manual_seed(0)
    setting: dict[str, Any] = {"patches": 50, "selection": "random", "seed": 0, "synthesis": None} | changed

    def backbone(groups: Any) -> Backbone:
        return Backbone("tf_efficientnet_lite0", groups, weights=None)

    def anomaly(names: Any) -> Anomaly:
        return Anomaly(names, sigma=0.0, top=0.1, weight={"memory": 1.0})

    return Memory(backbone=backbone, groups=GROUPS, anomaly=anomaly, **setting)


def fill(model: Memory, images: torch.Tensor) -> Memory:
    data = SimpleNamespace(train_set=[{"image": image} for image in images])
    model._trainer = SimpleNamespace(datamodule=data, should_stop=False)
    model.training_step(0)
    model._trainer = None
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
    assert model.step == model.steps == 1
    assert model.local_batch == 5
    assert model.memory.shape == (50, sum(model.backbone.channels.values()))
    other = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(2))
    rows = patches(model, other)
    distance, _ = cKDTree(model.memory.numpy()).query(rows.reshape(-1, rows.shape[-1]))
    expected = F.interpolate(
        torch.from_numpy(distance).float().view(2, 1, 8, 12), size=(64, 96), mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(model.look(other).maps["memory"], expected[:, 0], atol=2e-3, rtol=1e-3)


def test_remembered_patches_are_different_ones_of_the_training_images(images):
    model = fill(make(), images)
    known = patches(model, images).reshape(-1, model.memory.shape[1])
    distance, index = cKDTree(known).query(model.memory.numpy())
    assert distance.max() < 1e-3
    assert len(set(index)) == 50
    assert not torch.equal(fill(make(seed=1), images).memory, model.memory)
    assert torch.equal(fill(make(), images).memory, model.memory)


def test_what_is_remembered_whole_has_distance_zero(images):
    model = fill(make(patches=5 * 8 * 12), images)
    assert len(model.memory) == 5 * 8 * 12
    assert model.look(images).maps["memory"].max() < 0.05  # cdist by matrix products is exact to about 1e-2


def test_tiles_are_remembered_all_and_looked_at_alike(images):
    model = fill(make(patches=10**6, tile=32, tile_overlap=0.25), images)
    assert len(model.memory) == 5 * len(model.grid((64, 96))) * 4 * 4  # cells of 8 px
    assert model.see(images).maps["memory"].shape == (5, 64, 96)
    assert model.see(images).maps["memory"].max() < 0.05
    assert model.look(images).maps["memory"].max() > 0.1  # as a whole the borders look different


@pytest.mark.parametrize("ahead", [1, 3, 16, 2048])
def test_each_row_of_a_coreset_is_the_farthest_from_those_before(monkeypatch, ahead):
    # On a line the projection keeps the order of the distances.
    monkeypatch.setattr(memory, "_AHEAD", ahead)
    for seed in range(3):
        rows = torch.rand(300, 1, generator=torch.Generator().manual_seed(seed)) + 5
        chosen = coreset(rows, 40, seed).flatten().tolist()
        for i in range(1, 40):
            away = [min(abs(r - c) for c in chosen[:i]) for r in rows.flatten().tolist()]
            assert min(abs(chosen[i] - c) for c in chosen[:i]) == pytest.approx(max(away), abs=1e-5)
    assert torch.equal(coreset(rows, 300, 0), rows)


def test_a_coreset_keeps_the_rare_look():
    rows = torch.cat([torch.randn(500, 4, generator=torch.Generator().manual_seed(0)), torch.full((1, 4), 50.0)])
    assert (coreset(rows, 5, 0) == 50).all(1).any()


def test_a_coreset_holds_no_row_twice():
    rows = torch.tensor([[1.0, 2.0]] * 9 + [[3.0, 4.0]])
    assert sorted(coreset(rows, 5, 0).tolist()) == [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [({"patches": 0}, "model.patches: expected a whole number"), ({"selection": "best"}, "expected random or coreset")],
)
def test_memory_refuses_in_words(wrong, words):
    with pytest.raises(ValueError, match=words):
        make(**wrong)
