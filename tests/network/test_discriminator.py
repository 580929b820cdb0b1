"""Shapes, who gets a gradient, what the discriminator may see, and the receptive field worked out by hand."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from squad_lit.network.discriminator import PatchDiscriminator, SegmentationDiscriminator

GROUPS = {
    "one": ({"only": 5}, {"only": (6, 8)}),
    "two": ({"low": 4, "high": 7}, {"low": (8, 12), "high": (4, 6)}),
    "three": ({"c": 3, "a": 5, "b": 2}, {"c": (3, 4), "a": (12, 16), "b": (6, 8)}),
}


def make(groups: str, *, feature_dropout: float = 1.0, upsample: int = 1) -> SegmentationDiscriminator:
    torch.manual_seed(0)
    return SegmentationDiscriminator(GROUPS[groups][0], width=16, upsample=upsample, feature_dropout=feature_dropout)


def draw(groups: str, seed: int = 1, n: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    channels, grids = GROUPS[groups]
    return {group: torch.randn(n, c, *grids[group], generator=generator) for group, c in channels.items()}


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("upsample", [0, 1, 2])
@pytest.mark.parametrize("feature_dropout", [0.0, 1.0])
def test_logits_are_at_the_finest_grid_times_the_doublings(groups, upsample, feature_dropout):
    logit = make(groups, upsample=upsample, feature_dropout=feature_dropout)(draw(groups), draw(groups, seed=2))
    height, width = max(GROUPS[groups][1].values())
    assert logit.shape == (2, 1, height * 2**upsample, width * 2**upsample)


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("feature_dropout", [0.0, 1.0])
def test_gradient_reaches_every_parameter_and_no_detached_reconstruction(groups, feature_dropout):
    model = make(groups, feature_dropout=feature_dropout)
    features = draw(groups)
    scale = torch.ones((), requires_grad=True)  # stands for a generator's weight
    recon = {group: f * scale for group, f in draw(groups, seed=2).items()}
    logit = model(features, {group: r.detach() for group, r in recon.items()})
    F.binary_cross_entropy_with_logits(logit, torch.rand(logit.shape)).backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert missing == []
    assert scale.grad is None
    # The same path without detach does carry a gradient, so that the line above can fail.
    model(features, recon).sum().backward()
    assert scale.grad.abs() > 0


def test_features_hidden_for_good_have_no_weights():
    count = {
        dropout: sum(p.numel() for p in make("two", feature_dropout=dropout).parameters()) for dropout in (1.0, 0.5)
    }
    assert not make("two", feature_dropout=1.0).feature_in
    assert count[0.5] - count[1.0] == (4 + 1) * 16 + (7 + 1) * 16  # a 1x1 convolution and its bias for each group


def same_residual() -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Two pairs of features and reconstruction that differ in the features and not in the absolute residual."""
    features, residual = draw("two"), draw("two", seed=2)
    shifted = {group: f + 3 for group, f in features.items()}
    recon = {group: features[group] - r for group, r in residual.items()}
    shifted_recon = {group: shifted[group] + r for group, r in residual.items()}  # the other side: absolute
    return features, recon, shifted, shifted_recon


def test_only_the_absolute_residual_counts_when_features_are_hidden():
    features, recon, shifted, shifted_recon = same_residual()
    model = make("two", feature_dropout=1.0)
    torch.testing.assert_close(model(features, recon), model(shifted, shifted_recon), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("feature_dropout", [0.0, 0.9])
def test_features_are_seen_in_evaluation_if_at_all(feature_dropout):
    features, recon, shifted, shifted_recon = same_residual()
    model = make("two", feature_dropout=feature_dropout).eval()
    assert (model(features, recon) - model(shifted, shifted_recon)).abs().max() > 1e-3
    assert torch.equal(model(features, recon), model(features, recon))


def test_features_are_hidden_from_the_asked_share_of_training_images():
    model = make("one", feature_dropout=0.25).train()
    n = 2000
    features = {"only": torch.zeros(n, 5, 1, 1)}
    shown = {"only": torch.ones(n, 5, 1, 1)}
    with torch.no_grad():
        model.feature_in["only"].bias.zero_()
        hidden = model.eval()(features, features)[0, 0, 0, 0]  # features of zero: what a hidden image gives
        torch.manual_seed(0)
        logit = model.train()(shown, shown)[:, 0, 0, 0]
    share = float((logit - hidden).abs().lt(1e-6).double().mean())
    assert share == pytest.approx(0.25, abs=0.04)  # four standard errors


def test_starts_from_one_percent():
    model = make("two")
    with torch.no_grad():
        model.logit.weight.zero_()
    probability = model(draw("two"), draw("two", seed=2)).sigmoid()
    torch.testing.assert_close(probability, torch.full_like(probability, 0.01), rtol=0.01, atol=0)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"width": 12}, "^width: expected a multiple of 8, got 12"),
        ({"width": 0}, "^width: expected at least 8, got 0"),
        ({"upsample": -1}, "^upsample: expected at least 0, got -1"),
        ({"upsample": 5}, "^upsample: expected at most 4, got 5"),
        ({"feature_dropout": 1.1}, "^feature_dropout: expected at most 1, got 1.1"),
        ({"feature_dropout": -0.1}, "^feature_dropout: expected at least 0, got -0.1"),
    ],
)
def test_segmentation_refuses_in_words(wrong, words):
    with pytest.raises(ValueError, match=words):
        SegmentationDiscriminator({"g": 3}, **({"width": 16, "upsample": 1, "feature_dropout": 0.5} | wrong))


# PatchGAN


@pytest.mark.parametrize(("layers", "height", "width"), [(1, 31, 15), (2, 15, 7), (3, 7, 3)])
def test_patch_logits(layers, height, width):
    # A layer halves the side; the last 4x4 convolution with a border of 1 takes one off.
    assert PatchDiscriminator(width=8, layers=layers)(torch.rand(2, 3, 64, 32)).shape == (2, 1, height, width)


def test_patch_gradient_reaches_every_parameter_and_the_image():
    torch.manual_seed(0)
    model = PatchDiscriminator(width=8, layers=3)
    image = torch.rand(2, 3, 64, 64, requires_grad=True)
    model(image).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
    assert image.grad.abs().sum() > 0


def test_patch_logit_sees_ten_pixels_at_one_layer():
    # 4 logits of the 4x4 convolution, each 2 px further and 4 px wide: 3 * 2 + 4. More layers have instance statistics.
    torch.manual_seed(0)
    image = torch.rand(1, 3, 64, 64, requires_grad=True)
    PatchDiscriminator(width=8, layers=1)(image)[0, 0, 15, 15].backward()
    seen = image.grad.abs().sum((0, 1)) > 0
    assert seen.any(1).sum() == 10
    assert seen.any(0).sum() == 10


def test_patch_judges_an_image_apart_from_its_batch():
    torch.manual_seed(0)
    model, image = PatchDiscriminator(width=8, layers=3), torch.rand(3, 3, 64, 64)
    torch.testing.assert_close(model(image)[1:2], model(image[1:2]))


@pytest.mark.parametrize(("name", "most"), [("width", 1024), ("layers", 10)])
def test_patch_refuses_in_words(name, most):
    for value, words in ((0, "at least 1, got 0"), (most + 1, f"at most {most}, got {most + 1}")):
        with pytest.raises(ValueError, match=f"^{name}: expected {words}"):
            PatchDiscriminator(**({"width": 8, "layers": 3} | {name: value}))


def test_between_never_and_always_a_test_image_has_its_features_shown():
    both, shown = (make("two", feature_dropout=p).eval() for p in (0.5, 0.0))
    shown.load_state_dict(both.state_dict())
    features, recon = draw("two"), draw("two", seed=2)
    torch.testing.assert_close(both(features, recon), shown(features, recon))
    assert not torch.allclose(shown(features, recon), shown({g: f + 1 for g, f in features.items()}, recon))


def test_in_training_each_image_has_its_features_shown_or_hidden():
    both, shown, hidden = (make("two", feature_dropout=p) for p in (0.5, 0.0, 1.0))
    shown.load_state_dict(both.state_dict())
    hidden.load_state_dict({k: v for k, v in both.state_dict().items() if not k.startswith("feature_in")})
    features, recon = draw("two"), draw("two", seed=2)
    count = len(next(iter(features.values())))
    seen = set()
    for seed in range(20):
        torch.manual_seed(seed)
        logit = both(features, recon)
        for i in range(count):
            is_shown, is_hidden = (torch.allclose(logit[i], m(features, recon)[i], atol=1e-5) for m in (shown, hidden))
            assert is_shown != is_hidden
            seen.add(is_shown)
    assert seen == {True, False}
