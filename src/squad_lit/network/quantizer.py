"""Quantisers of a feature map, under one contract: ``quantizer(z) -> Quantized(codes, indices, loss)``.

``z`` is ``(N, dim, H, W)``. ``codes`` has its shape and carries the straight-through gradient. ``indices`` is
``(N, H, W)`` int64, or None where there is no code. ``loss`` is a scalar. ``dim`` and ``codebook_size`` are attributes
(``codebook_size`` is 0 without a codebook).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from squad_lit.system.option import Count, Weight, checked

# Of tanh(slope z), by the name of the bound. 2 sigmoid(1.6 z) - 1 is tanh(0.8 z).
_SLOPES = {"tanh": 1.0, "ifsq": 0.8}


class Quantized(NamedTuple):
    """What every quantiser returns; see the module's docstring."""

    codes: Tensor
    indices: Tensor | None
    loss: Tensor


# A run counts how often each code occurs.
_MOST_CODES = 2**20
# Between cells of an image and the codes of VQ, held at a time: 32 MB an image.
_DISTANCES = 2**23


class FSQ(nn.Module):
    """Finite scalar quantisation: each of d scalars is bounded, then rounded to one of L_i levels.

    There is no codebook to learn, hence no codebook, commitment or entropy loss: two
    levels that are neighbours are similar. Everything is computed in float32, whatever the
    type of the model or of autocast, because bfloat16 cannot hold an index above 256.

    Args:
        levels: Levels of each scalar, each at least 3. Recommended: [8, 6, 5] (240 codes), [8, 5, 5, 5] (1,000),
            [7, 5, 5, 5, 5] (4,375), [8, 8, 8, 5, 5, 5] (64,000).
        bound: ``tanh``, or ``ifsq``: 2 sigmoid(1.6 z) - 1, which makes a standard normal z nearly uniform before it is
            rounded.

    Raises:
        ValueError: A level below 3 (for 2 levels the offset that centres an even grid is infinite), no level at all, a
            codebook above 2^20, or an unknown bound.

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
        # Whole numbers, which stay what they are in a model that is cast to half precision.
        count = torch.tensor(levels).view(1, -1, 1, 1)
        basis = torch.tensor([math.prod(levels[:i]) for i in range(len(levels))]).view(1, -1, 1, 1)
        self.register_buffer("_levels", count, persistent=False)
        self.register_buffer("_half", count // 2, persistent=False)
        self.register_buffer("_basis", basis, persistent=False)

    def bound(self, z: Tensor) -> Tensor:
        """Map real scalars to the open interval whose rounding gives L_i integers (L_i + 1 from 1,001 on); 0 to 0."""
        half = (self._levels - 1).to(z) * (1 + 1e-3) / 2
        offset = torch.where(self._levels % 2 == 0, 0.5, 0.0).to(z)
        shift = torch.atanh(offset / half) / self.slope  # the inverse of the same function
        return torch.tanh(self.slope * (z + shift)) * half - offset

    def forward(self, z: Tensor) -> Quantized:
        """Quantise ``z``; ``codes`` lie in [-1, 1], for even L_i in [-1, 1 - 2 / L_i]."""
        with torch.autocast(z.device.type, enabled=False):
            bounded = self.bound(z.float())
            # From 1,001 levels on the bound's margin rounds to one more.
            rounded = torch.minimum(torch.maximum(bounded.round(), -self._half), self._levels - 1 - self._half)
            codes = (bounded + (rounded - bounded).detach()) / self._half
            return Quantized(codes, self._index(rounded), codes.new_zeros(()))

    def decode(self, indices: Tensor) -> Tensor:
        """Codes of indices.

        Args:
            indices: ``(N, H, W)`` int64 in [0, codebook_size).

        Returns:
            ``(N, dim, H, W)`` float32.

        Raises:
            ValueError: An index out of range.
        """
        if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < self.codebook_size:
            raise ValueError(f"expected indices in [0, {self.codebook_size}), got {indices.min()} to {indices.max()}")
        digits = (indices.unsqueeze(1) // self._basis) % self._levels
        return (digits - self._half) / self._half

    def level_histogram(self, count: Tensor) -> list[list[float]]:
        """How often each level of each scalar occurs.

        Args:
            count: ``(codebook_size,)`` occurrences of each code.

        Returns:
            A list for each scalar: a share for each of its levels, from the lowest on; NaN if nothing was counted.

        Example:
            >>> FSQ([3, 4]).level_histogram(torch.tensor([2, 0, 1] + [0] * 8 + [1]))
            [[0.5, 0.0, 0.5], [0.75, 0.0, 0.0, 0.25]]
        """
        # The first scalar's index runs fastest.
        grid = (count.double() / count.sum()).reshape(self.levels[::-1])
        axes = range(len(self.levels))
        # movedim, not sum over the other axes: of none torch would sum over all.
        return [grid.movedim(len(axes) - 1 - i, 0).reshape(self.levels[i], -1).sum(1).tolist() for i in axes]

    def _index(self, rounded: Tensor) -> Tensor:
        # Whole numbers first, then the sum: a float sum would lose the last digits of a large codebook.
        return ((rounded + self._half).long() * self._basis).sum(1)


class VQ(nn.Module):
    """Vector quantisation with an exponential-moving-average codebook and revival of dead codes: the comparison.

    A thin wrapper of ``vector_quantize_pytorch.VectorQuantize``; the codebook is initialised by k-means on the first
    batch.

    Args:
        codebook_size: Number of vectors.
        dim: Length of a vector.
        decay: Of the moving average.
        commitment_weight: Weight of the commitment loss.
        dead_code_threshold: A vector that is hit less often than this (moving average per batch) is replaced by a
            random encoding of the batch.

    Raises:
        ValueError: A size below 1, a decay outside [0, 1), or a negative weight or threshold.
    """

    @checked
    def __init__(
        self,
        *,
        codebook_size: Annotated[int, Field(ge=1, le=_MOST_CODES)],
        dim: Count,
        decay: Annotated[float, Field(ge=0, lt=1)],
        commitment_weight: Weight,
        dead_code_threshold: Weight,
    ) -> None:
        super().__init__()
        from vector_quantize_pytorch import VectorQuantize  # lazy: 2 s of imports that only quantizer=vq needs

        self.dim, self.codebook_size = dim, codebook_size
        self._make = partial(
            VectorQuantize,
            dim=dim,
            codebook_size=codebook_size,
            decay=decay,
            commitment_weight=commitment_weight,
            threshold_ema_dead_code=dead_code_threshold,
            kmeans_init=True,
            rotation_trick=False,  # the library's default; here the gradient is the same for all quantisers
            accept_image_fmap=True,
        )
        self.vq = self._make()

    def synchronise(self) -> None:
        """Let all processes share the statistics of the codes: the library asks for them when it is constructed."""
        state = self.vq.state_dict()
        self.vq = self._make(sync_codebook=True)
        self.vq.load_state_dict(state)

    def forward(self, z: Tensor) -> Quantized:
        """Replace each vector of ``z`` by its nearest code."""
        if self.training:
            codes, indices, loss = self.vq(z.float())
            return Quantized(codes, indices, loss.sum())
        # Written out: how the library comes to its first codes cannot be exported.
        codebook = self.vq.codebook.float()
        parts = z.float().flatten(2).transpose(1, 2).split(max(1, _DISTANCES // self.codebook_size), dim=1)
        with torch.autocast(z.device.type, enabled=False):
            nearest = [(codebook.square().sum(1) - 2 * part @ codebook.T).argmin(-1) for part in parts]
        indices = torch.cat(nearest, 1).unflatten(1, z.shape[-2:])
        return Quantized(codebook[indices].movedim(-1, 1), indices, z.new_zeros(()))


class NoQuantizer(nn.Module):
    """No quantisation: ``z`` passes through, bounded by tanh as for FSQ. The ablation of the bottleneck.

    Args:
        dim: Scalars of a cell.

    Raises:
        ValueError: ``dim`` below 1.
    """

    codebook_size = 0

    @checked
    def __init__(self, *, dim: Count) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, z: Tensor) -> Quantized:
        """Bound ``z``; there are no indices and no loss."""
        return Quantized(torch.tanh(z), None, z.new_zeros(()))


def codebook_statistics(count: Tensor) -> tuple[float, float]:
    """Share of the codes that occur, and perplexity of their frequencies.

    Args:
        count: ``(codebook_size,)`` occurrences of each code.

    Returns:
        Usage in (0, 1] and perplexity in [1, codebook_size]; a perplexity near 1 is a collapsed codebook. Both are NaN
        if nothing was counted.

    Example:
        >>> codebook_statistics(torch.tensor([8, 8, 0, 0]))
        (0.5, 2.0)
    """
    if not count.any():
        return math.nan, math.nan
    p = count.double() / count.sum()
    entropy = -(p * p.clamp_min(1e-300).log()).sum()
    return float((count > 0).double().mean()), round(math.exp(float(entropy)), 9)


def chosen_by(target: str) -> str:
    """The word after ``quantizer=`` that chooses a class.

    Example:
        >>> chosen_by("squad_lit.network.quantizer.FSQ"), chosen_by("squad_lit.network.quantizer.NoQuantizer")
        ('fsq', 'none')
    """
    name = target.rpartition(".")[2]
    return "none" if name == NoQuantizer.__name__ else name.lower()
