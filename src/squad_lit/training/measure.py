"""What SQUAD measures on validation images beside its maps: what it rebuilds, what it copies, and its codes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from squad_lit.network import loss as losses
from squad_lit.network.backbone import cells_inside
from squad_lit.network.generator import Generator
from squad_lit.network.quantizer import codebook_statistics
from squad_lit.training.calibration import Measure
from squad_lit.training.distributed import total
from squad_lit.training.forward import ForwardOutput


class ReconstructionMeasure(Measure):
    """Copy ratio and feature error of each group, and how much of its codebook is in use.

    Args:
        generator: The generator of the model.
        features: Features of normal images, in chunks ``{group: (N, C, H, W)}``, whose codes are counted.
        inside: ``(T, 1, H, W)``, 1 where each of T tiles of an image counts; None: everywhere.
    """

    def __init__(
        self, generator: Generator, features: Iterable[Mapping[str, Tensor]], inside: Tensor | None = None
    ) -> None:
        self.generator, self.features, self.inside = generator, features, inside
        device = next(generator.parameters()).device
        self._copied: dict[str, list[Tensor]] = {g: [torch.zeros(2, device=device)] for g in generator.groups}
        self._error: dict[str, list[Tensor]] = {g: [torch.zeros(0, device=device)] for g in generator.groups}

    def observe(self, output: ForwardOutput) -> None:
        assert output.recon is not None
        for group, features in output.features.items():
            error = (features - output.recon.feature_recon[group]).square().mean(1)
            if self.inside is None:
                self._error[group].append(error.mean((1, 2)))
                continue
            inside = cells_inside(self.inside, error.shape[-2:])
            counted = error.unflatten(0, (-1, len(inside))) * inside
            self._error[group].append(counted.sum((1, 2, 3)) / inside.sum().clamp_min(1))

    def compare(self, corrupted: ForwardOutput, clean: Mapping[str, Tensor], mask: Tensor) -> None:
        assert corrupted.recon is not None
        for group, features in corrupted.features.items():
            inside = F.adaptive_max_pool2d(mask, features.shape[-2:])
            recon = corrupted.recon.feature_recon[group]
            self._copied[group].append(losses.copied(features, clean[group], recon, inside))

    def compute(self) -> dict[str, Any]:
        figures: dict[str, Any] = {}
        for group in self.generator.groups:
            kept, made = total(torch.stack(self._copied[group]).sum(0))
            error = torch.cat(self._error[group])
            mean, count = total(torch.stack([error.sum(), error.new_tensor(len(error))]))
            figures |= {f"copy_ratio/{group}": float(kept / made), f"feature_error/{group}": float(mean / count)}
        for group, count in self._count_codes().items():
            usage, perplexity = codebook_statistics(count)
            figures |= {f"codebook_usage/{group}": usage, f"perplexity/{group}": perplexity}
            if histogram := getattr(self.generator.quantizer[group], "level_histogram", None):
                figures[f"level_histogram/{group}"] = histogram(count)
        return figures

    def _count_codes(self) -> dict[str, Tensor]:
        """How often each code of each group with a codebook occurs in the features."""
        device = next(self.generator.parameters()).device
        sizes = {group: size for group, size in self.generator.codebook_sizes.items() if size}
        counts = {group: torch.zeros(size, dtype=torch.long, device=device) for group, size in sizes.items()}
        for features in self.features:
            encoded = self.generator.encode({group: f.to(device) for group, f in features.items()})
            for group, quantized in encoded.items():
                if quantized.indices is not None:
                    counts[group] += torch.bincount(quantized.indices.flatten(), minlength=sizes[group])
        return {group: total(count) for group, count in counts.items()}
