"""Shapes and gradients for groups of any number, and what may depend on what."""

import pytest
import torch
from torch import Tensor

from squad_lit.network.generator import Decoder, Encoder, Generator, ImageDecoder
from squad_lit.network.quantizer import FSQ, NoQuantizer, Quantized

GROUPS = {
    "one": ({"only": 7}, {"only": 4}),
    "two": ({"low": 6, "high": 9}, {"low": 8, "high": 16}),
    "three": ({"a": 5, "b": 3, "c": 11}, {"a": 16, "b": 8, "c": 32}),
}


def make(groups: str, quantizer=lambda: FSQ([8, 5, 5])) -> tuple[Generator, dict[str, int], dict[str, int]]:
    torch.manual_seed(0)
    channels, strides = GROUPS[groups]
    return Generator(channels, strides, quantizer=quantizer, width=16, image_width=16), channels, strides


def draw(
    channels: dict[str, int], strides: dict[str, int], *, size: tuple[int, int] = (96, 64), n: int = 2
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        group: torch.randn(n, c, size[0] // strides[group], size[1] // strides[group], generator=generator)
        for group, c in channels.items()
    }


@pytest.mark.parametrize("groups", GROUPS)
def test_shapes(groups):
    model, channels, strides = make(groups)
    features = draw(channels, strides)
    out = model(features)
    for group, f in features.items():
        assert out.feature_recon[group].shape == f.shape
        assert out.codes[group].shape == (2, 3, *f.shape[-2:])
        assert out.indices[group].shape == (2, *f.shape[-2:])
    assert out.loss.shape == ()
    image = model.image_decoder(out.codes)
    assert image.shape == (2, 3, 96, 64)
    assert image.min() >= 0
    assert image.max() <= 1


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("quantizer", [lambda: FSQ([8, 5, 5]), lambda: NoQuantizer(dim=3)], ids=["fsq", "none"])
def test_gradient_reaches_every_parameter(groups, quantizer):
    model, channels, strides = make(groups, quantizer)
    features = draw(channels, strides)
    out = model(features)
    loss = sum((out.feature_recon[g] - f).square().sum() for g, f in features.items())
    (loss + model.image_decoder(out.codes).square().sum() + out.loss).backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert missing == []


def test_forward_is_encode_then_decode():
    model, channels, strides = make("three")
    features = draw(channels, strides)
    codes = {group: q.codes for group, q in model.encode(features).items()}
    for group, recon in model(features).feature_recon.items():
        torch.testing.assert_close(recon, model.decode(codes)[group])
        torch.testing.assert_close(
            recon, model.decoder[group](model.quantizer[group](model.encoder[group](features[group])).codes)
        )


def test_groups_are_reconstructed_apart_and_make_the_image_together():
    model, channels, strides = make("three")
    features = draw(channels, strides)
    before = model(features)
    for changed in channels:
        other = model(features | {changed: -features[changed]})
        for group in channels:
            same = torch.equal(before.feature_recon[group], other.feature_recon[group])
            assert same == (group != changed)
        assert not torch.equal(model.image_decoder(before.codes), model.image_decoder(other.codes))


def test_each_group_has_a_quantiser_of_its_own():
    made = []

    def quantizer() -> NoQuantizer:
        made.append(NoQuantizer(dim=len(made) + 1))  # of different widths, as codebooks may have
        return made[-1]

    model, channels, strides = make("three", quantizer)
    codes = model(draw(channels, strides)).codes
    assert [codes[group].shape[1] for group in channels] == [1, 2, 3]


def test_loss_is_the_sum_over_the_groups():
    class Costly(NoQuantizer):
        def forward(self, z: Tensor) -> Quantized:
            return super().forward(z)._replace(loss=z.new_tensor(float(z.shape[-1])))

    model, channels, strides = make("three", lambda: Costly(dim=2))
    assert model(draw(channels, strides, size=(64, 64))).loss == 4 + 8 + 2


def test_reconstruction_of_an_image_does_not_depend_on_its_batch():
    model, channels, strides = make("two")
    features = draw(channels, strides, n=3)
    together = model(features)
    alone = model({group: f[1:2] for group, f in features.items()})
    for group in channels:
        torch.testing.assert_close(alone.feature_recon[group][0], together.feature_recon[group][1])


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (7, 4)])
def test_encoder_and_decoder_keep_odd_grids(size):
    codes = Encoder(5, 8, 2)(torch.randn(1, 5, *size))
    assert codes.shape == (1, 2, *size)
    assert Decoder(2, 8, 5)(codes).shape == (1, 5, *size)


@pytest.mark.parametrize("finest", [1, 2, 4, 8, 16, 32])
def test_image_decoder_reaches_the_resolution_of_the_image(finest):
    decoder = ImageDecoder({"fine": 2, "coarse": 3}, {"fine": finest, "coarse": 2 * finest}, 16)
    image = decoder({"fine": torch.randn(1, 2, 4, 6), "coarse": torch.randn(1, 3, 2, 3)})
    assert image.shape == (1, 3, 4 * finest, 6 * finest)


def test_last_layer_is_where_the_image_comes_from():
    decoder = ImageDecoder({"g": 2}, {"g": 8}, 16)
    with torch.no_grad():
        decoder.last_layer.zero_()
    first, second = (decoder({"g": torch.randn(1, 2, 4, 4)}) for _ in range(2))
    torch.testing.assert_close(first, second)  # only the bias of that layer is left


@pytest.mark.parametrize("finest", [14, 3, 7])
def test_image_decoder_reaches_the_image_from_a_stride_that_is_no_power_of_two(finest):
    decoder = ImageDecoder({"low": 4}, {"low": finest}, 32)
    assert decoder({"low": torch.zeros(2, 4, 5, 6)}).shape == (2, 3, 5 * finest, 6 * finest)


@pytest.mark.parametrize("name", ["width", "image_width"])
@pytest.mark.parametrize("value", [0, -8, 4, 12, 1032])
def test_widths_are_refused_in_words(name, value):
    widths = {"width": 16, "image_width": 16} | {name: value}
    words = "at least 8" if value < 1 else "at most 1024" if value > 1024 else "a multiple of 8"
    with pytest.raises(ValueError, match=f"^{name}: expected .*{words}.*, got {value}"):
        Generator({"g": 3}, {"g": 4}, quantizer=lambda: FSQ([3]), **widths)
