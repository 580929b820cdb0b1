"""Time and memory of the exact pixel metrics, and of what others compute.

    python experiments/metrics/benchmark.py           # the table: about 3 minutes on 2 cores
    python experiments/metrics/benchmark.py --growth  # growth.csv and growth.png: 20 to 2,000 maps

Each figure is the median of 5; the candidates take turns, so that a slow moment of the machine meets all of them. The
peers: ``np.sort`` of the same float32 scores (the floor: nothing exact can skip ordering the scores), torchmetrics'
exact AUROC and average precision, scikit-learn's, and AUPRO the way the benchmark's authors compute it, by an argsort
of all pixels.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.filters import gaussian
from skimage.measure import label
from sklearn.metrics import average_precision_score, roc_auc_score
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from squad_lit.metric import PixelMetrics, pixel_metrics

HERE = Path(__file__).parent
SIDE = 256
Array = NDArray[np.float32]


def make(n: int, seed: int = 0) -> tuple[Array, NDArray[np.bool_]]:
    """Smooth random maps in [0, 1]; every other image has one to three blobs, most of which score higher."""
    rng = np.random.default_rng(seed)
    maps, masks = np.empty((n, SIDE, SIDE), np.float32), np.zeros((n, SIDE, SIDE), bool)
    y, x = np.mgrid[:SIDE, :SIDE]
    for i in range(n):
        field = gaussian(rng.standard_normal((SIDE, SIDE)).astype(np.float32), 5)
        maps[i] = 0.3 + 0.06 * field / field.std()
        for _ in range(rng.integers(1, 4) if i % 2 else 0):
            (cy, cx), (a, b) = rng.uniform(15, SIDE - 15, 2), np.exp(rng.uniform(np.log(3), np.log(28), 2))
            blob = ((y - cy) / a) ** 2 + ((x - cx) / b) ** 2 < 1
            masks[i] |= blob
            maps[i] += rng.uniform(0, 0.45) * blob
    return maps.clip(0, 1), masks


def argsort_aupro(maps: Array, masks: NDArray[np.bool_], limit: float = 0.3) -> float:
    """AUPRO by an argsort of all pixels: each one changes the false-positive rate or the overlap by a known step."""
    step_fpr, step_pro = np.zeros(maps.shape), np.zeros(maps.shape)
    step_fpr[~masks] = 1 / (~masks).sum()
    count = 0
    for i, mask in enumerate(masks):
        regions, n = label(mask, connectivity=2, return_num=True)
        count += n
        area = np.bincount(regions.ravel())
        step_pro[i][mask] = 1 / area[regions[mask]]
    order = np.argsort(maps, axis=None)[::-1]
    score = maps.ravel()[order]
    last = np.append(score[1:] != score[:-1], True)  # ties are one threshold
    fpr = np.append(0, step_fpr.ravel()[order].cumsum()[last])
    pro = np.append(0, (step_pro.ravel()[order] / count).cumsum()[last])
    inside = fpr <= limit
    cut = np.interp(limit, fpr, pro)
    return float(np.trapezoid(np.append(pro[inside], cut), np.append(fpr[inside], limit)) / limit)


def candidates(maps: Array, masks: NDArray[np.bool_]) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    score, mask = torch.from_numpy(maps), torch.from_numpy(masks)
    flat, truth = score.flatten(), mask.flatten().long()
    return {
        "np.sort": lambda: np.sort(maps, axis=None),
        "squad_lit pixel_metrics": lambda: pixel_metrics(score, mask, fpr_limit=(0.3, 0.05)),
        "torchmetrics AUROC + AP": lambda: (binary_auroc(flat, truth), binary_average_precision(flat, truth)),
        "argsort AUPRO": lambda: argsort_aupro(maps, masks),
        "scikit-learn AUROC + AP": lambda: (roc_auc_score(truth, flat), average_precision_score(truth, flat)),
    }


def medians(runs: dict[str, Callable[[], object]], repeats: int = 5) -> dict[str, float]:
    """Median seconds of each, in turns."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - started)
    return {name: float(np.median(t)) for name, t in times.items()}


def check(maps: Array, masks: NDArray[np.bool_]) -> None:
    """The values: those of the peers, and the same for any order and size of the batches."""
    score, mask = torch.from_numpy(maps), torch.from_numpy(masks)
    found = {key: value.item() for key, value in pixel_metrics(score, mask).items()}
    truth = {
        "pixel_auroc": roc_auc_score(masks.ravel(), maps.ravel()),
        "pixel_ap": average_precision_score(masks.ravel(), maps.ravel()),
        "pixel_aupro": argsort_aupro(maps, masks),
    }
    for key, value in truth.items():
        print(f"{key}: {found[key]:.10f}, difference to the peer {abs(found[key] - value):.1e}")
    for size in (1, 7, len(maps)):
        metric = PixelMetrics()
        for at in torch.randperm(len(maps)).split(size):
            metric.update(score[at], mask[at], at)
        largest = max(abs(value.item() - found[key]) for key, value in metric.compute().items())
        print(f"random order, batches of {size}: largest difference {largest:.1e}")


def peak_memory(n: int) -> tuple[int, int]:
    """Megabytes that pixel_metrics takes beside n maps and masks, and those of the whole process."""
    command = [sys.executable, __file__, "--peak", str(n)]
    beside, whole = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return int(beside), int(whole)


def print_peak(n: int) -> None:
    """See :func:`peak_memory`; the high-water mark of the process is set back by Linux's clear_refs."""

    def status(key: str) -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith(key))) / 1024

    maps, masks = (torch.from_numpy(array) for array in make(n))
    pixel_metrics(maps[:4], masks[:4])  # loads what is loaded once
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    pixel_metrics(maps, masks)
    print(f"{status('VmHWM') - before:.0f} {status('VmHWM'):.0f}")


def growth(sizes: tuple[int, ...] = (20, 50, 100, 200, 500, 1000, 2000)) -> None:
    """Seconds against the number of maps, to growth.csv and growth.png."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    maps, masks = make(max(sizes))
    rows = []
    for n in sizes:
        names = ("np.sort", "squad_lit pixel_metrics")
        found = medians({k: v for k, v in candidates(maps[:n], masks[:n]).items() if k in names})
        rows.append({"maps": n, **{name: round(found[name], 4) for name in names}})
        print(rows[-1])
    with (HERE / "growth.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    figure, axes = pyplot.subplots(figsize=(5, 3.5))
    n = np.array(sizes) * SIDE**2
    for name in names:
        axes.loglog(n, [row[name] for row in rows], "o-", label=name)
    unit = rows[0]["squad_lit pixel_metrics"] / (n[0] * np.log(n[0]))
    axes.loglog(n, unit * n * np.log(n), ":", color="grey", label="n log n")
    axes.set(xlabel="pixels", ylabel="seconds")
    axes.legend()
    figure.tight_layout()
    figure.savefig(HERE / "growth.png", dpi=100)


def main() -> None:
    """The table, or what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        return print_peak(arguments.peak)
    if arguments.growth:
        return growth()
    for n in (80, 400):
        maps, masks = make(n)
        found = medians(candidates(maps, masks))
        print(f"\n{n} maps, {maps.size / 1e6:.2f} million pixels, {masks.mean():.2%} anomalous\n")
        for name, seconds in found.items():
            print(f"| {name} | {seconds:.3f} s | {seconds / found['np.sort']:.1f} |")
        peers = found["torchmetrics AUROC + AP"] + found["argsort AUPRO"]
        print(f"torchmetrics + argsort AUPRO over squad_lit: {peers / found['squad_lit pixel_metrics']:.1f}")
        print("peak memory of pixel_metrics beside its input: {} MB, of the process: {} MB".format(*peak_memory(n)))
        if n == 80:
            check(maps, masks)
    return None


if __name__ == "__main__":
    main()
