"""A coreset against the greedy choice written out."""

import pytest
import torch
from torch.nn import functional as F

from squad_lit.network import patch_memory
from squad_lit.network.patch_memory import PatchMemory, coreset


@pytest.mark.parametrize("ahead", [1, 3, 16, 2048])
def test_each_row_of_a_coreset_is_the_farthest_from_those_before(monkeypatch, ahead):
    # On a line the projection keeps the order of the distances.
    monkeypatch.setattr(patch_memory, "_AHEAD", ahead)
    for seed in range(3):
        rows = torch.rand(300, 1, generator=torch.Generator().manual_seed(seed)) + 5
        chosen = rows[coreset(rows, 40, seed)].flatten().tolist()
        for i in range(1, 40):
            away = [min(abs(r - c) for c in chosen[:i]) for r in rows.flatten().tolist()]
            assert min(abs(chosen[i] - c) for c in chosen[:i]) == pytest.approx(max(away), abs=1e-5)
    assert coreset(rows, 300, 0).tolist() == list(range(300))
    told: list[int] = []
    assert len(coreset(rows, 40, 0, told.append)) == 1 + sum(told)


def test_a_coreset_keeps_the_rare_look():
    rows = torch.cat([torch.randn(500, 4, generator=torch.Generator().manual_seed(0)), torch.full((1, 4), 50.0)])
    assert 500 in coreset(rows, 5, 0)


def test_a_coreset_holds_no_row_twice():
    rows = torch.tensor([[1.0, 2.0]] * 9 + [[3.0, 4.0]])
    assert sorted(rows[coreset(rows, 5, 0)].tolist()) == [[1.0, 2.0], [3.0, 4.0]]


def test_a_coreset_of_what_is_not_finite_is_refused():
    rows = torch.rand(9, 2)
    rows[3, 1] = torch.nan
    with pytest.raises(FloatingPointError, match="not finite"):
        coreset(rows, 5, 0)


def test_distances_are_exact_in_mixed_precision():
    generator = torch.Generator().manual_seed(0)
    known = {"low": torch.randn(2, 3, 8, 8, generator=generator) + 5}
    near = {"low": known["low"] + 0.01 * torch.randn(2, 3, 8, 8, generator=generator)}
    model = PatchMemory({"low": 3}, patches=20, selection="coreset")
    model.fill([known], 2, seed=0)
    rows, plain = model.rows, model(near)
    with torch.autocast("cpu", torch.bfloat16):
        model.fill([known], 2, seed=0)
        assert torch.equal(model.rows, rows)
        assert torch.equal(model(near), plain)


@pytest.mark.parametrize("selection", ["random", "coreset"])
def test_an_image_does_not_find_its_own_patches_when_they_are_left_out(selection):
    tiles = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))  # two of each of three images
    model = PatchMemory({"low": 3}, patches=60, selection=selection)
    model.fill([{"low": part} for part in tiles.split(4)], 3, seed=0, tiles=2)
    rows = F.avg_pool2d(tiles, 3, 1, 1).flatten(2).transpose(1, 2).reshape(3, 32, 3)
    for row, number in zip(model.rows, model.source, strict=True):
        assert (rows[number] - row).norm(dim=1).min() < 1e-6  # a patch is of the image that it is said to be of
    found = model({"low": tiles}, torch.arange(6) // 2)[:, 0].reshape(3, 32)
    for number in range(3):
        others = model.rows[model.source != number]
        torch.testing.assert_close(found[number], torch.cdist(rows[number], others).amin(1), atol=1e-3, rtol=0)
    assert model({"low": tiles}).max() < found.max()
    model.fill([{"low": tiles[:2]}], 1, seed=0, tiles=2)
    assert model({"low": tiles[:1]}, torch.tensor([0])).isinf().all()
