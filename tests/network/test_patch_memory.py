"""A coreset against the greedy choice written out."""

import pytest
import torch

from squad_lit.network import patch_memory
from squad_lit.network.patch_memory import PatchMemory, coreset


@pytest.mark.parametrize("ahead", [1, 3, 16, 2048])
def test_each_row_of_a_coreset_is_the_farthest_from_those_before(monkeypatch, ahead):
    # On a line the projection keeps the order of the distances.
    monkeypatch.setattr(patch_memory, "_AHEAD", ahead)
    for seed in range(3):
        rows = torch.rand(300, 1, generator=torch.Generator().manual_seed(seed)) + 5
        chosen = coreset(rows, 40, seed).flatten().tolist()
        for i in range(1, 40):
            away = [min(abs(r - c) for c in chosen[:i]) for r in rows.flatten().tolist()]
            assert min(abs(chosen[i] - c) for c in chosen[:i]) == pytest.approx(max(away), abs=1e-5)
    assert torch.equal(coreset(rows, 300, 0), rows)
    told: list[int] = []
    assert len(coreset(rows, 40, 0, told.append)) == 1 + sum(told)


def test_a_coreset_keeps_the_rare_look():
    rows = torch.cat([torch.randn(500, 4, generator=torch.Generator().manual_seed(0)), torch.full((1, 4), 50.0)])
    assert (coreset(rows, 5, 0) == 50).all(1).any()


def test_a_coreset_holds_no_row_twice():
    rows = torch.tensor([[1.0, 2.0]] * 9 + [[3.0, 4.0]])
    assert sorted(coreset(rows, 5, 0).tolist()) == [[1.0, 2.0], [3.0, 4.0]]


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
