"""Images a second with and without the cache, at the sizes of the benchmarks' files.

    python experiments/cache/benchmark.py

The files are those of the data at hand (``SQUAD_LIT_DATA``, else ``data``), enlarged to the original sizes in a
temporary folder. Each line is the median of three passes over them, one thread, at 256 x 256.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image

from squad_lit.dataset.cache import Cache, DiskCache, MemoryCache
from squad_lit.dataset.sample import AnomalyDataset, Sample

# Width and height, format, and whose files are like that.
KINDS = {
    "900 x 900 PNG (MVTec AD bottle)": (900, 900, "png"),
    "1024 x 1024 PNG (MVTec AD screw, MPDD)": (1024, 1024, "png"),
    "1500 x 1000 JPEG (VisA)": (1500, 1000, "jpg"),
    "1600 x 1600 BMP (BTAD 01)": (1600, 1600, "bmp"),
}
IMAGES = 40


def seconds(dataset: AnomalyDataset) -> float:
    """Seconds of one pass over all items."""
    start = time.perf_counter()
    for index in range(len(dataset)):
        dataset[index]
    return time.perf_counter() - start


def measure(samples: list[Sample], folder: Path) -> dict[str, float]:
    """Images a second without a cache, at the first pass with one, and afterwards."""
    out = {"off": IMAGES / statistics.median(seconds(AnomalyDataset(samples, (256, 256))) for _ in range(3))}
    for name, make in (("memory", lambda _: MemoryCache()), ("disk", lambda i: DiskCache(folder / f"cache{i}"))):
        first, later = [], []
        for i in range(3):
            cache: Cache = make(i)
            dataset = AnomalyDataset(samples, (256, 256), cache=cache)
            first.append(seconds(dataset))
            later.append(seconds(dataset))
        out |= {f"{name}, first": IMAGES / statistics.median(first), f"{name}": IMAGES / statistics.median(later)}
    return out


def main() -> None:
    """A table in Markdown."""
    torch.set_num_threads(1)
    data = Path(os.environ.get("SQUAD_LIT_DATA", "data"))
    sources = sorted((data / "mvtec" / "screw" / "train" / "good").iterdir())[:IMAGES]
    header: list[str] = []
    for kind, (width, height, form) in KINDS.items():
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            samples = []
            for path in sources:
                samples.append(Sample(folder / f"{path.stem}.{form}", "screw", "good", 0))
                with Image.open(path) as image:
                    image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC).save(samples[-1].image_path)
            figures = measure(samples, folder)
        if not header:
            header = ["source", *figures]
            print("| " + " | ".join(header) + " |\n|" + "---|" * len(header))
        print(f"| {kind} | " + " | ".join(f"{value:.0f}" for value in figures.values()) + " |", flush=True)


if __name__ == "__main__":
    main()
