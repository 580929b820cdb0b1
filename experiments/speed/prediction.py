"""How fast a trained model predicts: alone, one image at a time and together, and from folders of PNG and JPEG files.

    python -m experiments.speed.prediction --checkpoint RUN/last.ckpt --images DIR --device cuda    # not run yet
    python -m experiments.speed.prediction --checkpoint RUN/last.ckpt --images DIR --device cpu --count 40

The pictures of DIR are scaled to ``--size``, and repeated up to ``--count``. Prints a table in Markdown. "Model" takes
pixels in memory and gives maps in memory; decoding is that of all threads, without a model; ``predict`` is the command,
after its start.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

import squad_lit
from squad_lit.image.file import find_images, read_pixels

WARM_UP = 3  # the first run of a shape prepares it, and the second one of a single image captures a graph


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="last.ckpt of a run, or an exported file")
    parser.add_argument("--images", type=Path, required=True, help="a folder")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--size", type=int, default=256, help="height and width of the files, in pixels")
    parser.add_argument("--count", type=int, default=2000, help="files of each format")
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 64, 256], help="images in memory at once")
    given = parser.parse_args()
    found = find_images([given.images])
    with tempfile.TemporaryDirectory() as place:
        folders = {suffix: Path(place, suffix) for suffix in ("png", "jpg")}
        for suffix, folder in folders.items():
            folder.mkdir()
            for number in range(given.count):
                image = Image.open(found[number % len(found)]).convert("RGB").resize((given.size, given.size))
                image.save(folder / f"{number:05d}.{suffix}")
        print(f"| {given.size} px, {os.cpu_count()} cores | images/s | ms an image |\n|---|---|---|")
        alone(given, read_pixels(folders["png"] / "00000.png"))
        for suffix, folder in folders.items():
            files = sorted(folder.iterdir())
            begun = time.perf_counter()
            with ThreadPoolExecutor() as threads:
                list(threads.map(read_pixels, files))
            row(f"decoding of .{suffix}", (time.perf_counter() - begun) / len(files))
            for name, options in (("table alone", ["--no-map", "--no-overlay"]), ("maps and overlays", [])):
                output = Path(place, f"{suffix} {name}")
                row(f"`predict` of .{suffix}, {name}", 1 / predict(given, folder, output, options))


def alone(given: argparse.Namespace, image: np.ndarray) -> None:
    """The model alone, on one image and on batches of it."""
    runtime = squad_lit.load(given.checkpoint, device=given.device).runtime
    print(f"| device: {runtime.device} | | |")
    for size in (1, *given.batches):
        batch, seconds = np.stack([image] * size), []
        for _ in range(WARM_UP + 20):
            begun = time.perf_counter()
            runtime.run(batch)
            seconds.append(time.perf_counter() - begun)
        row("model, one image at a time" if size == 1 else f"model, {size} images", middle(seconds) / size)


def middle(seconds: list[float]) -> float:
    """The median after the warm-up."""
    return statistics.median(seconds[WARM_UP:])


def predict(given: argparse.Namespace, folder: Path, output: Path, options: list[str]) -> float:
    """Images per second, as the command says it."""
    command = [sys.executable, "-m", "squad_lit.predict", "--checkpoint", str(given.checkpoint)]
    command += ["--device", given.device, "--output", str(output), *options, str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    rate = re.search(r"\(([\d.]+) per second\)", done.stdout)
    assert rate is not None, done.stdout
    return float(rate[1])


def row(name: str, seconds: float) -> None:
    """A line of the table."""
    print(f"| {name} | {1 / seconds:,.1f} | {1000 * seconds:.2f} |", flush=True)


if __name__ == "__main__":
    main()
