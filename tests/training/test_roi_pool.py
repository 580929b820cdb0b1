"""A region of interest in the training: the truths are the same pixels, cut out."""

from typing import Any

import numpy as np
import pytest
import torch
from test_pool import SIDE, Pixels, Textures, equal, make, take
from torch.nn import functional as F

from squad_lit.image.tile import Grid
from squad_lit.metric import pixel_metrics
from squad_lit.network.backbone import Backbone
from squad_lit.network.patch_memory import PatchMemory
from squad_lit.synthesis.contract import corrupt
from squad_lit.training.strip import strip_order

ROI = torch.zeros(SIDE, SIDE, dtype=torch.bool)
ROI[:20, 30:50] = True


@pytest.fixture(scope="module")
def data(draw_texture: Any) -> Textures:
    return Textures(draw_texture, 5)


def attached(data: Textures, roi: torch.Tensor | None = ROI, grid: Grid | None = None, **changed: Any) -> Any:
    pool = make(**{"synthetic": 30} | changed)
    pool.attach(data, Pixels(), grid or Grid((SIDE, SIDE)), seed=0, roi=roi)
    return pool


def test_nothing_is_drawn_outside_and_each_anomaly_is_inside(data: Textures) -> None:
    synthesis = make().synthesis
    image = data[0]["image"].permute(1, 2, 0).numpy()
    for seed in range(30):
        changed, mask = corrupt(synthesis, image, [image], np.random.default_rng(seed), ROI.numpy())
        assert np.array_equal(changed[~ROI.numpy()], image[~ROI.numpy()])
        assert mask.any()
        assert not mask[~ROI.numpy()].any()
    assert not corrupt(synthesis, image, [image], np.random.default_rng(0), np.zeros((SIDE, SIDE), bool))[1].any()


def test_views_carry_the_region_along(data: Textures) -> None:
    pool = attached(data)
    batch = take(pool, 1, clean=10, synthetic=30)
    assert not (batch["mask"] * (1 - batch["inside"])).any()
    assert torch.equal(batch["learned"], batch["inside"])
    assert torch.equal(batch["judged"], batch["inside"])
    assert batch["inside"][:10].mean() == pytest.approx(ROI.float().mean().item(), rel=0.3)
    shares = {round(one.mean().item(), 4) for one in batch["inside"][:10]}
    assert len(shares) > 1  # augmented views have turned it
    other = attached(data, workers=1)
    assert equal(take(other, 1, clean=10, synthetic=30), batch)
    other.close()


def test_the_view_of_the_region_is_that_of_a_picture_of_it() -> None:
    class Marked(Textures):
        def __getitem__(self, index: int) -> dict[str, Any]:
            return {"image": ROI.float().expand(3, -1, -1), "category": "a"}

    pool = attached(Marked(lambda seed, side: np.zeros((side, side, 3), np.float32), 3))
    batch = take(pool, 1, clean=6, synthetic=0)
    seen = batch["target"]["pixel"][:, :1] > 0.5 * batch["target"]["pixel"].amax((1, 2, 3), keepdim=True)
    assert (seen == (batch["inside"] > 0)).float().mean() > 0.99


def test_tiles_that_see_nothing_of_the_region_are_left_out(data: Textures) -> None:
    pool = attached(data, grid=Grid((SIDE, SIDE), 32, 0.0), views=1)
    pool.advance(0)
    assert len(pool._slots) == 5 * 2  # the two upper ones of four
    assert {view for _, view in pool._slots} == {0, 1}


def test_the_scale_and_the_memory_are_of_cells_inside() -> None:
    torch.manual_seed(0)
    backbone = Backbone("test_efficientnet", {"low": [4], "high": [8]}, weights=None)
    images = torch.rand(3, 3, 64, 64)
    inside = ROI.float()[None, None]
    backbone.fit([images[:2], images[2:]], inside)
    raw = backbone._raw(images)
    split = backbone.feature_mean.split(list(backbone.channels.values()))
    for f, mean in zip(raw.values(), split, strict=True):
        share = F.avg_pool2d(inside, 64 // f.shape[-1])[0, 0]
        torch.testing.assert_close(f[:, :, share >= 0.5].mean((0, 2)), mean, atol=1e-4, rtol=1e-3)
    memory = PatchMemory({"a": 3}, patches=1000, selection="random")
    features = torch.rand(2, 3, 8, 8)
    memory.fill([{"a": features}], 2, 0, inside=inside)
    share = F.avg_pool2d(inside, 8)[0, 0] >= 0.5
    smooth = F.avg_pool2d(features, 3, 1, 1)[:, :, share]
    assert torch.equal(memory.rows, smooth.transpose(1, 2).flatten(0, 1))
    assert memory.source.tolist() == [0] * int(share.sum()) + [1] * int(share.sum())


def test_a_strip_of_a_rectangle_has_the_metrics_of_the_part_that_is_cut_out() -> None:
    rng = np.random.default_rng(0)
    maps = torch.from_numpy(rng.normal(size=(4, 40, 50)))
    masks = torch.from_numpy(rng.random((4, 40, 50)) > 0.85)
    masks[3] = False
    inside = np.zeros((40, 50), bool)
    inside[5:30, 10:45] = True
    orders = [strip_order(mask, inside) for mask in masks]
    strips = [[m.flatten()[o][None] for m, o in zip(part, orders, strict=True)] for part in (maps, masks)]
    found = pixel_metrics(strips[0], strips[1], fpr_limit=[0.3, 0.05])
    expected = pixel_metrics(maps[:, 5:30, 10:45], masks[:, 5:30, 10:45], fpr_limit=[0.3, 0.05])
    assert {k: v.item() for k, v in found.items()} == pytest.approx({k: v.item() for k, v in expected.items()})
    full = strip_order(torch.ones(40, 50, dtype=torch.bool), inside)
    assert sorted(full.tolist()) == np.flatnonzero(inside).tolist()
