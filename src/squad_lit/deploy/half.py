"""The networks of a model in 16-bit floats, for an exported file."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map


def halve(module: nn.Module) -> nn.Module:
    """A copy of an :class:`squad_lit.deploy.pixel_model.Inference` whose networks compute in 16-bit floats.

    These are the backbone, the encoders and decoders of the generator, and the discriminator. Codes, distances, maps
    and the score stay in 32 bits: a small distance is the difference of large numbers, and few digits would tie scores.

    Args:
        module: The model in 32-bit floats, which is left as it is.
    """
    module = copy.deepcopy(module)
    detector: Any = module.detector
    networks = [detector.backbone, getattr(detector, "segmentation", None)]
    if (generator := getattr(detector, "generator", None)) is not None:
        networks += [*generator.encoder.values(), *generator.decoder.values()]
    for network in networks:
        if network is not None:
            network.half()
            network.register_forward_pre_hook(lambda _, given: tree_map(_to_half, given))
            network.register_forward_hook(lambda _, given, found: tree_map(_to_float, found))
    return module


def _to_half(value: Any) -> Any:
    return value.half() if isinstance(value, Tensor) and value.is_floating_point() else value


def _to_float(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype == torch.float16 else value
