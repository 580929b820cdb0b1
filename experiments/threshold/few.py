"""Which threshold from few good images keeps the false-alarm rate that was asked for?

    SQUAD_LIT_DATA=PATH python -m experiments.threshold.few [CATEGORY ...]

The model is a nearest-neighbour memory, as ``model=memory``, of 128 random patches of each image. The distances from
each image to the patches of each other one are computed once. A memory of any subset of images is then a minimum over
them, so that hundreds of factories can be drawn: each has n good images, and all other good images of the category are
its line. The backbone is standardised on all of them.

Writes ``few.csv`` beside this file, a row per category, n, method and rate, and prints the means over the categories.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from experiments.shared import DATASETS
from scipy import stats
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import ConcatDataset

from squad_lit.deploy.threshold import from_normals
from squad_lit.network.anomaly import enlarge, top_mean
from squad_lit.run.config import compose
from squad_lit.run.option import make
from squad_lit.system.table import read_rows, write_rows

CATEGORIES = DATASETS | {"capsules": "visa"}
COUNTS, RATES, DRAWS = (10, 20, 40, 100), (0.01, 0.05, 0.1), 60
GOOD, BAD = 240, 60  # most images of a category
PATCHES = 128  # per image
SIDE, SIGMA, TOP = 128, 1.0, 0.001  # of the map; half of the default size and smoothing
RESULTS = Path(__file__).with_name("few.csv")


@torch.inference_mode()
def distances(category: str) -> tuple[Tensor, int]:
    """From each cell of each image to the nearest patch of each good one: ``(images, good, cells)``; good ones first.

    Returns:
        The distances, and the number of good images.
    """
    options = [f"dataset={CATEGORIES[category]}", f"dataset.category={category}", "dataset.image_size=[256,256]"]
    options += ["model=memory", "dataset.cache=off"]
    config = compose(options)
    data = make(config, "dataset")
    data.setup()
    images: Any = ConcatDataset([data.train_set, data.val_set, data.test_set])
    label = [s.label for part in (data.train_set, data.val_set, data.test_set) for s in part.samples]
    rng = np.random.default_rng(0)
    chosen = [rng.permutation(np.flatnonzero(np.array(label) == kind))[:most] for kind, most in ((0, GOOD), (1, BAD))]
    order = [int(i) for part in chosen for i in part]
    good = len(chosen[0])
    backbone = make(config, "model").backbone
    backbone.fit(images[i]["image"][None] for i in order[:good])
    rows = []
    for i in order:
        smooth = [F.avg_pool2d(f, 3, 1, 1) for f in backbone(images[i]["image"][None]).values()]
        size = max(f.shape[-2:] for f in smooth)
        joined = torch.cat([F.interpolate(f, size=size, mode="bilinear", align_corners=False) for f in smooth], 1)
        rows.append(joined.flatten(2)[0].T.contiguous())
    cells = len(rows[0])
    bank = torch.cat([r[torch.from_numpy(rng.permutation(cells)[:PATCHES])] for r in rows[:good]])
    norm = bank.square().sum(1)
    found = torch.empty(len(rows), good, cells)
    for i, own in enumerate(rows):
        squared = own.square().sum(1)[:, None] + norm - 2 * own @ bank.T
        found[i] = squared.view(cells, good, PATCHES).amin(2).clamp_min(0).sqrt().T
    return found, good


def scores(table: Tensor, images: Sequence[int], memory: Sequence[int] | Tensor) -> Tensor:
    """Scores of images by the memory of others; of ``(images, others)`` each has a memory of its own."""
    own = torch.as_tensor(memory)
    at = torch.as_tensor(images)
    nearest = torch.stack([table[i][own if own.ndim == 1 else own[row]].amin(0) for row, i in enumerate(at)])
    side = math.isqrt(nearest.shape[1])
    return top_mean(enlarge(nearest.view(-1, 1, side, side), (SIDE, SIDE), SIGMA)[:, 0], TOP)


def without(own: Sequence[int], fold: int) -> Iterator[tuple[list[int], list[int]]]:
    """Folds of images, with all that are not in them."""
    for first in range(0, len(own), fold):
        part = list(own[first : first + fold])
        yield part, [i for i in own if i not in part]


def tail(values: Sequence[float], rate: float) -> float:
    """The value that a new one exceeds at this rate if all come from one normal distribution."""
    n = len(values)
    if n < 2:
        return math.nan
    reach = stats.t.isf(rate, n - 1) * math.sqrt(1 + 1 / n)
    return statistics.mean(values) + float(reach) * statistics.stdev(values)


def log_tail(values: Sequence[float], rate: float) -> float:
    """As :func:`tail`, of logarithms."""
    return math.exp(tail([math.log(v) for v in values], rate))


def order(values: Sequence[float], rate: float) -> float:
    """As squad_lit does."""
    return from_normals(values, rate).value


def study(category: str) -> Iterator[dict[str, Any]]:
    """A row for each number of images, method and rate."""
    table, good = distances(category)
    bad = list(range(good, len(table)))
    for n in COUNTS:
        if n > good / 2:
            continue
        found: dict[tuple[str, float], list[tuple[float, float]]] = {}
        for draw in range(DRAWS):
            shuffled = np.random.default_rng([n, draw]).permutation(good).tolist()
            own, line = shuffled[:n], shuffled[n:]
            held = max(1, round(0.1 * n))
            by_tenth = [scores(table, part, own[held:]).tolist() for part in (own[:held], line, bad)]
            by_all = [scores(table, part, own).tolist() for part in (line, bad)]
            half = [scores(table, part, own[n // 2 :]).tolist() for part in (own[: n // 2], line, bad)]
            folds = [scores(table, part, rest).tolist() for part, rest in without(own, -(-n // 5))]
            loo = scores(table, own, torch.tensor([rest for _, rest in without(own, 1)])).tolist()
            sources = {
                "a tenth held out": by_tenth,
                "half held out": half,
                "five folds": [[s for fold in folds for s in fold], *by_all],
                "leave one out": [loo, *by_all],
            }
            for source, (normal, line_scores, bad_scores) in sources.items():
                for method in (order, tail, log_tail):
                    for rate in RATES:
                        limit = method(normal, rate)
                        alarms, hits = (
                            float(np.mean(np.array(s) > limit)) if limit == limit else math.nan
                            for s in (line_scores, bad_scores)
                        )
                        found.setdefault((f"{source}, {method.__name__}", rate), []).append((alarms, hits))
        for (method_name, rate), pairs in found.items():
            alarms, hits = (np.array(side) for side in zip(*pairs, strict=True))
            yield {
                "category": category,
                "images": n,
                "method": method_name,
                "asked": rate,
                "found": round(float(np.mean(alarms)), 4),
                "found_90": round(float(np.quantile(alarms, 0.9)), 4),
                "defects": round(float(np.mean(hits)), 4),
            }
        print(category, n, flush=True)


def main(categories: Sequence[str]) -> None:
    """Study what has no rows yet, and print tables in Markdown, in percent."""
    rows: list[dict[str, Any]] = list(read_rows(RESULTS)) if RESULTS.exists() else []
    for category in categories:
        if not any(row["category"] == category for row in rows):
            rows += study(category)
            write_rows(RESULTS, rows)
    for rate in RATES:
        print(f"\nasked {100 * rate:g} %\n\n| method | " + " | ".join(f"{n} images" for n in COUNTS) + " |")
        print("|---" * (len(COUNTS) + 1) + "|")
        for method in dict.fromkeys(row["method"] for row in rows):
            cells = []
            for n in COUNTS:
                own = [r for r in rows if (r["method"], int(r["images"]), float(r["asked"])) == (method, n, rate)]
                means = [100 * np.mean([float(r[key]) for r in own]) for key in ("found", "found_90", "defects")]
                cells.append("{:.1f} (to {:.0f}; {:.0f})".format(*means) if own else "-")
            print(f"| {method} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main(sys.argv[1:] or list(CATEGORIES))
