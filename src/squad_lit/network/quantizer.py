"""Quantisers of a feature map, under one contract: ``quantizer(z) -> Quantized(codes, indices, loss)``.

``z`` is ``(N, dim, H, W)``. ``codes`` has the same shape and carries the straight-through gradient. ``indices`` is
``(N, H, W)`` int64, or None without a codebook. ``loss`` is a scalar. The attributes ``dim`` and ``codebook_size`` are
the scalars per cell and the number of codes (0 without a codebook).
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from squad_lit.system.option import Weight, checked

# The slope in tanh(slope z), by the name of the bound. 2 sigmoid(1.6 z) - 1 is tanh(0.8 z).
_SLOPES = {"tanh": 1.0, "ifsq": 0.8}
# A run counts how often each code occurs.
_MOST_CODES = 2**20
Dim = Annotated[int, Field(ge=1, le=4096)]
# Distances between cells and codes that VQ holds at once per image, 32 MB.
_DISTANCES = 2**23


class Quantized(NamedTuple):
    """What every quantiser returns."""

    codes: Tensor
    indices: Tensor | None
    loss: Tensor


class FSQ(nn.Module):
    """Finite scalar quantisation: each of d scalars is bounded, then rounded to one of L_i levels.

    The codebook is a fixed grid, so there is no codebook, commitment or entropy loss. Everything is computed in
    float32, whatever the type of the model or of autocast, because bfloat16 cannot hold an index above 256.

    Args:
        levels: Levels of each scalar, at least 3, because the offset that centres an even grid is infinite for 2.
            Recommended are [8, 6, 5] (240 codes), [8, 5, 5, 5] (1,000), [7, 5, 5, 5, 5] (4,375) and
            [8, 8, 8, 5, 5, 5] (64,000).
        bound: ``tanh``, or ``ifsq`` for 2 sigmoid(1.6 z) - 1, which makes a standard normal z nearly uniform before it
            is rounded.

    Raises:
        ValueError: A level is below 3, there is no level, the codebook exceeds 2^20 codes, or the bound is unknown.

    Example:
        >>> fsq = FSQ([3, 3])
        >>> fsq(torch.zeros(1, 2, 1, 1)).indices
        tensor([[[4]]])

    Reference:
        Mentzer et al., "Finite Scalar Quantization: VQ-VAE Made Simple", ICLR 2024, arXiv 2309.15505.
    """

    _levels: Tensor
    _half: Tensor
    _basis: Tensor

    @checked
    def __init__(
        self,
        levels: Annotated[Sequence[Annotated[int, Field(ge=3)]], Field(min_length=1)],
        *,
        bound: Literal["tanh", "ifsq"] = "tanh",
    ) -> None:
        super().__init__()
        levels = list(levels)
        if math.prod(levels) > _MOST_CODES:
            raise ValueError(f"levels: {levels} make {math.prod(levels)} codes; at most 2^20 are supported")
        self.levels, self.slope = levels, _SLOPES[bound]
        self.dim, self.codebook_size = len(levels), math.prod(levels)
        # These are integers, which a cast of the model to half precision leaves alone.
        count = torch.tensor(levels).view(1, -1, 1, 1)
        basis = torch.tensor([math.prod(levels[:i]) for i in range(len(levels))]).view(1, -1, 1, 1)
        self.register_buffer("_levels", count, persistent=False)
        self.register_buffer("_half", count // 2, persistent=False)
        self.register_buffer("_basis", basis, persistent=False)

    def bound(self, z: Tensor) -> Tensor:
        """Map real scalars to the open interval that rounds to L_i integers (L_i + 1 from 1,001 on), and 0 to 0."""
        half = (self._levels - 1).to(z) * (1 + 1e-3) / 2
        offset = torch.where(self._levels % 2 == 0, 0.5, 0.0).to(z)
        shift = torch.atanh(offset / half) / self.slope  # the inverse of the same function
        return torch.tanh(self.slope * (z + shift)) * half - offset

    def forward(self, z: Tensor) -> Quantized:
        """Quantise ``z``; ``codes`` lie in [-1, 1], for even L_i in [-1, 1 - 2 / L_i]."""
        with torch.autocast(z.device.type, enabled=False):
            bounded = self.bound(z.float())
            # From 1,001 levels on, the margin of the bound rounds to one integer more.
            rounded = torch.minimum(torch.maximum(bounded.round(), -self._half), self._levels - 1 - self._half)
            codes = (bounded + (rounded - bounded).detach()) / self._half
            # Integers first, then the sum, because a float sum would lose the last digits of a large codebook.
            indices = ((rounded + self._half).long() * self._basis).sum(1)
            return Quantized(codes, indices, codes.new_zeros(()))

    def decode(self, indices: Tensor) -> Tensor:
        """The codes ``(N, dim, H, W)``, float32, of indices ``(N, H, W)``, int64.

        Raises:
            ValueError: An index is outside [0, codebook_size).
        """
        if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < self.codebook_size:
            raise ValueError(f"expected indices in [0, {self.codebook_size}), got {indices.min()} to {indices.max()}")
        digits = (indices.unsqueeze(1) // self._basis) % self._levels
        return (digits - self._half) / self._half

    def level_histogram(self, count: Tensor) -> list[list[float]]:
        """The share of each level of each scalar.

        Args:
            count: ``(codebook_size,)``, occurrences of each code.

        Returns:
            A list per scalar, with a share per level, from the lowest level on; NaN if nothing was counted.

        Example:
            >>> FSQ([3, 4]).level_histogram(torch.tensor([2, 0, 1] + [0] * 8 + [1]))
            [[0.5, 0.0, 0.5], [0.75, 0.0, 0.0, 0.25]]
        """
        # The index of the first scalar runs fastest.
        grid = (count.double() / count.sum()).reshape(self.levels[::-1])
        axes = range(len(self.levels))
        # movedim, because torch takes a sum over no axes for a sum over all.
        return [grid.movedim(len(axes) - 1 - i, 0).reshape(self.levels[i], -1).sum(1).tolist() for i in axes]


class VQ(nn.Module):
    """Vector quantisation, the baseline of FSQ, with an exponential-moving-average codebook and revival of dead codes.

    It wraps ``vector_quantize_pytorch.VectorQuantize``. K-means on the first batch initialises the codebook.

    Args:
        codebook_size: Number of vectors, up to 2^20.
        dim: Length of a vector.
        decay: Decay of the moving average, in [0, 1).
        commitment_weight: Weight of the commitment loss, at least 0.
        dead_code_threshold: A vector with fewer hits per batch than this (moving average) is replaced by a random
            encoding of the batch.
    """

    capturable = False  # the library reads on the CPU whether the codebook is initialised, and which codes are dead

    @checked
    def __init__(
        self,
        *,
        codebook_size: Annotated[int, Field(ge=1, le=_MOST_CODES)],
        dim: Dim,
        decay: Annotated[float, Field(ge=0, lt=1)],
        commitment_weight: Weight,
        dead_code_threshold: Weight,
    ) -> None:
        super().__init__()
        from vector_quantize_pytorch import VectorQuantize  # here, because only quantizer=vq needs these 2 s of imports

        self.dim, self.codebook_size = dim, codebook_size
        self._make = partial(
            VectorQuantize,
            dim=dim,
            codebook_size=codebook_size,
            decay=decay,
            commitment_weight=commitment_weight,
            threshold_ema_dead_code=dead_code_threshold,
            kmeans_init=True,
            rotation_trick=False,  # the gradient is straight-through, as for the other quantisers
            accept_image_fmap=True,
        )
        self.vq = self._make()

    def synchronise(self) -> None:
        """Share the statistics of the codes between processes, which the library offers only at construction."""
        state = self.vq.state_dict()
        self.vq = self._make(sync_codebook=True)
        self.vq.load_state_dict(state)

    def forward(self, z: Tensor) -> Quantized:
        """Replace each vector of ``z`` by the nearest code."""
        if self.training:
            codes, indices, loss = self.vq(z.float())
            return Quantized(codes, indices, loss.sum())
        # Written out, because the library's initialisation of the codebook cannot be exported.
        codebook = self.vq.codebook.float()
        parts = z.float().flatten(2).transpose(1, 2).split(max(1, _DISTANCES // self.codebook_size), dim=1)
        with torch.autocast(z.device.type, enabled=False):
            nearest = [(codebook.square().sum(1) - 2 * part @ codebook.T).argmin(-1) for part in parts]
        indices = torch.cat(nearest, 1).unflatten(1, z.shape[-2:])
        return Quantized(codebook[indices].movedim(-1, 1), indices, z.new_zeros(()))


class NoQuantizer(nn.Module):
    """The ablation of the bottleneck: ``z`` is bounded by tanh as for FSQ, and not quantised.

    Args:
        dim: Scalars per cell.
    """

    codebook_size = 0

    @checked
    def __init__(self, *, dim: Dim) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, z: Tensor) -> Quantized:
        """Bound ``z``, without indices and loss."""
        return Quantized(torch.tanh(z), None, z.new_zeros(()))


def codebook_statistics(count: Tensor) -> tuple[float, float]:
    """Share of the codes that occur, and perplexity of their frequencies.

    Args:
        count: ``(codebook_size,)``, occurrences of each code.

    Returns:
        Usage in (0, 1] and perplexity in [1, codebook_size], which is near 1 for a collapsed codebook. Both are NaN if
        nothing was counted.

    Example:
        >>> codebook_statistics(torch.tensor([8, 8, 0, 0]))
        (0.5, 2.0)
    """
    if not count.any():
        return math.nan, math.nan
    p = count.double() / count.sum()
    return float((count > 0).double().mean()), round(math.exp(float(torch.special.entr(p).sum())), 9)


def chosen_by(target: str) -> str:
    """The word after ``quantizer=`` that chooses a class.

    Example:
        >>> chosen_by("squad_lit.network.quantizer.FSQ"), chosen_by("squad_lit.network.quantizer.NoQuantizer")
        ('fsq', 'none')
    """
    name = target.rpartition(".")[2]
    return "none" if name == NoQuantizer.__name__ else name.lower()
