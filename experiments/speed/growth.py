"""How time and memory of a training grow with the size and number of images and with the categories of a joint model.

    python -m experiments.speed.growth runs/growth                                    # on a CPU
    python -m experiments.speed.growth runs/growth_gpu --device cuda --part images    # on a GPU

Each training is short and a process of its own, on pictures of the embedded benchmark, which are drawn into files once.
Prints a table in Markdown, and writes growth.csv and growth.png; a training that has its row is not run again. The
table says, too, which progress bars showed the time left, and for how long at most nothing was shown.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from experiments.shared import read, write
from PIL import Image

from squad_lit.dataset.drawing import PRODUCTS, Recipe, render
from squad_lit.dataset.mvtec import MVTec
from squad_lit.run.config import quote
from squad_lit.system.figures import read_figures

DRAWN = 50  # different pictures of a category; others are these, shifted
TEST = 4  # normal test images of a category, and as many with a defect
COLUMNS = {
    "set-up, s": "seconds/set_up",
    "s a step": "seconds/step",
    "only step, s": "seconds/only_step",
    "validation, s": "seconds/validation",
    "test, s": "seconds/test",
    "peak MB": "peak_memory_mb",
    "GPU MB": "peak_gpu_memory_mb",
}


class Case(NamedTuple):
    """A training; ``images`` are those of each category, the hold-out included."""

    part: str
    model: str
    size: int
    images: int
    categories: int

    @property
    def name(self) -> str:
        """Name of its folder."""
        return "_".join(map(str, self))


def cases(models: list[str], sizes: list[int], counts: list[int], small: list[int], joint: list[int]) -> list[Case]:
    """All trainings; where one thing grows, the others stay small."""
    found = [Case("size", model, size, 50, 1) for model in models for size in sizes]
    found += [Case("images", model, 256, count, 1) for model in models for count in counts]
    found += [Case("images", model, 128, count, 1) for model in ("memory", "hybrid") for count in small]
    return found + [Case("categories", model, 256, 50, count) for model in models for count in joint]


def main() -> None:
    """Run what has no row yet; print and plot all rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="folder of pictures, trainings and rows")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--part", choices=("size", "images", "categories"), help="one of them; default: all")
    parser.add_argument("--steps", type=int, default=40, help="steps of a training")
    parser.add_argument("--models", nargs="+", default=["squad"], help="beside memory and hybrid on small images")
    parser.add_argument("--sizes", nargs="+", type=int, default=[256, 384, 512], help="pixels")
    parser.add_argument("--images", nargs="*", type=int, default=[50, 500, 5000], help="numbers of images of 256 px")
    parser.add_argument("--small", nargs="*", type=int, default=[700, 7000], help="numbers of images of 128 px")
    parser.add_argument("--categories", nargs="+", type=int, default=[1, 4, 12], help="numbers of categories, up to 15")
    given = parser.parse_args()
    place = given.output / "growth.csv"
    rows = {row["run"]: row for row in read(place)}
    for case in cases(given.models, given.sizes, given.images, given.small, given.categories):
        if case.name not in rows and given.part in (None, case.part):
            print(case.name, file=sys.stderr, flush=True)
            rows[case.name] = {"run": case.name, **case._asdict(), **measure(case, given)}
            write(place, list(rows.values()))
    print(table(list(rows.values())))
    plot(list(rows.values()), given.output / "growth.png")


def draw(root: Path, category: str, product: str, size: int, count: int) -> None:
    """Draw a category in MVTec AD's layout, and what is missing of ``count`` training images."""
    recipe, defect = Recipe(seed=0, size=size, train=1, test_good=1, per_defect=1), PRODUCTS[product].defects[0]
    folder = root / category
    for place in ("train/good", "test/good", f"test/{defect}", f"ground_truth/{defect}"):
        (folder / place).mkdir(parents=True, exist_ok=True)
    drawn: list[Any] = []
    for index in range(count):
        file = folder / "train" / "good" / f"{index:05d}.png"
        if file.exists():
            continue
        if not drawn:
            drawn = [render(recipe, product, "train", number)[0] for number in range(min(DRAWN, count))]
        shift = np.random.default_rng(index).integers(size, size=2) if index >= DRAWN else (0, 0)
        Image.fromarray(np.roll(drawn[index % DRAWN], shift, axis=(0, 1))).save(file, compress_level=1)
    for index in range(TEST):
        for kind in ("good", defect):
            picture, _, mask = render(recipe, product, kind, index)
            Image.fromarray(picture).save(folder / "test" / kind / f"{index:03d}.png", compress_level=1)
        Image.fromarray(mask).convert("L").save(folder / "ground_truth" / defect / f"{index:03d}_mask.png")


def measure(case: Case, given: argparse.Namespace) -> dict[str, Any]:
    """Draw the pictures, train, and return the rest of the row."""
    names, products = list(MVTec.CATEGORIES)[: case.categories], list(PRODUCTS)
    root, folder = given.output / f"images_{case.size}", given.output / case.name
    for number, category in enumerate(names):
        draw(root, category, products[number % len(products)], case.size, case.images)
    options = ["dataset=mvtec", f"dataset.root={quote(root)}", f"dataset.category=[{','.join(names)}]"]
    options += [f"dataset.image_size={case.size}", f"dataset.limit_train={case.images}"]
    options += [f"dataset.cache_folder={quote(given.output / 'cache')}", f"hydra.run.dir={quote(folder)}"]
    options += [f"model={case.model}", f"trainer={'gpu' if given.device == 'cuda' else 'cpu'}", "logger=none"]
    options += ["callback.panels=null", "callback.curves=null"]
    options += ["+callback.rate={_target_: experiments.speed.rate.Rate}"]
    options += [] if case.model == "memory" else [f"model.steps={given.steps}"]
    begun = time.perf_counter()
    seen = watch([sys.executable, "-m", "squad_lit.train", *options])
    figures = {"whole, s": time.perf_counter() - begun}
    found = read_figures(folder) or {}
    return figures | {column: found[key] for column, key in COLUMNS.items() if key in found} | seen


def watch(command: list[str]) -> dict[str, Any]:
    """Run a command; tell which bars showed the time left, and for how long at most nothing was shown, and after what.

    The time until the first sign is that of the start of Python, and does not count.
    """
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    text, longest, after, last = "", 0.0, "", 0.0
    while part := os.read(process.stderr.fileno(), 1 << 16).decode(errors="replace"):
        now = time.perf_counter()
        if last and now - last > longest:
            longest, after = now - last, text[-200:]
        text, last = text + part, now
    if process.wait():
        raise SystemExit(f"error: a training failed:\n{text[-2000:]}")
    left = re.findall(r"([a-z][a-z ]*):\s+\d{1,2}%[^\r\n]*?<\d", text)
    name = re.findall(r"([a-z][a-z ]*):\s+\d+%", after)
    return {
        "bars with the time left": ", ".join(dict.fromkeys(left)),
        "longest silence, s": longest,
        "after": name[-1] if name else "",
    }


def table(rows: list[dict[str, Any]]) -> str:
    """A table in Markdown; what a row lacks is a dash."""
    columns = list(dict.fromkeys(key for row in rows for key in row if key != "run"))
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for row in rows:
        cells = [f"{row[c]:.3g}" if isinstance(row.get(c), float) else str(row.get(c, "-")) for c in columns]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(rows: list[dict[str, Any]], file: Path) -> None:
    """A whole training, a step and peak memory, by what grows."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 8), layout="constrained")
    for line, part in zip(figure.subplots(3, 3), ("size", "images", "categories"), strict=True):
        curves: dict[str, list[dict[str, Any]]] = {}
        for row in sorted(rows, key=lambda row: row[part]):
            if row["part"] == part:
                label = row["model"] if part == "size" else f"{row['model']}, {row['size']} px"
                curves.setdefault(label, []).append(row)
        for axes, key in zip(line, ("whole, s", "s a step", "peak MB"), strict=True):
            for label, own in curves.items():
                axes.plot([row[part] for row in own], [row.get(key, np.nan) for row in own], "o-", label=label)
            axes.set(xlabel=part, title=key)
            axes.set_ylim(bottom=0)
        if curves:
            axes.legend()
    figure.savefig(file, dpi=100)


if __name__ == "__main__":
    main()
