"""Speed, memory and start-up of a trained model on each runtime, as a line or an office computer would see them.

    python -m experiments.inference.benchmark --checkpoint RUN/last.ckpt --images DIR [--int8 DIR] [--threads 2]

For each runtime a process of its own reads, decodes and predicts the images (resize and map at the image's resolution
included; nothing is written): milliseconds an image one by one, images a second at the best batch, peak memory. A
second process tells the time from the command to the first prediction that is written. Run it alone on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BATCHES = (2, 4, 8)
REPEATS = 5
WARM_UP = 5


def measure(path: Path, folder: Path) -> dict[str, float]:
    """Figures of one runtime, in this process."""
    import numpy as np

    from squad_lit.deploy.runtime import open_runtime
    from squad_lit.image.file import IMAGE_EXTENSIONS, read_pixels

    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_EXTENSIONS)[:40]
    runtime = open_runtime(path)
    for file in files[:WARM_UP]:
        runtime.run(read_pixels(file)[None])
    single = []
    for _ in range(REPEATS):
        for file in files:
            started = time.perf_counter()
            runtime.run(read_pixels(file)[None])
            single.append(time.perf_counter() - started)
    out = {
        "ms an image, median": 1000 * statistics.median(single),
        "95th percentile": 1000 * sorted(single)[-len(single) // 20],
    }
    rates = {1: len(single) / sum(single)}
    peak = peak_mb()
    for batch in BATCHES:
        groups = [files[i : i + batch] for i in range(0, len(files) - batch + 1, batch)]
        runtime.run(np.stack([read_pixels(file) for file in groups[0]]))
        started = time.perf_counter()
        for group in groups * REPEATS:
            runtime.run(np.stack([read_pixels(file) for file in group]))
        rates[batch] = REPEATS * batch * len(groups) / (time.perf_counter() - started)
    best = max(rates, key=lambda batch: rates[batch])
    return out | {
        "images/s": rates[1],
        "images/s, best batch": rates[best],
        "best batch": best,
        "peak MB": peak,
        "peak MB, batches": peak_mb(),
    }


def backbone(path: Path) -> dict[str, float]:
    """The frozen backbone alone, in torch, on an image of the model's size, and the whole model on the same."""
    import torch

    from squad_lit.system.allocator import keep_freed_memory
    from squad_lit.training import checkpoint

    keep_freed_memory()  # as predict does
    detector = checkpoint.load(path)
    image = torch.rand(1, 3, *detector.state.image_size)
    with torch.inference_mode():
        alone, whole = _milliseconds(lambda: detector.backbone(image)), _milliseconds(lambda: detector.predict(image))
    return {"backbone, ms": alone, "whole, ms": whole, "backbone / whole": alone / whole}


def start_up(path: Path, image: Path) -> float:
    """Seconds from the command to the end of a prediction of one image, the median of three."""
    seconds = []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as place:
            command = [
                sys.executable,
                "-m",
                "squad_lit.predict",
                "--checkpoint",
                str(path),
                "--output",
                place,
                str(image),
            ]
            started = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def _milliseconds(call: Callable[[], Any]) -> float:
    for _ in range(WARM_UP):
        call()
    seconds = []
    for _ in range(50):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds)


def peak_mb() -> float:
    """Peak memory of this program alone; that of getrusage includes the parent at the fork."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 2**10


def _child(arguments: list[str], threads: int) -> dict[str, float]:
    """This script in a process of its own, which sees only so many cores."""
    cores = sorted(os.sched_getaffinity(0))[:threads]
    command = [sys.executable, "-m", "experiments.inference.benchmark", "--threads", str(threads), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(
        command,
        check=True,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """A table in Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--images", type=Path, help="a folder")
    parser.add_argument("--int8", type=Path, metavar="DIR", help="normal images that give the ranges of an 8-bit file")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", choices=("measure", "backbone"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child == "measure":
        print(json.dumps(measure(options.checkpoint, options.images)))
        return
    if options.child == "backbone":
        print(json.dumps(backbone(options.checkpoint)))
        return
    from squad_lit.deploy.export import export

    first = next(p for p in sorted(options.images.rglob("*.png")))
    with tempfile.TemporaryDirectory() as place:
        files = {"torch": options.checkpoint, "torch.export": Path(place) / "model.pt2"}
        files |= {"onnxruntime": Path(place) / "model.onnx", "OpenVINO": Path(place) / "model.xml"}
        for name, form in (("torch.export", "torch"), ("onnxruntime", "onnx"), ("OpenVINO", "openvino")):
            export(options.checkpoint, files[name], form)
        if options.int8:
            files["onnxruntime, int8"] = Path(place) / "int8.onnx"
            export(options.checkpoint, files["onnxruntime, int8"], "onnx", int8=options.int8)
        table = {
            name: _child(
                ["--child", "measure", "--checkpoint", str(path), "--images", str(options.images)], options.threads
            )
            | {"start-up, s": start_up(path, first)}
            for name, path in files.items()
        }
    head = list(table["torch"])
    print("| runtime | " + " | ".join(head) + " |\n" + "|---" * (len(head) + 1) + "|")
    for name, row in table.items():
        print(f"| {name} | " + " | ".join(f"{row[key]:.3g}" for key in head) + " |")
    alone = _child(["--child", "backbone", "--checkpoint", str(options.checkpoint)], options.threads)
    print("\n" + ", ".join(f"{name} {value:.3g}" for name, value in alone.items()))


if __name__ == "__main__":
    main()
