"""A memory that grows: the truths are sets of rows, and SciPy's nearest neighbours among those that may count."""

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from squad_lit.network.patch_memory import PatchMemory


def made(patches: int, selection: str = "coreset") -> PatchMemory:
    memory = PatchMemory({"a": 3}, patches=patches, selection=selection)  # type: ignore[arg-type]
    memory.fill([{"a": images(5, seed=1)}], 5, 0)
    return memory


def images(count: int, seed: int) -> torch.Tensor:
    return torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))


def grow(memory: PatchMemory, new: torch.Tensor, first: int = -1) -> None:
    memory.extend([{"a": part} for part in new.split(2)], len(new), 0, known=5, first=first)


def test_where_there_is_room_all_old_and_new_patches_are_remembered():
    memory, new = made(1000), images(3, seed=2)
    before = memory.rows.clone()
    grow(memory, new)
    assert torch.equal(memory.rows[: 5 * 16], before)
    assert memory.source.tolist() == [i for i in range(5) for _ in range(16)] + [-1] * 16 + [-2] * 16 + [-3] * 16
    assert memory({"a": new}).max() < 1e-3


@pytest.mark.parametrize("selection", ["coreset", "random"])
def test_the_memory_stays_as_large_as_it_may_be_and_has_old_and_new_patches(selection):
    memory = made(40, selection)
    before = {tuple(row) for row in memory.rows.tolist()}
    grow(memory, images(5, seed=2) + 1)
    assert len(memory.rows) == len(memory.source) == 40
    old = memory.source >= 0
    assert {tuple(row) for row in memory.rows[old].tolist()} <= before
    assert 8 <= int(old.sum()) <= 32  # five images of each
    again = made(40, selection)
    grow(again, images(5, seed=2) + 1)
    assert torch.equal(again.rows, memory.rows)


def test_patches_of_the_image_that_is_left_out_do_not_count():
    memory, new = made(1000), images(3, seed=2)
    grow(memory, new)
    memory.left_out = -2
    kept = memory.rows[memory.source != -2].numpy()
    rows = memory.rows[memory.source == -2].numpy()
    expected, _ = cKDTree(kept).query(rows)
    np.testing.assert_allclose(memory({"a": new[1:2]}).flatten(), expected, atol=1e-3)
    memory.left_out = None
    assert memory({"a": new[1:2]}).max() < 1e-3
