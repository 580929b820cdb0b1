"""Maps, scores and labels of new images: ``python -m squad_lit.predict --checkpoint FILE --output DIR IMAGE_OR_DIR``.

For each image: ``map/NAME.tiff`` (float32, calibrated, at the image's own resolution), ``mask/NAME.png``,
``overlay/NAME.png``, and a row of ``predictions.csv``. Exit status: 0 all is well, 2 some images were skipped, 1 it
failed, or all were skipped.
"""

from __future__ import annotations

import argparse
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
from squad_lit.output import write_picture, write_tiff
from squad_lit.prediction import ENDINGS, Predictions, files
from squad_lit.visual import colour_map, outline

if TYPE_CHECKING:
    from squad_lit.predictor import Predictor, Result

# Rows of an overlay that are drawn at a time, and the brightness of what is not judged.
_STRIP = 256
_DIMMED = 0.35


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m squad_lit.predict``; returns the exit status."""
    options = _parse(arguments)
    return exit_status(lambda: _run(options), interrupted="interrupted; the same command continues")


def _run(options: argparse.Namespace) -> int:
    images = find_images(_places(options.inputs, options.from_file))
    # With the output inside of the input a rerun would look at overlays.
    made = [options.output.absolute() / kind for kind in ENDINGS]
    images = [path for path in images if not any(path.absolute().is_relative_to(folder) for folder in made)]
    if not images:
        raise ValueError("there is no image to predict: the list is empty, or names only what predict has written")
    predictions = Predictions(options.output)
    # Not before the paths are known to be right: this may import torch.
    predictor = squad_lit.load(
        options.checkpoint, runtime=options.runtime, false_alarm_rate=options.false_alarm_rate, roi=options.roi
    )
    print(f"threshold {predictor.threshold}")
    skipped = predict(predictor, images, predictions, model=_digest(options.checkpoint))
    for path, reason in skipped.items():
        print(f"skipped: {path}: {reason}", file=sys.stderr)
    return 0 if not skipped else 1 if len(skipped) == len(images) else 2


def predict(predictor: Predictor, images: Sequence[Path], predictions: Predictions, *, model: str) -> dict[Path, str]:
    """Predict the images that have no row and files of the same model, threshold and region of interest yet.

    Args:
        predictor: The model.
        images: Files.
        predictions: Where the results go.
        model: Tells this model from others.

    Returns:
        The files that could not be read, and why.
    """
    folder = Path(os.path.commonpath([path.absolute().parent for path in images]))
    of_model = {"threshold": f"{predictor.threshold.value:.6g}", "roi": predictor.roi_digest, "model": model}
    skipped: dict[Path, str] = {}
    started, made = time.perf_counter(), 0
    try:
        for path in _progress(images):
            try:
                known_by = of_model | {"file": _stamp(path)}
                if predictions.is_done(path, known_by):
                    continue
                image = predictor.read(path)
            except (OSError, ValueError) as error:
                skipped[path] = str(error)
                continue
            result = predictor.predict(image)
            name = predictions.name(path, folder)
            _write(result, to_uint8(image), files(predictions.root, name), predictor.pixel_threshold.value)
            predictions.add(path, _row(result) | known_by | {"name": name})
            made += 1
    finally:
        predictions.close()
    rate, before = made / (time.perf_counter() - started), len(images) - made - len(skipped)
    print(f"{made} images, {rate:.1f} a second; {before} were there, {len(skipped)} skipped: {predictions.root}")
    return skipped


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m squad_lit.predict", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, required=True, help="last.ckpt of a run, or what was exported")
    parser.add_argument("--output", type=Path, required=True, help="folder for what is written")
    parser.add_argument("--runtime", choices=("torch", "onnx", "openvino"), help="default: by the suffix of the file")
    rate = "of normal images (default: by known defects or, without them, that of the training or export)"
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
    if from_file == "-":
        lines: Iterable[str] = sys.stdin
    else:  # utf-8-sig: editors on Windows begin a text with a mark
        lines = Path(from_file).read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
    return [*inputs, *(Path(text) for line in lines if (text := line.strip()))]


def _digest(path: Path) -> str:
    """Tells the files of models apart."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256")
    if (weights := path.with_suffix(".bin")).is_file() and path.suffix == ".xml":
        found.update(weights.read_bytes())
    return found.hexdigest()[:12]


def _stamp(path: Path) -> str:
    """Tells an image file from another one that takes its place."""
    try:
        about = path.stat()
    except OSError as error:
        raise OSError(f"cannot read image {path}: {error.strerror}") from error
    return f"{about.st_size} bytes, {about.st_mtime_ns} ns"


def _row(result: Result) -> dict[str, Any]:
    *box, area = result.regions[0] if result.regions else ("", "")
    return {
        "anomaly_score": f"{result.anomaly_score:.6g}",
        "label": result.label,
        "regions": len(result.regions),
        "largest_box": " ".join(map(str, box)),
        "largest_area": area,
    }


def _write(result: Result, image: NDArray[np.uint8], places: Mapping[str, Path], pixel_threshold: float) -> None:
    for file in places.values():
        file.parent.mkdir(parents=True, exist_ok=True)
    write_tiff(places["map"], result.anomaly_map)
    write_picture(places["mask"], result.mask.astype("uint8") * 255)
    write_picture(places["overlay"], overlay(image, result, pixel_threshold))


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
