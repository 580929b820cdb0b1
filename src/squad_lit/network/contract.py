"""What a network of your own must offer to take the place of ours.

A configuration names its class, which inherits from ``torch.nn.Module`` and from nothing here.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from squad_lit.network.quantizer import Quantized


@runtime_checkable
class FeatureExtractor(Protocol):
    """A frozen backbone, made from ``groups``: ``backbone``."""

    groups: Mapping[str, Sequence[int]]
    """Layers of each group of features."""
    channels: Mapping[str, int]
    """Channels of each group."""
    stride: Mapping[str, int]
    """Pixels per cell of each group."""

    def __call__(self, image: Tensor) -> dict[str, Tensor]:
        """Images ``(N, 3, H, W)`` in [0, 1] to features ``{group: (N, C, H / stride, W / stride)}``, no gradient."""
        ...

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Learn from batches of normal training images, such as a scale; this is called once, before the training.

        With ``dataset.roi`` it is given one more argument, ``(T, 1, H, W)``: 1 where each of T tiles, which come in
        turn, counts.
        """
        ...


@runtime_checkable
class Quantizer(Protocol):
    """A quantiser of one group of features, made without arguments: ``model.generator.quantizer``.

    Two methods are optional. ``level_histogram(count) -> list[list[float]]`` gives the share of each level of each
    scalar, from the occurrences ``(codebook_size,)`` of each code. ``synchronise()`` is called once if several
    processes train together. An optional attribute ``capturable = False`` says that the quantiser waits for the GPU in
    a training, as ``Tensor.item()`` does, so that no CUDA graph is made of a step.
    """

    dim: int
    """Scalars per cell."""
    codebook_size: int
    """Number of codes; 0 without a codebook."""

    def __call__(self, z: Tensor) -> Quantized:
        """Quantise ``(N, dim, H, W)``.

        Returns:
            ``codes`` of the same shape, with a gradient to ``z``; ``indices`` ``(N, H, W)`` int64 in [0,
            codebook_size), or None; ``loss``, a scalar that is added to the generator's.
        """
        ...


@runtime_checkable
class Segmentation(Protocol):
    """A discriminator of synthetic anomalies, made from ``channels``: ``discriminator.segmentation``."""

    def __call__(self, features: Mapping[str, Tensor], feature_recon: Mapping[str, Tensor]) -> Tensor:
        """Features ``{group: (N, C, H, W)}`` and their reconstruction to logits ``(N, 1, h, w)`` of any grid.

        Beside the backbone's groups, a model with a memory of patches gives the group ``memory`` of one channel, the
        distance to the nearest patch, with a reconstruction of 0.
        """
        ...


@runtime_checkable
class ImageJudge(Protocol):
    """A discriminator of real and reconstructed images: ``discriminator.patch``.

    An optional attribute ``layers`` says how often it halves the sides, so that too small images are refused in words.
    """

    def __call__(self, image: Tensor) -> Tensor:
        """Images ``(N, 3, H, W)`` in [0, 1] to logits of "real", of any shape."""
        ...
