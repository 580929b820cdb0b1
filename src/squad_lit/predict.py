"""Maps, scores and labels of new images: ``python -m squad_lit.predict --checkpoint FILE --output DIR IMAGE_OR_DIR``.

Each image gives ``map/NAME.tiff`` (float32, in deviations from normal, at the resolution of the image),
``mask/NAME.png``, ``overlay/NAME.png`` and a row of ``predictions.csv``. The command exits with 0 on success, 2 if some
images were skipped and 1 on failure or if all were skipped.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from numpy.typing import NDArray

from squad_lit.deploy import model_option
from squad_lit.deploy.coco import document
from squad_lit.deploy.known_scores import remember
from squad_lit.deploy.model_file import identify
from squad_lit.deploy.output_folder import ENDINGS, Predictions, add_kinds, describe, files, kinds, write
from squad_lit.deploy.threshold import strange
from squad_lit.deploy.timing import measure, table
from squad_lit.deploy.together import AHEAD, batches, judge_each
from squad_lit.deploy.watch.arrival import describe as describe_file
from squad_lit.image.file import find_images, open_header, to_uint8, weigh
from squad_lit.system.ahead import ahead
from squad_lit.system.console import exit_status, is_out_of_memory, say
from squad_lit.system.file import write_json
from squad_lit.system.progress import bar_of

if TYPE_CHECKING:
    from squad_lit.deploy.predictor import Predictor, Result

_NO_MEMORY = "there is not enough memory for it"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m squad_lit.predict``; returns the exit status."""
    options = _parse(arguments)
    return exit_status(lambda: _run(options), interrupted="interrupted; the same command continues")


def _run(options: argparse.Namespace) -> int:
    images = find_images(_places(options.inputs, options.from_file))
    # The output may lie inside of the input; a rerun must not take its overlays for images.
    made = [options.output.absolute() / kind for kind in ENDINGS]
    images = [path for path in images if not any(path.absolute().is_relative_to(folder) for folder in made)]
    if not images:
        raise ValueError("there is no image to predict: the list is empty, or has only files that predict wrote")
    predictor = model_option.load(options.checkpoint, options)
    model = identify(options.checkpoint)
    predictions = Predictions(options.output, kinds(options))
    remember(predictions.root, model, predictor.runtime.metadata)
    print(f"device {predictor.runtime.device}\nthreshold {predictor.threshold}")
    skipped = _predict(predictor, images, predictions, model=model)
    for reason in skipped.values():
        say(f"skipped: {reason}", to=sys.stderr)  # it names the file
    if options.coco:
        write_json(predictions.root / "regions.json", document(predictions.root, predictions.rows), indent=None)
    readable = [path for path in images if path not in skipped]
    if options.timing and readable:
        say(table({options.checkpoint.name: measure(predictor, readable)}))
    return 0 if not skipped else 1 if len(skipped) == len(images) else 2


def _predict(predictor: Predictor, images: Sequence[Path], predictions: Predictions, *, model: str) -> dict[Path, str]:
    """Predict the images that lack a row and files by the same model, threshold and region of interest.

    Threads read the next images and write the last ones while the model is busy.

    Returns why a file could not be read, by file.
    """
    folder = Path(os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in images]))
    of_model = {"threshold": f"{predictor.threshold.value:.6g}", "min_area": f"{predictor.min_area}"}
    of_model |= {"roi": predictor.roi_digest, "model": model}
    skipped: dict[Path, str] = {}
    scores: list[float] = []
    anomalous = 0
    started = time.perf_counter()

    def read(path: Path) -> _Image | None:
        try:
            known_by = of_model | {"file": _stamp(path)}
            return None if predictions.is_done(path, known_by) else _Image(path, known_by, predictor.read(path))
        except (OSError, ValueError, MemoryError) as error:
            skipped[path] = str(error) or f"{path}: {_NO_MEMORY}"
            return None

    def judged(found: Iterable[_Image | None]) -> Iterator[tuple[_Image, str, Result]]:
        read_ones = (image for image in found if image)
        for batch in batches(read_ones, predictor.runtime.batch, lambda image: image.pixels.size):
            for image, result in _judge(predictor, batch, skipped):
                yield image, predictions.name(image.path, folder), result

    def save(one: tuple[_Image, str, Result]) -> tuple[Path, dict[str, Any]]:
        image, name, result = one
        places = files(predictions.root, name, predictions.kinds)
        write(result, to_uint8(image.pixels), places, predictor.pixel_threshold.value)
        return image.path, describe(result) | image.known_by | {"name": name}

    threads = ThreadPoolExecutor()
    try:
        weighed = ahead(threads, lambda path: (path, _weight(path)), bar_of(images, desc="images", unit="image"), AHEAD)
        pixels = ahead(threads, lambda one: read(one[0]), weighed, AHEAD, lambda one: one[1])
        for path, row in ahead(threads, save, judged(pixels), AHEAD, lambda one: weigh(one[0].pixels.size // 3)):
            predictions.add(path, row)
            scores.append(float(row["anomaly_score"]))
            anomalous += row["label"]
    finally:
        threads.shutdown(cancel_futures=True)
        predictions.close()
    made = len(scores)
    rate, before = made / (time.perf_counter() - started), len(images) - made - len(skipped)
    if text := strange(scores, predictor.runtime.metadata["normal_scores"]):
        say(f"warning: {text}", to=sys.stderr)
    say(
        f"{predictions.root}: {made} images ({rate:.1f} per second), {anomalous} of them anomalous; {before} done "
        f"before, {len(skipped)} skipped"
    )
    return skipped


class _Image(NamedTuple):
    """An image that is to be judged, and the columns of its row that are known before."""

    path: Path
    known_by: dict[str, str]
    pixels: NDArray[Any]


def _judge(predictor: Predictor, batch: Sequence[_Image], skipped: dict[Path, str]) -> Iterator[tuple[_Image, Result]]:
    """Images and their results, without those that the memory is too small for; other errors name the image."""
    for image, found in zip(batch, judge_each(predictor, [image.pixels for image in batch]), strict=True):
        if not isinstance(found, Exception):
            yield image, found
        elif is_out_of_memory(found):
            skipped[image.path] = f"{image.path}: {_NO_MEMORY}"
        elif isinstance(found, ValueError):
            raise ValueError(f"{image.path}: {found}") from found
        else:
            raise found


def _weight(path: Path) -> float:
    """For how many small images a file counts."""
    try:
        with open_header(path) as image:
            return weigh(image.width * image.height)
    except OSError:  # reading it will tell
        return 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="squad-lit predict", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, required=True, help="last.ckpt of a run, or an exported file")
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    model_option.add(parser)
    add_kinds(parser)
    listed = "list of images and folders, one per line; - is standard input"
    parser.add_argument("--from-file", metavar="FILE", help=listed)
    inputs = "folders are searched at any depth"
    parser.add_argument("inputs", nargs="*", type=Path, metavar="IMAGE_OR_DIR", help=inputs)
    coco = "write the regions of all images of the output folder into regions.json there, in COCO's form"
    parser.add_argument("--coco", action="store_true", help=coco)
    timing = "afterwards, measure the stages of a prediction one by one, on up to eight of the images"
    parser.add_argument("--timing", action="store_true", help=timing)
    options = parser.parse_args(arguments)
    if options.coco and options.no_map:
        parser.error("--coco reads the masks, which --no-map does not write")
    if not options.inputs and not options.from_file:
        parser.error("name images or folders, or a list of them with --from-file")
    return options


def _places(inputs: Sequence[Path], from_file: str | None) -> list[Path]:
    """The images and folders that the command line names."""
    if not from_file:
        return list(inputs)
    if from_file == "-":
        lines: Iterable[str] = sys.stdin
    else:  # utf-8-sig: editors on Windows put a mark before a text
        try:
            lines = Path(from_file).read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
        except OSError as error:
            raise OSError(f"--from-file {from_file}: {error.strerror}") from error
    return [*inputs, *(Path(text) for line in lines if (text := line.strip()))]


def _stamp(path: Path) -> str:
    """Identifies an image file; another one in its place differs."""
    try:
        return describe_file(path.stat())
    except OSError as error:
        raise OSError(f"cannot read image {path}: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main())
