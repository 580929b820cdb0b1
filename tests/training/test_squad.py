"""The truths: which images a loss has seen, gradients that must or must not be there, and sums by hand."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import hydra
import pytest
import torch
from torch import Tensor, nn

from squad_lit.network import loss as losses
from squad_lit.run.config import CONF
from squad_lit.run.model import make_module
from squad_lit.training.squad import Squad, _Epochs

SIDE = 64
SMALL = ["backbone.name=test_efficientnet", "backbone.weights=null", "model.groups={low: [4], high: [8]}"]
SMALL += ["model.generator.width=16", "discriminator.segmentation.width=16", f"dataset.image_size={SIDE}"]


def make(*overrides: str, model: str = "squad") -> Squad:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose("train", [*SMALL, f"model={model}", *overrides])
    torch.manual_seed(0)
    module = make_module(config)
    assert isinstance(module, Squad)
    module.local_batch = 4
    return module


def draw(module: Squad, count: int = 4) -> dict[str, Any]:
    """A batch as the pool makes them; the second half is corrupted."""
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(count, 3, SIDE, SIDE, generator=generator)
    mask = torch.zeros(count, 1, SIDE, SIDE)
    mask[count // 2 :, :, 8:24, 8:24] = 1
    target = module.backbone(image)
    features = module.backbone(image * (1 - mask))
    return {"image": image[1::2], "shown": torch.tensor([1, 3]), "mask": mask, "target": target, "features": features}


def test_an_epoch_ends_at_multiples_of_validate_every_and_at_the_end(monkeypatch):
    module = make("model.validate_every=4", "model.steps=10")
    monkeypatch.setattr(module.pool, "batches", lambda first, end, **parts: iter(range(first, end)))
    epochs = _Epochs(module, clean=0, synthetic=2)
    for step, expected in ((0, [0, 1, 2, 3]), (4, [4, 5, 6, 7]), (6, [6, 7]), (8, [8, 9])):
        module.state.step = step
        assert list(epochs) == expected


def test_the_image_decoder_is_trained_on_the_images_that_are_shown(monkeypatch):
    module = make()
    batch = draw(module)
    seen: list[tuple[Tensor, Tensor]] = []
    monkeypatch.setattr(losses, "image_loss", lambda recon, image: seen.append((recon, image)) or recon.mean())
    codes = module.generator(batch["features"]).codes
    module._image_terms(batch, codes, False, {})
    ((recon, image),) = seen
    assert torch.equal(image, batch["image"])
    torch.testing.assert_close(recon, module.generator.image_decoder(codes)[1::2])


@pytest.mark.parametrize("stop", [True, False])
def test_stop_gradient_keeps_the_segmentation_loss_from_the_generator(stop):
    module = make(f"model.stop_gradient={str(stop).lower()}")
    batch = draw(module)
    module._mask_terms(batch, module.generator(batch["features"]).feature_recon, {}).backward()
    assert all(p.grad is None for p in module.generator.encoder.parameters()) is stop
    assert module.segmentation is not None
    assert all(p.grad is not None for p in module.segmentation.logit.parameters())


def test_mask_terms_are_the_weighted_losses_with_their_gamma():
    module = make("model.loss_weight.focal=3", "model.loss_weight.dice=0.5", "model.focal_gamma=1")
    module.eval()  # no features are hidden by chance
    batch, log = draw(module), {}
    recon = module.generator(batch["features"]).feature_recon
    total = module._mask_terms(batch, recon, log)
    assert module.segmentation is not None
    logit = module.segmentation(batch["features"], recon)
    target = torch.nn.functional.interpolate(batch["mask"], size=logit.shape[-2:], mode="area")
    focal, dice = losses.focal_loss(logit, target, gamma=1), losses.dice_loss(logit, target)
    torch.testing.assert_close(total, 3 * focal + 0.5 * dice)
    torch.testing.assert_close((log["focal"], log["dice"]), (focal.detach(), dice.detach()))


def test_a_memory_is_seen_by_the_discriminator_and_by_itself():
    module = make("discriminator.segmentation.feature_dropout=1", model="hybrid").eval()
    assert module.memory is not None
    image = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    module.memory.fill([module.backbone(image)], 3, seed=0)
    other = image.flip(3)
    with torch.inference_mode():
        near = module.forward_tile(other)
        distance = module.memory(near.features) / sum(module.backbone.channels.values()) ** 0.5
        torch.testing.assert_close(
            near.maps["memory"], module.anomaly.prepare({"": distance}, (SIDE, SIDE))[""], atol=1e-5, rtol=1e-5
        )
        module.memory.rows += 5
        far = module.forward_tile(other)
    assert not torch.equal(near.maps["discriminator"], far.maps["discriminator"])
    assert torch.equal(near.maps["residual_low"], far.maps["residual_low"])
    with torch.inference_mode():
        own = module._beside(module.backbone(image), torch.arange(3))["memory"]
        module.memory.source.zero_()
        alone = module._beside(module.backbone(image[:1]), torch.tensor([0]))["memory"]
    assert own.min() > 0
    assert (alone == 0).all()  # where there is no other image


def test_a_group_with_the_name_of_the_memorys_is_refused():
    with pytest.raises(ValueError, match="groups: 'memory' is the group of the memory's distances"):
        make("+model.groups.memory=[4]", model="hybrid")


def test_maps_are_float32_where_the_model_computes_in_half_precision():
    module = make().eval()
    image = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        half = module.forward_tile(image)
        raw = module.segmentation(half.features, half.recon.feature_recon)
    assert raw.dtype == torch.bfloat16
    with torch.inference_mode():
        torch.testing.assert_close(
            half.maps["discriminator"], module.anomaly.prepare({"": raw.float()}, (SIDE, SIDE))[""], rtol=0, atol=0
        )
        exact = module.forward_tile(image)
    for name, found in half.maps.items():
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, exact.maps[name], rtol=0.1, atol=0.1)


@pytest.mark.parametrize("precision", ["32-true", "16-mixed"])
def test_gradients_are_clipped_after_they_are_unscaled_and_all_optimisers_see_one_scale(precision):
    module = make("model.gradient_clip=0.5")
    weights = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))]
    optimizers = [torch.optim.SGD([w], lr=1.0) for w in weights]
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0) if precision == "16-mixed" else None
    module.trainer = SimpleNamespace(precision_plugin=SimpleNamespace(scaler=scaler))  # type: ignore[assignment]
    total = 3 * weights[0].sum() + 0.1 * weights[1].sum()
    (scaler.scale(total) if scaler else total).backward()
    module._optimise([SimpleNamespace(optimizer=o, step=o.step) for o in optimizers])  # type: ignore[misc]
    # The first gradient has a norm of 3 sqrt(3) and is shortened to 0.5; the second, of 0.14, is kept.
    torch.testing.assert_close(weights[0].data, torch.full((3,), 1 - 0.5 / 3**0.5))
    torch.testing.assert_close(weights[1].data, torch.full((2,), 0.9))


@pytest.mark.parametrize("make_optimizer", [torch.optim.SGD, partial(torch.optim.AdamW, fused=True)])
def test_a_step_whose_gradients_overflow_in_half_precision_is_left_out_and_the_scale_is_halved(make_optimizer):
    module = make()
    weight = nn.Parameter(torch.ones(2))
    optimizer, scaler = make_optimizer([weight], lr=1.0), torch.amp.GradScaler("cpu", init_scale=1024.0)
    module.trainer = SimpleNamespace(precision_plugin=SimpleNamespace(scaler=scaler))  # type: ignore[assignment]
    scaler.scale(weight.sum()).backward()
    assert weight.grad is not None
    weight.grad[0] = float("inf")
    module._optimise([SimpleNamespace(optimizer=optimizer, step=optimizer.step)])  # type: ignore[list-item]
    assert weight.tolist() == [1, 1]
    assert scaler.get_scale() == 512
