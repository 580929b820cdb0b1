"""Training batches from cached features.

The backbone is frozen, so the features of an image are computed once and not at each step. The pool holds clean views
of the normal training images and, beside them, synthetic anomalies made from those views. The anomalies are drawn anew
at fixed step numbers. Every batch is a function of (seed, step) alone, so a resumed run continues exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import count, islice
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from squad_lit.dataset.sample import AnomalyDataset
from squad_lit.image.tile import Grid
from squad_lit.network.contract import FeatureExtractor
from squad_lit.synthesis.contract import ImageSynthesis, View
from squad_lit.system.memory import free_memory
from squad_lit.system.option import Count, Processes, Share, checked
from squad_lit.system.progress import progress
from squad_lit.training.anomalies import Anomalies, permutation
from squad_lit.training.chunk import CPU_CHUNK, chunk_size, chunks_ahead, one_thread
from squad_lit.training.known import KnownDefects, moved, without_unknown

# Streams of random numbers, beside the seed.
_SLOTS, _VIEW, _WINDOW = 1, 2, 7  # 3, 4: training/anomalies.py

Batch = dict[str, Any]


class FeaturePool:
    """Cached features of clean views and of synthetic anomalies.

    Features and images lie on the device that trains, if they fit into half of its free memory, and in pinned memory
    otherwise.

    Args:
        views: Views of each image, the plain one included; of an image of T tiles, T times as many views of a tile's
            size, its plain tiles included.
        clean_limit: Most clean views held at a time; a larger data set is sampled anew at each refresh.
        synthetic: Synthetic anomalies drawn at each refresh.
        refresh_every: Steps between refreshes.
        augmentation: Makes the views.
        synthesis: Makes the anomalies.
        known: Share of the anomalies that are made of known defects, if there are any: half of those with a mask are
            pasted on normal images, and the others are the images themselves, augmented.
        workers: Processes that make the anomalies of the next period while this one trains; 0: threads make them at
            the refresh. None: on a GPU one process less than torch has threads, else 0. The anomalies are the same.

    Raises:
        ValueError: A number that is not whole, or below its least value.
    """

    @checked
    def __init__(
        self,
        *,
        views: Annotated[int, Field(ge=1, le=1000)],
        clean_limit: Count,
        synthetic: Annotated[int, Field(ge=1, le=10**6)],
        refresh_every: Count,
        augmentation: View,
        synthesis: ImageSynthesis,
        known: Share = 0.0,
        workers: Processes | None = None,
    ) -> None:
        self.known = known
        self.views, self.clean_limit = views, clean_limit
        self.synthetic, self.refresh_every, self.workers = synthetic, refresh_every, workers
        self.augmentation, self.synthesis = augmentation, synthesis
        self._period = -1
        self._slots: list[tuple[int, int]] = []
        self._clean: dict[str, Tensor] = {}
        self._coming: Iterator[Any] | None = None

    def attach(
        self,
        dataset: Dataset[Any],
        backbone: FeatureExtractor,
        grid: Grid,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        processes: int = 1,
        show: bool = False,
        known: AnomalyDataset | None = None,
        roi: Tensor | None = None,
        beside: Callable[[dict[str, Tensor], Tensor], dict[str, Tensor]] = lambda features, images: {},
    ) -> None:
        """Say what the pool is filled from; nothing is computed yet.

        Args:
            dataset: Items with ``image`` (3, H, W) in [0, 1] and ``category``; normal images only.
            backbone: On the device that is to compute.
            grid: The tiles of an image; views have their size.
            seed: Seed of views, anomalies and the order of batches.
            device: Where the backbone is, and where the pool lies if it fits.
            processes: Number of processes that share the work: this one makes its share of the anomalies.
            show: Show a progress bar while the pool is filled.
            known: Known defects; None or an empty data set: there are none.
            roi: Region of interest ``(H, W)``, bool, in the size of the images. Tiles without a part of it are left
                out, nothing is drawn outside, and batches say what lies inside. None: everywhere.
            beside: Makes further groups, ``{group: (N, C, H, W)}``, of features and of the numbers of the images
                ``(N,)`` that they are views of, or that their synthetic anomalies are made from.
        """
        self._dataset, self._backbone, self._grid, self._seed, self._show = dataset, backbone, grid, seed, show
        self._beside = beside
        self._device, self._drawn = torch.device(device), -(-self.synthetic // processes)
        self._period, self._slots, self._clean = -1, [], {}
        self._roi = None if roi is None else roi.cpu()
        self._defects = None
        if known is not None and len(known) and self.known > 0:
            self._defects = KnownDefects(known, self.augmentation, grid, self.known, seed, self._roi)
        self._seen = [v for v, window in enumerate(grid.windows) if roi is None or roi[window].any()]

    def batches(self, first: int, end: int, **parts: int) -> Iterator[Batch]:
        """The batches from step ``first`` to the one before ``end``; ``parts`` as of :meth:`batch`."""
        for step in range(first, end):
            self.advance(step)
            yield self.batch(step, **parts)

    def advance(self, step: int) -> None:
        """Fill or refresh the pool if ``step`` belongs to another period than the one it holds."""
        period = step // self.refresh_every
        if period == self._period:
            return
        self._period = period
        self._orders: dict[tuple[int, int], Tensor] = {}
        slots = self._draw_slots(period)
        if slots != self._slots:
            self._slots = slots
            self._clean.clear()  # before there are others; and if the filling is interrupted, there are none
            self._fill_clean()
        self._fill_synthetic(period)

    def batch(self, step: int, *, clean: int, synthetic: int, image_every: int = 1) -> Batch:
        """The training batch of a step, where the pool lies; Lightning moves it to the device if that is elsewhere.

        Args:
            step: Number of the step; :meth:`advance` was called for it.
            clean: Clean views in the batch; they come first.
            synthetic: Synthetic anomalies.
            image_every: One of so many images is given as an image, each in turn; none in some batches, if a batch has
                fewer.

        Returns:
            ``features``: ``{group: (N, C, H, W)}`` of what the generator sees, ``target``: the same of the clean image,
            ``mask``: ``(N, 1, H, W)`` float, zero for clean views, ``image``: clean images ``(M, 3, H, W)`` in [0, 1],
            ``shown``: ``(M,)`` their positions in the batch. With known defects, because nobody knows what is
            behind them, or with a region of interest also what :func:`squad_lit.training.known.without_unknown` gives.
        """
        left = self._order(0, step, clean, len(self._slots))
        right = self._order(1, step, synthetic, self._drawn)
        source = torch.cat([left, self._source[right]])
        # Not the same ones always, because clean ones come first.
        batches = max(1, image_every // len(source))  # one of so many has an image
        some = torch.arange(0 if (step + 1) % batches else max(1, len(source) // image_every), device=source.device)
        turns = len(source) if len(source) % image_every else image_every
        shown = (step // batches % turns + image_every * some) % len(source)
        target = {g: f[source].float() for g, f in self._clean.items()}
        features = {g: torch.cat([target[g][:clean], f[right].float()]) for g, f in self._corrupted.items()}
        batch = {
            "features": features,
            "target": target,
            "mask": torch.cat([self._mask.new_zeros(clean, *self._mask.shape[1:]), self._mask[right]]).float(),
            "image": self._image[source[shown]].float() / 255,
            "shown": shown,
        }
        if self._defects is not None or self._roi is not None:
            kind = torch.cat([self._kind.new_zeros(clean), self._kind[right]])
            inside = torch.cat([self._inside[left], self._inside_of[right]])
            batch |= without_unknown(batch, kind, inside)
        return batch

    def plain_features(self) -> Iterator[dict[str, Tensor]]:
        """The features of the unaugmented views held, in chunks ``{group: (N, C, H, W)}``."""
        if not self._clean:
            return
        plain = [i for i, (_, view) in enumerate(self._slots) if view < len(self._grid)]
        for index in torch.tensor(plain, dtype=torch.long).split(CPU_CHUNK):
            yield {group: f[index.to(f.device)].float() for group, f in self._clean.items()}

    def _draw_slots(self, period: int) -> list[tuple[int, int]]:
        """The (image, view) of each clean slot: all of them if they fit, else a draw of this period."""
        count = len(self._dataset)  # type: ignore[arg-type]
        views = [*self._seen, *range(len(self._grid), self.views * len(self._grid))]
        slots = [(image, view) for view in views for image in range(count)]
        if len(slots) <= self.clean_limit:
            return slots
        draw = np.random.default_rng([self._seed, _SLOTS, period]).permutation(len(slots))[: self.clean_limit]
        return [slots[i] for i in sorted(draw)]

    def _fill_clean(self) -> None:
        def view_of(number: int) -> Tensor:
            index, view = self._slots[number]
            item = self._dataset[index]
            if view < len(self._grid):
                window = self._grid.windows[view]
                image: Tensor = item["image"][:, *window].contiguous()  # the large image may go
                if self._roi is not None:
                    inside[number, 0] = self._roi[window]
            else:
                window = self._grid.draw(np.random.default_rng([self._seed, _WINDOW, index, view]))
                drawn = [self._seed, _VIEW, index, view]
                image = self.augmentation(item["image"], np.random.default_rng(drawn), window)
                if self._roi is not None:
                    inside[number, 0] = moved(self.augmentation, self._roi[None], drawn, window)
            images[number] = (image * 255).round().to(torch.uint8)
            category[number] = item["category"]
            return image

        total = len(self._slots)
        self._fits = self._device.type == "cuda" and self._size() <= torch.cuda.mem_get_info(self._device)[0] / 2
        if not self._fits:
            self._check_memory()
        images = torch.empty(total, 3, *self._grid.tile, dtype=torch.uint8)
        inside = torch.ones(total, 1, *(self._grid.tile if self._roi is not None else (1, 1)), dtype=torch.bool)
        category = [""] * total
        views = chunks_ahead(view_of, total, self._device)
        self._clean = self._features("clean views", views, [image for image, _ in self._slots])
        self._image, self._inside = self._place(images), self._place(inside)
        region = None if self._roi is None else inside[:, 0]
        self._anomalies = Anomalies(images, category, self._drawn, self._seed, self.synthesis, self._defects, region)
        self.close()  # they hold the views of before

    def _fill_synthetic(self, period: int) -> None:
        total = self._drawn
        masks = torch.empty(total, 1, *self._image.shape[-2:], dtype=torch.bool)
        kinds = torch.empty(total, dtype=torch.int64)
        inside = torch.empty(total, *self._inside.shape[1:], dtype=torch.bool)

        def changed() -> Iterator[Tensor]:
            done = 0
            for image, mask, kind, region in self._made(period):
                part = slice(done, done + len(mask))
                masks[part, 0], kinds[part], inside[part, 0] = mask, kind, region
                done += len(mask)
                yield image

        source = [self._anomalies.source(period, number) for number in range(total)]
        self._source = torch.tensor(source, device=self._image.device)
        self._corrupted = self._features("synthetic anomalies", changed(), [self._slots[slot][0] for slot in source])
        self._mask, self._kind, self._inside_of = self._place(masks), self._place(kinds), self._place(inside)

    def _made(self, period: int) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Images, masks, kinds and regions of the anomalies of a period, in chunks and in order."""
        numbers = range(period * self._drawn, (period + 1) * self._drawn)
        workers = self.workers
        if workers is None:  # a CPU that trains has no core to spare
            workers = max(1, torch.get_num_threads() - 1) if self._device.type == "cuda" else 0
        if workers == 0:
            yield from chunks_ahead(lambda i: self._anomalies[numbers[i]], self._drawn, self._device)
            return
        size = chunk_size(self._device)
        chunks = -(-self._drawn // size)
        if self._coming is None:  # later periods follow without a break
            every = (range(n, n + self._drawn) for n in count(numbers.start, self._drawn))
            self._coming = iter(
                DataLoader(
                    self._anomalies,
                    batch_sampler=(list(p[i : i + size]) for p in every for i in range(0, self._drawn, size)),
                    num_workers=workers,
                    worker_init_fn=one_thread,
                    prefetch_factor=max(2, -(-chunks // workers)),  # a period ahead, and no more
                )
            )
        try:
            yield from islice(self._coming, chunks)
        except RuntimeError as error:
            if "exited unexpectedly" not in str(error):
                raise
            raise OSError(
                f"a process that makes synthetic anomalies ended: {error}; it often means too little (shared) memory: "
                f"set model.pool.workers={workers} lower, or to 0 for threads"
            ) from error

    def close(self) -> None:
        """End the worker processes, if there are any."""
        self._coming = None

    def _features(self, what: str, images: Iterator[Tensor], sources: Sequence[int]) -> dict[str, Tensor]:
        """Half-precision features of many images; only a chunk of images is held at a time."""
        out: dict[str, Tensor] = {}
        done, total = 0, len(sources)
        with progress(total=total, desc=what, unit="image", leave=False, disable=not self._show) as bar:
            for chunk in images:
                features = self._backbone(chunk.to(self._device))
                numbers = torch.tensor(sources[done : done + len(chunk)], device=self._device)
                for group, f in (features | self._beside(features, numbers)).items():
                    if group not in out:
                        channels, *grid = f.shape[1:]
                        stored = self._store((total, *grid, channels), torch.float16)
                        out[group] = stored.permute(0, 3, 1, 2)  # channels last, as the networks want them
                    out[group][done : done + len(f)] = f
                done += len(chunk)
                bar.update(len(chunk))
        return out

    def _size(self) -> int:
        """Bytes of the whole pool: features of 2 bytes, images of 3 channels and masks."""
        pixels = math.prod(self._grid.tile)
        channels, strides = self._backbone.channels, self._backbone.stride
        features = sum(2 * channels[group] * pixels // strides[group] ** 2 for group in channels)
        return (len(self._slots) + self._drawn) * (features + 4 * pixels)

    def _check_memory(self) -> None:
        needed, free = self._size(), free_memory()
        if needed > free:
            raise ValueError(
                f"model.pool: {len(self._slots)} clean views and {self._drawn} synthetic anomalies of "
                f"{' x '.join(map(str, self._grid.tile))} px take {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are "
                f"free: lower model.pool.clean_limit, model.pool.synthetic or dataset.image_size"
            )

    def _store(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """An empty tensor on the device if the whole pool fits there, else where the device copies from fastest."""
        if self._device.type != "cuda" or self._fits:
            return torch.empty(*shape, dtype=dtype, device=self._device)
        return torch.empty(*shape, dtype=dtype, pin_memory=True)

    def _place(self, made: Tensor) -> Tensor:
        return made if self._device.type == "cpu" else self._store(made.shape, made.dtype).copy_(made)

    def _order(self, stream: int, step: int, size_of_part: int, size: int) -> Tensor:
        """Which of ``size`` are in the part of a batch: passes of permutations, from the first step of the period."""
        first = step % self.refresh_every * size_of_part
        passes = range(first // size, -(-(first + size_of_part) // size))
        for old in [key for key in self._orders if key[0] == stream and key[1] < passes.start]:
            del self._orders[old]
        for number in passes:
            if (stream, number) not in self._orders:
                order = torch.from_numpy(permutation(self._seed, stream, self._period, number, size))
                self._orders[stream, number] = order.to(self._image.device)
        joined = torch.cat([self._image.new_empty(0, dtype=torch.int64), *(self._orders[stream, n] for n in passes)])
        return joined[first % size :][:size_of_part]
