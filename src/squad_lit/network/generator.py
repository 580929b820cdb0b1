"""The generator, with an encoder, a quantiser and a decoder per group of features, and one image decoder for all."""

from collections.abc import Callable, Mapping
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from squad_lit.network.quantizer import Quantized
from squad_lit.system.option import checked

# Channels that share one normalisation in GroupNorm.
NORM_GROUP = 8
MOST_WIDTH = 1024

Width = Annotated[int, Field(ge=NORM_GROUP, le=MOST_WIDTH, multiple_of=NORM_GROUP)]


class Reconstruction(NamedTuple):
    """What the generator makes of features; the mappings are by group."""

    feature_recon: dict[str, Tensor]
    codes: dict[str, Tensor]
    indices: dict[str, Tensor | None]
    loss: Tensor


class ResidualBlock(nn.Module):
    """Normalisation, SiLU and a 3x3 convolution, twice, added to the input ``(N, width, H, W)``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(width // NORM_GROUP, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(width // NORM_GROUP, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Encoder(nn.Module):
    """Features to the scalars of a code, from 5x5 cells each: ``(N, C, H, W) -> (N, dim, H, W)``."""

    def __init__(self, channels: int, width: int, dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, width, 1), ResidualBlock(width), nn.Conv2d(width, dim, 1))

    def forward(self, features: Tensor) -> Tensor:
        return self.body(features)


class Decoder(nn.Module):
    """Codes to features: ``(N, dim, H, W) -> (N, C, H, W)``.

    A branch at half the resolution widens the neighbourhood, from which a cell with a disturbed code can be restored.
    """

    def __init__(self, dim: int, width: int, channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(dim, width, 3, padding=1)
        self.fine = ResidualBlock(width)
        self.down = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.coarse = ResidualBlock(width)
        self.head = nn.Conv2d(width, channels, 1)

    def forward(self, codes: Tensor) -> Tensor:
        x = self.fine(self.stem(codes))
        context = self.coarse(self.down(x))
        x = x + F.interpolate(context, size=x.shape[-2:], mode="bilinear", align_corners=False)
        return self.head(x)


class ImageDecoder(nn.Module):
    """The codes of all groups to the image, ``(N, 3, H, W)`` in [0, 1].

    Args:
        dims: Scalars per code of each group.
        strides: Pixels per cell of each group; the image is built from the finest grid.
        width: Channels at the finest grid; each doubling of the resolution halves them.
    """

    def __init__(self, dims: Mapping[str, int], strides: Mapping[str, int], width: int) -> None:
        super().__init__()
        self.stride = min(strides.values())
        # Strides that are no power of 2, such as 14 of vision transformers, are rounded up, and the image is resized.
        finest = 1 << (self.stride - 1).bit_length()
        self.stem = nn.ModuleDict({group: nn.Conv2d(dim, width, 3, padding=1) for group, dim in dims.items()})
        blocks: list[nn.Module] = [ResidualBlock(width)]
        # The last doubling is a pixel shuffle of the output, so that no convolution runs at full resolution.
        for _ in range(max(finest.bit_length() - 2, 0)):
            narrow = max(width // 2, 2 * NORM_GROUP)
            blocks += [
                nn.Upsample(scale_factor=2, mode="nearest"),
                nn.Conv2d(width, narrow, 3, padding=1),
                nn.GroupNorm(narrow // NORM_GROUP, narrow),
                nn.SiLU(),
            ]
            width = narrow
        shuffle = 2 if finest > 1 else 1
        blocks += [nn.Conv2d(width, 3 * shuffle**2, 3, padding=1), nn.PixelShuffle(shuffle)]
        self.body = nn.Sequential(*blocks)

    @property
    def last_layer(self) -> Tensor:
        """Weights of the last convolution, at which the adaptive adversarial weight compares gradients."""
        return self.body[-2].weight  # type: ignore[return-value]

    def forward(self, codes: Mapping[str, Tensor]) -> Tensor:
        parts = [stem(codes[group]) for group, stem in self.stem.items()]
        grid = max(p.shape[-2:] for p in parts)
        x = torch.stack([p if p.shape[-2:] == grid else F.interpolate(p, size=grid) for p in parts]).sum(0)
        size = [side * self.stride for side in x.shape[-2:]]
        x = self.body(x)
        if list(x.shape[-2:]) != size:
            x = F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=True)
        return torch.sigmoid(x)


class Generator(nn.Module):
    """A quantised autoencoder per group of features, and the image decoder.

    Args:
        channels: Channels of each group of features.
        strides: Pixels per cell of each group.
        quantizer: Makes a quantiser; it is called once per group, because some quantisers hold a codebook.
        width: Channels inside the encoders and decoders, a multiple of 8 up to 1,024.
        image_width: Channels of the image decoder at the finest grid, a multiple of 8 up to 1,024.
    """

    @checked
    def __init__(
        self,
        channels: Mapping[str, int],
        strides: Mapping[str, int],
        *,
        quantizer: Callable[[], nn.Module],
        width: Width,
        image_width: Width,
    ) -> None:
        super().__init__()
        self.groups = list(channels)
        self.quantizer = nn.ModuleDict({group: quantizer() for group in channels})
        dims = self.dims = {group: int(q.dim) for group, q in self.quantizer.items()}  # type: ignore[arg-type]
        self.codebook_sizes = {g: int(q.codebook_size) for g, q in self.quantizer.items()}  # type: ignore[arg-type]
        self.encoder = nn.ModuleDict({g: Encoder(c, width, dims[g]) for g, c in channels.items()})
        self.decoder = nn.ModuleDict({g: Decoder(dims[g], width, c) for g, c in channels.items()})
        self.image_decoder = ImageDecoder(dims, strides, image_width)

    def encode(self, features: Mapping[str, Tensor]) -> dict[str, Quantized]:
        """Features to quantised codes."""
        return {group: self.quantizer[group](self.encoder[group](features[group])) for group in self.groups}

    def decode(self, codes: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Codes to features."""
        return {group: self.decoder[group](codes[group]) for group in self.groups}

    def forward(self, features: Mapping[str, Tensor]) -> Reconstruction:
        """Reconstruct features; ``image_decoder(codes)`` makes the image where it is wanted."""
        quantized = self.encode(features)
        codes = {group: q.codes for group, q in quantized.items()}
        return Reconstruction(
            feature_recon=self.decode(codes),
            codes=codes,
            indices={group: q.indices for group, q in quantized.items()},
            loss=torch.stack([q.loss for q in quantized.values()]).sum(),
        )
