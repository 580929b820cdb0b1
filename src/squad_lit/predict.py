"""Maps, scores and labels of new images: ``python -m squad_lit.predict --checkpoint FILE --output DIR IMAGE_OR_DIR``.

For each image: ``map/NAME.tiff`` (float32, calibrated, at the image's own resolution), ``mask/NAME.png``,
``overlay/NAME.png``, and a row of ``predictions.csv``. Exit status: 0 all is well, 2 some images were skipped, 1 it
failed.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import squad_lit
from squad_lit.console import exit_status
from squad_lit.image_file import find_images, to_uint8
from squad_lit.output import read_rows, write_picture, write_rows, write_tiff
from squad_lit.threshold import FALSE_ALARM_RATE
from squad_lit.visual import colour_map, outline

if TYPE_CHECKING:
    from squad_lit.predictor import Predictor, Result

FIELDS = ("image_path", "anomaly_score", "label", "threshold", "regions", "largest_box", "largest_area", "roi")
# Folder of each kind of file, and what is appended to the image's name.
ENDINGS = {"map": ".tiff", "mask": ".png", "overlay": ".png"}
# Rows of an overlay that are drawn at a time, and the brightness of what is not judged.
_STRIP = 256
_DIMMED = 0.35


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m squad_lit.predict``; returns the exit status."""
    options = _parse(arguments)
    return exit_status(lambda: _run(options), interrupted="interrupted; the same command continues")


def _run(options: argparse.Namespace) -> int:
    images = find_images(_places(options.inputs, options.from_file))
    # Not before the paths are known to be right: this may import torch.
    predictor = squad_lit.load(
        options.checkpoint, runtime=options.runtime, false_alarm_rate=options.false_alarm_rate, roi=options.roi
    )
    options.output.mkdir(parents=True, exist_ok=True)
    print(f"threshold {predictor.threshold}")
    skipped = predict(predictor, images, options.output)
    for path, reason in skipped.items():
        print(f"skipped: {path}: {reason}", file=sys.stderr)
    return 2 if skipped else 0


def predict(predictor: Predictor, images: Sequence[Path], output: Path) -> dict[Path, str]:
    """Predict the images that have no row and files of the same threshold and region of interest yet.

    Args:
        predictor: The model.
        images: Files.
        output: An existing folder.

    Returns:
        The files that could not be read, and why.
    """
    table = output / "predictions.csv"
    rows = _read(table)
    folder = Path(os.path.commonpath([path.absolute().parent for path in images]))
    skipped: dict[Path, str] = {}
    known_by = _known_by(predictor)
    started, made = time.perf_counter(), 0
    with table.open("a", newline="", encoding="utf-8", errors="surrogateescape") as file:
        if not rows:
            file.truncate(0)
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        if not rows:
            writer.writeheader()
        for path in _progress(images):
            files = _files(path, folder, output)
            if _is_done(rows.get(str(path)), files, known_by):
                continue
            try:
                image = predictor.read(path)
            except (OSError, ValueError) as error:
                skipped[path] = str(error)
                continue
            result = predictor.predict(image)
            _write(result, to_uint8(image), files, predictor.pixel_threshold.value)
            rows[str(path)] = _row(path, result) | known_by
            writer.writerow(rows[str(path)])  # at once, so that an interruption loses nothing
            file.flush()
            made += 1
    write_rows(table, list(rows.values()))  # one row an image, also where one was predicted anew
    print(f"{made} images, {made / (time.perf_counter() - started):.1f} a second, {len(images) - made} not: {output}")
    return skipped


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m squad_lit.predict", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, required=True, help="last.ckpt of a run, or what was exported")
    parser.add_argument("--output", type=Path, required=True, help="folder for what is written")
    parser.add_argument("--runtime", choices=("torch", "onnx", "openvino"), help="default: by the suffix of the file")
    rate = f"of normal images (default: that of the export; of a checkpoint by known defects, else {FALSE_ALARM_RATE})"
    parser.add_argument("--false-alarm-rate", type=float, help=rate)
    roi = "image of the region of interest, scaled to each image: what is 0 in it is not judged"
    parser.add_argument("--roi", type=Path, metavar="FILE", help=roi)
    parser.add_argument("--from-file", help="a file with an image or folder a line; - reads standard input")
    parser.add_argument("inputs", nargs="*", type=Path, metavar="IMAGE_OR_DIR", help="folders are read recursively")
    options = parser.parse_args(arguments)
    if not options.inputs and not options.from_file:
        parser.error("name images or folders, or a list of them with --from-file")
    return options


def _progress(images: Sequence[Path]) -> Iterable[Path]:
    """With a bar, where tqdm is installed: an exported model runs without it."""
    try:
        from tqdm import tqdm
    except ImportError:
        return images
    return tqdm(images, unit="image")


def _places(inputs: Sequence[Path], from_file: str | None) -> list[Path]:
    """The images and folders asked for."""
    if not from_file:
        return list(inputs)
    lines = sys.stdin if from_file == "-" else Path(from_file).read_text(encoding="utf-8").splitlines()
    return [*inputs, *(Path(text) for line in lines if (text := line.strip()))]


def _files(path: Path, folder: Path, output: Path) -> dict[str, Path]:
    """What is written of an image; the whole name is kept, because a.png and a.jpg may be two images."""
    name = path.absolute().relative_to(folder)
    return {kind: output / kind / name.with_name(name.name + ending) for kind, ending in ENDINGS.items()}


def _known_by(predictor: Predictor) -> dict[str, str]:
    """What tells results of this threshold and region of interest from others."""
    roi = predictor.roi
    digest = (
        "" if roi is None else hashlib.sha256(str(roi.shape).encode() + np.packbits(roi).tobytes()).hexdigest()[:12]
    )
    return {"threshold": f"{predictor.threshold.value:.6g}", "roi": digest}


def _is_done(row: Mapping[str, Any] | None, files: Mapping[str, Path], known_by: Mapping[str, str]) -> bool:
    return row is not None and row.items() >= known_by.items() and all(f.exists() for f in files.values())


def _read(table: Path) -> dict[str, dict[str, Any]]:
    """The whole rows of an earlier run, by image."""
    rows = read_rows(table) if table.exists() else []
    whole = [row for row in rows if row.keys() == set(FIELDS) and None not in row.values()]
    return {row["image_path"]: row for row in whole}


def _row(path: Path, result: Result) -> dict[str, Any]:
    *box, area = result.regions[0] if result.regions else ("", "")
    return {
        "image_path": str(path),
        "anomaly_score": f"{result.anomaly_score:.6g}",
        "label": result.label,
        "regions": len(result.regions),
        "largest_box": " ".join(map(str, box)),
        "largest_area": area,
    }


def _write(result: Result, image: NDArray[np.uint8], files: Mapping[str, Path], pixel_threshold: float) -> None:
    for file in files.values():
        file.parent.mkdir(parents=True, exist_ok=True)
    write_tiff(files["map"], result.anomaly_map)
    write_picture(files["mask"], result.mask.astype("uint8") * 255)
    write_picture(files["overlay"], overlay(image, result, pixel_threshold))


def overlay(image: NDArray[np.uint8], result: Result, pixel_threshold: float) -> NDArray[np.uint8]:
    """The image under its map, on one scale for all images.

    Args:
        image: ``(H, W, 3)``.
        result: Of the image.
        pixel_threshold: Has the middle colour of the scale; 0 and below are dark and leave the image as it is.

    Returns:
        ``(H, W, 3)`` uint8, the mask outlined; what lies outside of the region of interest is dimmed.
    """
    mixed = np.empty_like(image)
    for start in range(0, len(image), _STRIP):  # the colours of a large image take ten times its memory
        strip = slice(start, start + _STRIP)
        anomaly_map = result.anomaly_map[strip]
        looked_at = ~np.isnan(anomaly_map)[..., None]
        values = np.where(looked_at[..., 0], anomaly_map, 0)
        share = np.clip(values / (2 * pixel_threshold), 0, 1)[..., None]
        heat = colour_map(values, 0, 2 * pixel_threshold)
        light = np.where(looked_at, 1.0, _DIMMED)
        mixed[strip] = (light * ((1 - 0.7 * share) * image[strip] + 0.7 * share * heat)).round().astype(np.uint8)
    return outline(mixed, result.mask)


if __name__ == "__main__":
    sys.exit(main())
