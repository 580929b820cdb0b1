"""The synthetic anomalies of a training, and known defects among them, by number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from squad_lit.synthesis.contract import ImageSynthesis, corrupt
from squad_lit.training.known import SYNTHETIC, Anomalous, KnownDefects, all_of, to_array

# Normal images of its category that a synthetic anomaly may take a part from.
_OTHERS = 2
# Streams of random numbers, beside the seed; training/pool.py has others.
_ANOMALY, _ORDER = 3, 4


class Anomalies(Dataset[Anomalous]):
    """Synthetic anomalies by number: number i of a period p is ``p * drawn + i``, a function of the seed alone."""

    def __init__(
        self,
        images: Tensor,
        category: Sequence[str],
        drawn: int,
        seed: int,
        synthesis: ImageSynthesis,
        defects: KnownDefects | None,
        inside: Tensor | None,
    ) -> None:
        self.images, self.category, self.drawn, self.seed, self.synthesis = images, category, drawn, seed, synthesis
        self.defects, self.inside = defects, inside
        self.kin = {name: np.flatnonzero(np.array(category) == name) for name in set(category)}

    def source(self, period: int, number: int) -> int:
        """The clean view that an anomaly is made from."""
        turn, place = divmod(period * self.drawn + number, len(self.images))
        return int(permutation(self.seed, 2, period, turn, len(self.images))[place])

    def __getitem__(self, at: int) -> Anomalous:
        period, number = divmod(at, self.drawn)
        slot = self.source(period, number)
        inside = None if self.inside is None else self.inside[slot]
        if self.defects is not None and (
            known := self.defects.draw(to_array(self.images[slot]), inside, period, number)
        ):
            return known
        rng = np.random.default_rng([self.seed, _ANOMALY, period, number])
        image, *others = (to_array(self.images[i]) for i in [slot, *rng.choice(self.kin[self.category[slot]], _OTHERS)])
        changed, mask = corrupt(self.synthesis, image, others, rng, None if inside is None else inside.numpy())
        return torch.from_numpy(changed).permute(2, 0, 1), torch.from_numpy(mask), SYNTHETIC, all_of(inside)


def permutation(seed: int, stream: int, period: int, turn: int, size: int) -> NDArray[np.int64]:
    """An order of numbers below ``size``, a function of the other arguments alone."""
    return np.random.default_rng([seed, _ORDER + stream, period, turn]).permutation(size)
