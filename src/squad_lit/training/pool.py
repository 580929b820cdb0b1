"""Training batches from cached features.

The backbone is frozen, so the features of an image are computed once and not once a step. The pool holds clean views of
the normal training images and, beside them, synthetic anomalies made from those views. The anomalies are drawn anew at
fixed step numbers. Every batch is a function of (seed, step) alone: a resumed run continues exactly.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from squad_lit.image.tile import Grid
from squad_lit.network.contract import FeatureExtractor
from squad_lit.synthesis.contract import ImageSynthesis, View
from squad_lit.system.option import Count, checked

# Images that pass the backbone at once.
_CHUNK = 16
# Normal images of its category that a synthetic anomaly may take a part from.
_OTHERS = 2


class FeaturePool:
    """Cached features of clean views and of synthetic anomalies.

    Args:
        views: Views of each image, the plain one included; of an image of T tiles, T times as many views of a tile's
            size, its plain tiles included.
        clean_limit: Most clean views held at a time; a larger data set is sampled anew at each refresh.
        synthetic: Synthetic anomalies drawn at each refresh.
        refresh_every: Steps between refreshes.
        augmentation: Makes the views.
        synthesis: Makes the anomalies.

    Raises:
        ValueError: A number that is not whole, or below 1.
    """

    @checked
    def __init__(
        self,
        *,
        views: Count,
        clean_limit: Count,
        synthetic: Count,
        refresh_every: Count,
        augmentation: View,
        synthesis: ImageSynthesis,
    ) -> None:
        self.views, self.clean_limit = views, clean_limit
        self.synthetic, self.refresh_every = synthetic, refresh_every
        self.augmentation, self.synthesis = augmentation, synthesis
        self._period = -1
        self._slots: list[tuple[int, int]] = []
        self._clean: dict[str, Tensor] = {}

    def attach(
        self,
        dataset: Dataset[Any],
        backbone: FeatureExtractor,
        grid: Grid,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        show: bool = False,
    ) -> None:
        """Say what the pool is filled from; nothing is computed yet.

        Args:
            dataset: Items with ``image`` (3, H, W) in [0, 1] and ``category``; normal images only.
            backbone: On the device that is to compute.
            grid: The tiles of an image; views have their size.
            seed: Of views, anomalies and the order of batches.
            device: Where the backbone is.
            show: Show a progress bar while the pool is filled.
        """
        self._dataset, self._backbone, self._grid, self._seed, self._show = dataset, backbone, grid, seed, show
        self._device = device
        self._period, self._slots, self._clean = -1, [], {}

    def advance(self, step: int) -> None:
        """Fill or refresh the pool if ``step`` belongs to another period than the one it holds."""
        period = step // self.refresh_every
        if period == self._period:
            return
        self._period = period
        slots = self._draw_slots(period)
        if slots != self._slots:
            self._slots = slots
            self._clean.clear()  # before there are others; and if the filling is interrupted, there are none
            self._fill_clean()
        self._fill_synthetic(period)

    def batch(self, step: int, *, clean: int, synthetic: int) -> dict[str, Any]:
        """The training batch of a step, on the CPU.

        Args:
            step: Number of the step; :meth:`advance` was called for it.
            clean: Clean views in the batch; they come first.
            synthetic: Synthetic anomalies.

        Returns:
            ``features``: ``{group: (N, C, H, W)}`` as seen by the generator, ``target``: the same of the clean image,
            ``image``: the clean image ``(N, 3, H, W)`` in [0, 1], ``mask``: ``(N, 1, H, W)`` float, zero for clean
            views.
        """
        first = step % self.refresh_every
        left = self._order(0, first * clean, clean, len(self._slots))
        right = self._order(1, first * synthetic, synthetic, self.synthetic)
        source = torch.cat([left, self._source[right]])
        target = {g: f[source].float() for g, f in self._clean.items()}
        return {
            "features": {g: torch.cat([target[g][: len(left)], f[right].float()]) for g, f in self._corrupted.items()},
            "target": target,
            "image": self._image[source].float() / 255,
            "mask": torch.cat([self._mask.new_zeros(len(left), *self._mask.shape[1:]), self._mask[right]]).float(),
        }

    def plain_features(self) -> Iterator[dict[str, Tensor]]:
        """The features of the unaugmented views held, in chunks ``{group: (N, C, H, W)}``."""
        if not self._clean:
            return
        plain = torch.tensor([i for i, (_, view) in enumerate(self._slots) if view < len(self._grid)], dtype=torch.long)
        for index in plain.split(_CHUNK):
            yield {group: f[index].float() for group, f in self._clean.items()}

    def _draw_slots(self, period: int) -> list[tuple[int, int]]:
        """The (image, view) of each clean slot: all of them if they fit, else a draw of this period."""
        count = len(self._dataset)  # type: ignore[arg-type]
        slots = [(image, view) for view in range(self.views * len(self._grid)) for image in range(count)]
        if len(slots) <= self.clean_limit:
            return slots
        draw = np.random.default_rng([self._seed, 1, period]).permutation(len(slots))[: self.clean_limit]
        return [slots[i] for i in sorted(draw)]

    def _fill_clean(self) -> None:
        def view_of(number: int) -> Tensor:
            index, view = self._slots[number]
            item = self._dataset[index]
            if view < len(self._grid):
                image: Tensor = item["image"][:, *self._grid.windows[view]].contiguous()  # the large image may go
            else:
                window = self._grid.draw(np.random.default_rng([self._seed, 7, index, view]))
                image = self.augmentation(item["image"], np.random.default_rng([self._seed, 2, index, view]), window)
            self._image[number] = (image * 255).round().to(torch.uint8)
            self._category[number] = item["category"]
            return image

        self._image = torch.empty(len(self._slots), 3, *self._grid.tile, dtype=torch.uint8)
        self._category = [""] * len(self._slots)
        self._clean = self._compute("clean views", view_of, len(self._slots))
        self._kin = {name: np.flatnonzero(np.array(self._category) == name) for name in set(self._category)}

    def _fill_synthetic(self, period: int) -> None:
        self._source = self._order(2, period * self.synthetic, self.synthetic, len(self._slots))
        self._mask = torch.empty(self.synthetic, 1, *self._image.shape[-2:], dtype=torch.bool)

        def corrupted(number: int) -> Tensor:
            slot = int(self._source[number])
            rng = np.random.default_rng([self._seed, 3, period, number])
            kin = self._kin[self._category[slot]]
            image, *others = (_to_array(self._image[i]) for i in [slot, *rng.choice(kin, _OTHERS)])
            changed, mask = self.synthesis(image, others, rng)
            self._mask[number, 0] = torch.from_numpy(mask)
            return torch.from_numpy(changed).permute(2, 0, 1)

        self._corrupted = self._compute("synthetic anomalies", corrupted, self.synthetic)

    def _compute(self, what: str, make: Callable[[int], Tensor], total: int) -> dict[str, Tensor]:
        """Half-precision features of many images; only a chunk of images is held at a time."""
        out: dict[str, Tensor] = {}
        with tqdm(total=total, desc=what, unit="image", leave=False, disable=not self._show) as bar:
            for start, chunk in zip(range(0, total, _CHUNK), chunks_ahead(make, total), strict=True):
                for group, f in self._backbone(chunk.to(self._device)).items():
                    if group not in out:
                        out[group] = torch.empty(total, *f.shape[1:], dtype=torch.float16)
                    out[group][start : start + len(f)] = f.cpu()
                bar.update(len(chunk))
        return out

    def _order(self, stream: int, start: int, count: int, size: int) -> Tensor:
        """Positions ``start`` to ``start + count`` of an endless series of permutations of ``range(size)``."""
        at = np.arange(start, start + count)
        rounds = {
            int(r): np.random.default_rng([self._seed, 4 + stream, self._period, int(r)]).permutation(size)
            for r in np.unique(at // size)
        }
        # The type is said, because of an empty list torch makes floats: a batch may have no clean or no synthetic part.
        return torch.tensor([int(rounds[int(i) // size][int(i) % size]) for i in at], dtype=torch.long)


def _to_array(image: Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
    """``(3, H, W)`` uint8 to ``(H, W, 3)`` float32 in [0, 1]."""
    return (image.permute(1, 2, 0).numpy() / np.float32(255)).astype(np.float32)


def chunks_ahead(make: Callable[[int], Tensor], total: int) -> Iterator[Tensor]:
    """``make(0)`` to ``make(total - 1)``, in order, made in threads while the caller is busy with those before.

    Reading, decoding and resizing release Python's lock. They get half of the threads of torch and the backbone the
    rest; at most two chunks are in memory.

    Returns:
        The images ``(3, H, W)``, stacked by 16 and a last rest.
    """
    count = max(1, torch.get_num_threads() // 2)
    with ThreadPoolExecutor(count) as threads:
        coming: deque[Future[Tensor]] = deque()
        numbers = iter(range(total))
        for size in (min(_CHUNK, total - start) for start in range(0, total, _CHUNK)):
            coming.extend(threads.submit(make, number) for number in islice(numbers, 2 * _CHUNK - len(coming)))
            yield torch.stack([coming.popleft().result() for _ in range(size)])
