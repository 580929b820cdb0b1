"""Seconds an image of two of anomalib's models, as the baseline of ``benchmark.py``: same cores, same image size.

    pip install --no-deps --target /tmp/anomalib anomalib==2.7.0
    python -m experiments.inference.peers /tmp/anomalib [--threads 2]

Untrained weights, which take as long as trained ones. Only the files of the networks are loaded, because the whole
package would need a few dozen others; decoding and resizing are not included, to the peers' advantage.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
import time
import types
from collections import namedtuple
from pathlib import Path
from typing import Any

import torch

from squad_lit.system.allocator import keep_freed_memory

MODELS = {
    "EfficientAd-S": ("efficient_ad", "EfficientAdModel", {}),
    "DSR": ("dsr", "DsrModel", {}),
}
RUNS = 10


def stand_in(root: Path) -> None:
    """Packages that are only folders, and the one class that the networks take from the rest."""
    for name in ("", ".models", ".models.image", *(f".models.image.{folder}" for folder, *_ in MODELS.values())):
        package: Any = types.ModuleType(f"anomalib{name}")
        package.__path__ = [str(root.joinpath("anomalib", *name.split(".")[1:]))]
        sys.modules[f"anomalib{name}"] = package
    data: Any = types.ModuleType("anomalib.data")
    fields = ["pred_score", "pred_label", "anomaly_map", "pred_mask"]
    data.InferenceBatch = namedtuple("InferenceBatch", fields, defaults=[None] * 4)
    sys.modules["anomalib.data"] = data


def main() -> None:
    """A table in Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="where pip has put anomalib")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    stand_in(options.folder)
    image = torch.rand(1, 3, 256, 256)
    print("| model | ms an image, median | images/s |\n|---|---|---|")
    for name, (folder, cls, arguments) in MODELS.items():
        module = importlib.import_module(f"anomalib.models.image.{folder}.torch_model")
        model = getattr(module, cls)(**arguments).eval()
        seconds = []
        with torch.inference_mode():
            for _ in range(RUNS + 2):
                started = time.perf_counter()
                model(image)
                seconds.append(time.perf_counter() - started)
        middle = statistics.median(seconds[2:])
        print(f"| {name} | {1000 * middle:.0f} | {1 / middle:.1f} |")


if __name__ == "__main__":
    main()
