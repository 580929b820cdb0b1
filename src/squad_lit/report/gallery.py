"""The gallery: a page with the images of a test or of a prediction."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from squad_lit.system.file import read_rows, write_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from squad_lit.training.detector import Detector

LIMIT = 500  # images with pictures: some 12 MB
SIDE, QUALITY = 256, 75  # of a picture: longer side in pixels, JPEG

IMAGE, MAP, RECONSTRUCTION = "image", "map", "reconstruction"
TRUTH = (0, 220, 255)  # colour of a true defect's outline: not one of the map's

# Columns of predictions.csv that are needed of each.
OF_A_RUN = {"image_path", "category", "defect", "label", "anomaly_score"}
OF_A_PREDICTION = {"image_path", "name", "anomaly_score", "threshold"}


@dataclass
class Row:
    """An image of the gallery.

    Args:
        path: As it is in ``predictions.csv``.
        name: What it is called in the page.
        score: In deviations from normal.
        category: Empty if it is not known.
        kind: Of the defect, ``good`` if there is none; empty if it is not known.
        label: 1: anomalous; None: nobody has said.
        mask_path: Of the true defect; empty if there is none.
        pictures: Sources of image elements, by caption.
    """

    path: str
    name: str
    score: float
    category: str = ""
    kind: str = ""
    label: int | None = None
    mask_path: str = ""
    pictures: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Gallery:
    """What the page shows.

    Args:
        title: Above it.
        rows: All images.
        threshold: Where the slider starts.
        origin: This threshold, and where it comes from, in words.
        failed: Why images have no pictures.
    """

    title: str
    rows: list[Row]
    threshold: float
    origin: str
    failed: Sequence[str]


def gather(
    folder: Path, checkpoint: Path | None, false_alarm_rate: float | None, limit: int, trust: Sequence[str] = ()
) -> Gallery:
    """Read a folder, and make or take the pictures.

    Args:
        folder: Of a run or of predictions.
        checkpoint: None: that of the run.
        false_alarm_rate: Share of normal images above the threshold at the start; None: as ``squad_lit.predict``.
        limit: How many images get pictures: of a test the most wrong ones, of predictions the highest scores.
        trust: Packages whose classes a checkpoint may name.

    Raises:
        ValueError: A folder of another kind, a rate out of range or without a model, images that are not there.
        OSError: No such folder, or a checkpoint that is not there.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder.resolve()}; name that of a run, or the output of squad_lit.predict")
    table = folder / "predictions.csv"
    lines = _read(table)
    columns = lines[0].keys()
    if columns >= OF_A_RUN:
        return _of_run(folder, lines, checkpoint or folder / "last.ckpt", false_alarm_rate, limit, trust)
    if columns >= OF_A_PREDICTION:
        return _of_predictions(folder, lines, checkpoint, false_alarm_rate, limit, trust)
    raise ValueError(
        f"{table} is neither of squad_lit.train (columns {', '.join(sorted(OF_A_RUN))}) nor of squad_lit.predict "
        f"({', '.join(sorted(OF_A_PREDICTION))})"
    )


def write(gallery: Gallery, output: Path) -> int:
    """Write the page, whole or not at all.

    Returns:
        Its size in bytes.
    """
    from squad_lit.report.page import render

    texts = ("path", "name", "category", "kind", "mask_path")
    rows = [asdict(row) | {key: readable(getattr(row, key)) for key in texts} for row in gallery.rows]
    html = render(
        "view.html",
        title=readable(gallery.title),
        data={"threshold": gallery.threshold, "rows": rows},
        origin=gallery.origin,
        labelled=gallery.rows[0].label is not None,
        masked=any(row.mask_path for row in gallery.rows),
        categories=list(dict.fromkeys(row["category"] for row in rows)),
        pictured=sum(bool(row.pictures) for row in gallery.rows),
        failed=len(gallery.failed),
    )
    write_text(output, html)
    return output.stat().st_size


def _read(table: Path) -> list[dict[str, str]]:
    """The lines of ``predictions.csv``, at least one."""
    if not table.is_file():
        raise FileNotFoundError(
            f"no {table.resolve()}: a run leaves it when it has tested, squad_lit.predict in its output folder"
        )
    lines = read_rows(table)
    if not lines:
        raise ValueError(f"{table} has no images")
    return lines


def _number(line: Mapping[str, str], key: str) -> float:
    """A finite number of a line of the table."""
    try:
        value = float(line[key])
    except (TypeError, ValueError):  # None: the line is too short
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"predictions.csv: {key} of {line['image_path']} is {line[key]!r}, expected a finite number")
    return value


def _of_run(
    folder: Path,
    lines: Sequence[Mapping[str, str]],
    checkpoint: Path,
    rate: float | None,
    limit: int,
    trust: Sequence[str],
) -> Gallery:
    """The test images of a run, looked at once more."""
    from squad_lit.deploy.pixel_model import thresholds
    from squad_lit.training import checkpoint as checkpoints

    rows = [
        Row(
            path=line["image_path"],
            name=Path(line["image_path"]).name,
            score=_number(line, "anomaly_score"),
            category=line["category"],
            kind=line["defect"],
            label=int(_number(line, "label")),
            mask_path=line.get("mask_path", ""),  # runs of earlier versions do not say it
        )
        for line in lines
    ]
    if not checkpoint.is_file():
        raise FileNotFoundError(
            f"no checkpoint {checkpoint.resolve()}; if the run tested that of another, name it with --checkpoint FILE"
        )
    detector = checkpoints.load(checkpoint, trust=trust)
    threshold, pixel_threshold = thresholds(detector, rate)
    known = detector.state.defective_scores if rate is None else []
    source = "normal images and of known defects" if known else "normal images"
    # The most wrong ones first: normal images far above the threshold, defects far below it.
    chosen = sorted(rows, key=lambda row: row.score if row.label else 2 * threshold.value - row.score)[:limit]
    failed = _illustrate(chosen, lambda row: _look(detector, row, pixel_threshold.value))
    return Gallery(
        f"Test images of {folder.resolve().name}",
        rows,
        threshold.value,
        f"{threshold}. It comes from the scores of held-out {source}, not from this test",
        failed,
    )


def _look(detector: Detector, row: Row, pixel_threshold: float) -> dict[str, str]:
    """Pictures of an image; a score that is not that of the run says that the image or the model is another one."""
    import torch

    from squad_lit.deploy.output_folder import overlay
    from squad_lit.deploy.pixel_model import shrink
    from squad_lit.deploy.predictor import Result
    from squad_lit.image.file import read_pixels
    from squad_lit.image.picture import to_picture

    with torch.inference_mode():
        pixels = read_pixels(row.path, detector.state.data.get("intensity_range"))
        image = shrink(torch.tensor(pixels[None]), detector.state.image_size)
        output = detector(image)
        maps, scores = detector.anomaly(output.maps)
        reconstruction = detector.image_recon(output)
    score = float(scores)
    if not math.isclose(score, row.score, rel_tol=0.05, abs_tol=0.1):  # a GPU may round a code to another level
        raise ValueError(
            f"{row.path}: its score is {score:.4g}, in predictions.csv {row.score:.4g}: the image or the checkpoint "
            f"has changed since the test"
        )
    plain, anomaly_map = to_picture(image[0].numpy()), maps[0].numpy()
    result = Result(anomaly_map, score, 0, anomaly_map > pixel_threshold, [])
    pictures = {IMAGE: _embed(_with_defect(plain, row)), MAP: _embed(overlay(plain, result, pixel_threshold))}
    if reconstruction is not None:
        pictures[RECONSTRUCTION] = _embed(to_picture(reconstruction[0].numpy()))
    return pictures


def _with_defect(picture: NDArray[Any], row: Row) -> NDArray[Any]:
    """The image with the true defect outlined, where its mask is known."""
    if not row.mask_path:
        return picture
    from PIL import Image
    from scipy import ndimage

    from squad_lit.image.file import read_marked
    from squad_lit.image.picture import outline

    marked = Image.fromarray(read_marked(row.mask_path)).resize(picture.shape[1::-1], Image.Resampling.NEAREST)
    for mask in (np.asarray(marked), ndimage.binary_dilation(marked)):  # JPEG halves the colour of a line of one pixel
        picture = outline(picture, mask, TRUTH)
    return picture


def _of_predictions(
    folder: Path,
    lines: Sequence[Mapping[str, str]],
    checkpoint: Path | None,
    rate: float | None,
    limit: int,
    trust: Sequence[str],
) -> Gallery:
    """What ``squad_lit.predict`` has written."""
    import squad_lit

    rows = [Row(line["image_path"], line["name"], _number(line, "anomaly_score")) for line in lines]
    if rate is not None and checkpoint is None:
        raise ValueError("--false-alarm-rate: the normal images are known to the model only: add --checkpoint FILE")
    if checkpoint is not None:
        found = squad_lit.load(checkpoint, false_alarm_rate=rate, trust=trust).threshold
        threshold, origin = found.value, f"{found}"
    else:
        values = Counter(_number(line, "threshold") for line in lines)
        threshold = values.most_common(1)[0][0]
        origin = f"{threshold:.3g}, which the prediction has from normal images that the model was not trained on"
        if len(values) > 1:
            origin += f"; the folder has predictions with {len(values)} thresholds, this is that of the most images"
    chosen = sorted(rows, key=lambda row: -row.score)[:limit]
    failed = _illustrate(chosen, lambda row: _stored(folder, row))
    return Gallery(f"Predictions in {folder.resolve().name}", rows, threshold, origin, failed)


def _stored(folder: Path, row: Row) -> dict[str, str]:
    """The image itself and its overlay; an image that is no longer there is still seen in the overlay."""
    from squad_lit.deploy.output_folder import files
    from squad_lit.image.file import read_pixels, to_uint8

    overlay = files(folder, row.name)["overlay"]
    if not overlay.is_file():
        raise FileNotFoundError(f"{row.path}: no {overlay}")
    pictures = {}
    with contextlib.suppress(OSError, ValueError):
        pictures[IMAGE] = _embed(to_uint8(read_pixels(row.path)))
    return pictures | {MAP: _embed(read_pixels(overlay))}


def _embed(picture: NDArray[Any]) -> str:
    from PIL import Image

    from squad_lit.report.page import embed

    return embed(Image.fromarray(picture), SIDE, QUALITY)


def _illustrate(rows: Sequence[Row], make: Callable[[Row], dict[str, str]]) -> list[str]:
    """Give each row its pictures; returns why some have none."""
    from tqdm import tqdm

    failed = []
    for row in tqdm(rows, unit="image"):
        try:
            row.pictures = make(row)
        except (OSError, ValueError) as error:
            failed.append(str(error))
    if len(failed) == len(rows):
        raise ValueError(f"none of {len(rows)} images can be shown; the first: {failed[0]}")
    return failed


def readable(text: str) -> str:
    """Text without the bytes of a file name that are no text."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
