"""This project and peers of anomalib on the same images and device: training, prediction, memory and start-up.

    pip install --no-deps --target /tmp/anomalib anomalib==2.7.0 kornia==0.9.0 kornia_rs==0.2.0
    python -m experiments.speed.peers runs/peers --anomalib /tmp/anomalib [--data mvtec/bottle]    # on a CPU
    python -m experiments.speed.peers runs/peers_gpu --anomalib /tmp/anomalib --device cuda --batch 32

Prints tables in Markdown, and writes peers.csv and peers.png. A network that has its row is not measured again. Only
the files of the peers' networks, losses and generators are loaded, because the whole package would need a few dozen
others. Their weights are random, which takes as long as trained ones. Each network is trained in a process of its own,
and predicts in another one. Decoding is in none of the figures. To the peers' advantage, their training is a plain loop
on images in memory, while ours is a whole one: Lightning, and the making of synthetic anomalies at its usual share. It
has ten times as many steps, because they are short.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from experiments.shared import read, write
from experiments.speed.network import ONE_BY_ONE, OURS, PEERS

from squad_lit.run.config import compose, quote
from squad_lit.run.option import make

TRAINING = ("batch", "training images/s", "s a step", "set-up, s", "training, s", "peak MB, training")
PREDICTION = (
    *("start-up, s", "ms an image", "images/s, one by one", "images/s, best batch", "best batch"),
    *("peak MB, one by one", "peak MB, batches"),
)
NOTES = {
    "squad": "features of the images are cached; set-up: backbone's statistics and first pool",
    "hybrid": "as squad; set-up: its memory, too",
    "memory": "no steps; training: statistics of the features, and a coreset",
    "EfficientAd-S": "batches of one, as anomalib demands, and a second image of noise in the place of ImageNette's",
    "DSR": "7 of 10 steps are of the second stage, 3 of the third",
    "STFPM": "ResNet-18",
    "PatchCore": "Wide ResNet-50-2; no steps; training: features and a coreset of a tenth",
}


def main() -> None:
    """Measure, and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="folder of the trainings and rows")
    parser.add_argument("--anomalib", type=Path, help="where pip has put anomalib and kornia; without it: ours alone")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--data", type=Path, help="a category in MVTec AD's layout; default: the embedded benchmark's")
    parser.add_argument("--images", type=int, default=32, help="images; PatchCore's time grows with their square")
    parser.add_argument("--size", type=int, default=256, help="height and width of the images, in pixels")
    parser.add_argument("--steps", type=int, default=10, help="measured steps of a peer's training")
    parser.add_argument("--batch", type=int, default=4, help="images of a training step")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="images predicted at once")
    parser.add_argument("--models", nargs="+", default=[*OURS, *PEERS], choices=[*OURS, *PEERS])
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    options = [*data_of(given.data), f"dataset.image_size={given.size}", f"dataset.limit_train={given.images}"]
    options += [f"dataset.batch_size={given.batch}", f"trainer={'gpu' if given.device == 'cuda' else 'cpu'}"]
    options += [f"dataset.cache_folder={quote(given.output / 'cache')}"]
    count, decoding = decode(options, given.output / "images.pt")
    place = given.output / "peers.csv"
    rows = {row["model"]: row for row in read(place)}
    for name in given.models:
        if name in rows or (name in PEERS and not given.anomalib):
            continue
        size = 1 if name in ONE_BY_ONE else given.batch
        row = {"model": name, "batch": size, **child("train", name, size, given, options)}
        rows[name] = row | child("predict", name, size, given, options)
        write(place, list(rows.values()))
    print(f"\n{given.device}, {torch.get_num_threads()} threads, {count} images of {given.size} px\n")
    for columns in (TRAINING, PREDICTION):
        print(table(list(rows.values()), columns))
    print("\n".join(f"- {name}: {NOTES[name]}" for name in rows))
    if (given.output / "squad" / "last.ckpt").exists():
        least = child("floors", "squad", given.batch, given, options)
        print_floors(least, rows["squad"], decoding)
    plot(list(rows.values()), given.output / "peers.png")


def data_of(folder: Path | None) -> list[str]:
    """The options of the data set."""
    if folder is None:
        return ["dataset=synthetic", "dataset.category=fabric"]
    return ["dataset=folder", f"dataset.root={quote(folder.absolute())}"]


def decode(options: list[str], file: Path) -> tuple[int, float]:
    """Write the training images to a file, and tell how many there are and how many a second one thread decodes."""
    data = make(compose([*options, "dataset.cache=off"]), "dataset")
    data.setup()
    begun = time.perf_counter()
    images = torch.stack([data.train_set[index]["image"] for index in range(len(data.train_set))])
    seconds = time.perf_counter() - begun
    torch.save((images * 255).round().to(torch.uint8), file)
    return len(images), len(images) / seconds


def child(what: str, name: str, batch: int, given: argparse.Namespace, options: list[str]) -> dict[str, Any]:
    """Figures of a process of its own."""
    command = [sys.executable, "-m", "experiments.speed.network", what, name, str(given.output)]
    command += ["--device", given.device, "--steps", str(given.steps), "--batch", str(batch)]
    command += ["--anomalib", str(given.anomalib)] if given.anomalib else []
    command += ["--batches", *map(str, given.batches)]
    command += ["--started", str(time.time()), "--options", *options]
    print(f"{name}: {what}", file=sys.stderr, flush=True)
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> str:
    """A table in Markdown; what a row lacks is a dash."""
    lines = ["| model | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for row in rows:
        cells = [number(row[key]) if key in row else "-" for key in columns]
        lines.append(f"| {row['model']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def number(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def print_floors(least: dict[str, Any], squad: dict[str, Any], decoding: float) -> None:
    """What nothing could be faster than, beside squad."""
    alone, rate, found = least["backbone"], least["GFLOP/s"], squad["ms an image"]
    floors = [("backbone alone, one image", alone["ms an image"], found)]
    operations = [("a prediction", least["GFLOP an image"], found)]
    if "GFLOP a step" in squad:
        operations.append(("a step", squad["GFLOP a step"], 1000 * squad["s a step"]))
    floors += [(f"arithmetic of {what}, {g:.3g} GFLOP", 1000 * g / rate, ms) for what, g, ms in operations]
    print(f"\na product of matrices: {rate:,.0f} GFLOP/s\n\n| floor | ms | squad, ms |\n|---|---|---|")
    for what, floor, measured in floors:
        print(f"| {what} | {number(floor)} | {number(measured)} |")
    print(
        f"\nbackbone alone: {number(alone['images/s, best batch'])} images/s in batches of {alone['best batch']}; "
        f"decoding and resizing alone, one thread: {number(decoding)} images/s"
    )


def plot(rows: list[dict[str, Any]], file: Path) -> None:
    """Images per second of each model, in training and in prediction."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    for axes, key in zip(figure.subplots(1, 2), ("training images/s", "images/s, best batch"), strict=True):
        shown = [row for row in rows if key in row]
        axes.barh([row["model"] for row in shown][::-1], [row[key] for row in shown][::-1])
        axes.set(title=key, xscale="log")
    figure.savefig(file, dpi=100)


if __name__ == "__main__":
    main()
