"""Known defects in the pool: the truths are the pixels of the images, which the backbone returns, and sums by hand."""

from typing import Any

import numpy as np
import pytest
import torch
from test_pool import SIDE, Pixels, Textures, equal, make, take

from squad_lit.image.tile import Grid
from squad_lit.network import loss as losses
from squad_lit.training.known import MARKED, SYNTHETIC, UNMARKED
from squad_lit.training.pool import FeaturePool


class Known:
    """A red image whose left half is marked, and a blue one without a mask."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = torch.zeros(3, SIDE, SIDE)
        image[2 * index] = 1
        mask = torch.zeros(1, SIDE, SIDE, dtype=torch.uint8)
        if index == 0:
            mask[..., : SIDE // 2] = 1
        return {"image": image, "mask": mask}


@pytest.fixture(scope="module")
def data(draw_texture: Any) -> Textures:
    return Textures(draw_texture, 5)


def attached(data: Textures, grid: Grid | None = None, **changed: Any) -> FeaturePool:
    pool = make(**{"synthetic": 40, "known": 0.8} | changed)
    known: Any = Known()
    pool.attach(data, Pixels(), grid or Grid((SIDE, SIDE)), seed=0, known=known)
    return pool


def test_batches_have_real_defects_and_what_is_known_of_them(data: Textures) -> None:
    pool = attached(data)
    batch = take(pool, 1, clean=3, synthetic=40)
    kind = pool._kind[pool._order(1, 1, 40, 40)]
    assert {SYNTHETIC, MARKED, UNMARKED} == set(kind.tolist())
    features, target = batch["features"]["pixel"][3:], batch["target"]["pixel"][3:]
    marked, unmarked = kind == MARKED, kind == UNMARKED
    # Red with a mask on its left or, flipped, right half; the generator learns from the other half of it.
    assert (features[marked][:, 0].mean((1, 2)) > 0.8).all()
    assert batch["mask"][3:][marked].mean((1, 2, 3)).numpy() == pytest.approx(0.5, abs=0.1)
    assert torch.equal(target[marked], features[marked])
    learned = batch["learned"][3:][marked]
    assert not (learned * batch["mask"][3:][marked]).any()
    assert (learned.mean((1, 2, 3)) > 0.2).all()
    assert (batch["judged"][3:][marked] == 1).all()
    # Blue: nothing is known but that it has a defect.
    assert (features[unmarked][:, 2].mean((1, 2)) > 0.8).all()
    assert not batch["learned"][3:][unmarked].any()
    assert not batch["judged"][3:][unmarked].any()
    assert torch.equal(batch["unmarked"], torch.cat([torch.zeros(3), unmarked.float()]))
    # What is clean or synthetic counts as before, and so does its image.
    assert (batch["learned"][:3] == 1).all()
    assert (batch["learned"][3:][kind == SYNTHETIC] == 1).all()
    is_real = torch.cat([torch.zeros(3, dtype=torch.bool), kind != SYNTHETIC])
    assert torch.equal(batch["shown_learned"].flatten(), ~is_real[batch["shown"]])


def test_they_are_a_function_of_the_seed_and_the_step(data: Textures) -> None:
    pool = attached(data)
    walked = [take(pool, step) for step in range(9)]
    assert equal(take(attached(data), 7), walked[7])
    processes = attached(data, workers=1)
    assert equal(take(processes, 5), walked[5])
    processes.close()


def test_without_known_defects_or_their_share_nothing_changes(data: Textures) -> None:
    pool = make(synthetic=40)
    pool.attach(data, Pixels(), Grid((SIDE, SIDE)), seed=0)
    assert equal(take(attached(data, known=0.0), 5), take(pool, 5))
    assert "learned" not in take(pool, 5)


def test_of_large_images_each_tile_has_a_part_of_the_mark(draw_texture: Any) -> None:
    pool = attached(Textures(draw_texture, 3), grid=Grid((SIDE, SIDE), 32, 0.25), known=1.0)
    batch = take(pool, 0, clean=0, synthetic=40)
    assert batch["mask"].shape[-2:] == (32, 32)
    assert batch["mask"].flatten(1).any(1).float().mean() > 0.9  # an augmentation may move it out
    assert not batch["unmarked"].any()


def test_losses_count_what_is_inside_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    recon, target = torch.randn(2, 2, 5, 6, 8, generator=generator)
    weight = torch.zeros(2, 1, 6, 8)
    weight[..., :4] = 1
    for share in (0.0, 0.5, 0.9):
        for parameter in (recon, recon[..., :4].clone()):
            parameter.requires_grad_()
        part = recon[..., :4].detach().clone().requires_grad_()
        expected = losses.feature_loss(part, target[..., :4], easy_share=share)
        found = losses.feature_loss(recon, target, easy_share=share, weight=weight)
        torch.testing.assert_close(found, expected)
        (gradient,) = torch.autograd.grad(found, recon)
        torch.testing.assert_close(gradient[..., :4], torch.autograd.grad(expected, part)[0])
        assert not gradient[..., 4:].any()
    logit, mask = torch.randn(2, 1, 6, 8, generator=generator), torch.ones(2, 1, 6, 8)
    mask[:, :, :3] = 0
    for function in (losses.focal_loss, losses.dice_loss):
        torch.testing.assert_close(function(logit, mask, weight=weight), function(logit[..., :4], mask[..., :4]))
    assert losses.feature_loss(recon, target, easy_share=0.5, weight=torch.zeros(2, 1, 6, 8)) == 0


def test_the_highest_logits_of_an_unmarked_image_are_to_be_high() -> None:
    logit = torch.tensor([[0.0, 3.0], [1.0, 2.0]])[:, None, None]
    expected = np.log1p(np.exp(-3.0))
    assert losses.hidden_defect_loss(logit, torch.tensor([1.0, 0.0])).item() == pytest.approx(expected, rel=1e-5)
    assert losses.hidden_defect_loss(logit, torch.zeros(2)) == 0
