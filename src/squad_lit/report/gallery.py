"""The gallery: a page with the images of a test or of a prediction."""

from __future__ import annotations

import contextlib
import math
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from scipy import ndimage

from squad_lit.deploy.device import torch_device
from squad_lit.deploy.output_folder import files, overlay
from squad_lit.deploy.predictor import Result, load
from squad_lit.deploy.verdict import decide
from squad_lit.image.file import read_marked, read_pixels, to_uint8
from squad_lit.image.picture import Picture, outline, to_picture
from squad_lit.report.page import embed, render
from squad_lit.report.truth import truth_of
from squad_lit.system.file import write_text
from squad_lit.system.progress import progress
from squad_lit.system.table import read_rows

if TYPE_CHECKING:
    from squad_lit.training.detector import Detector

QUALITY = 75  # of the JPEG of a picture
TRUTH = (0, 220, 255)  # colour of a true defect's outline, which the map does not have

# Columns of predictions.csv that each needs.
OF_A_RUN = {"image_path", "category", "defect", "label", "anomaly_score"}
OF_A_PREDICTION = {"image_path", "name", "anomaly_score", "threshold"}


@dataclass
class Row:
    """An image of the gallery.

    Args:
        path: File as ``predictions.csv`` names it.
        name: Name in the page.
        score: Anomaly score in deviations from normal.
        category: Category; empty if it is not known.
        kind: Kind of defect, ``good`` if there is none; empty if it is not known.
        label: 1 is anomalous; None is not known.
        mask_path: Mask of the true defect; empty if there is none.
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


@dataclass
class Gallery:
    """What the page shows.

    Args:
        title: Title of the page.
        rows: All images.
        threshold: Value at which the slider starts.
        origin: This threshold, and where it comes from, in words.
        guessed: Whether labels come from the names of folders.
        command: What carries a threshold back, to which its value is added.
        failed: Reasons why images have no pictures.
    """

    title: str
    rows: list[Row]
    threshold: float
    origin: str
    command: str
    guessed: bool = False
    failed: list[str] = field(default_factory=list)


def gather(
    folder: Path,
    checkpoint: Path | None,
    false_alarm_rate: float | None,
    limit: int,
    trust: Sequence[str] = (),
    device: str = "auto",
    side: int = 256,
) -> Gallery:
    """Read a folder, and make or take the pictures.

    Args:
        folder: Folder of a run, or output folder of ``squad_lit.predict``.
        checkpoint: The model; None takes that of the run.
        false_alarm_rate: Share of normal images above the threshold at the start; None does as ``squad_lit.predict``.
        limit: Number of images that get pictures, which are the most wrong ones of a test, or the highest scores of
            predictions.
        trust: Packages whose classes a checkpoint may name.
        device: Where the model of a run judges its test images; see :func:`squad_lit.load`.
        side: Longer side of a picture, in pixels.

    Raises:
        ValueError: The folder is of another kind, the rate is out of range or lacks a model, or no image can be shown.
        OSError: There is no such folder or checkpoint.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder.resolve()}; name that of a run, or the output of squad_lit.predict")
    table = folder / "predictions.csv"
    if not table.is_file():
        raise FileNotFoundError(
            f"no {table.resolve()}: a run leaves it when it has tested, squad_lit.predict in its output folder"
        )
    lines = read_rows(table)
    if not lines:
        raise ValueError(f"{table} has no images")
    if lines[0].keys() >= OF_A_RUN:
        checkpoint = checkpoint or folder / "last.ckpt"
        gallery, normality, illustrate = _of_run(folder, lines, checkpoint, false_alarm_rate, trust, device)
    elif lines[0].keys() >= OF_A_PREDICTION:
        if device != "auto":
            raise ValueError(f"--device {device} is for a model, and {folder} has overlays without one: leave it out")
        gallery, normality, illustrate = _of_predictions(folder, lines, checkpoint, false_alarm_rate, trust)
    else:
        raise ValueError(
            f"{table} is neither of squad_lit.train (columns {', '.join(sorted(OF_A_RUN))}) nor of squad_lit.predict "
            f"({', '.join(sorted(OF_A_PREDICTION))})"
        )
    chosen = sorted(gallery.rows, key=normality)[:limit]
    for row in progress(chosen, desc="pictures", unit="image"):
        try:
            pictures = illustrate(row)
            row.pictures = {name: embed(Image.fromarray(p), side, QUALITY) for name, p in pictures.items()}
        except (OSError, ValueError) as error:
            gallery.failed.append(str(error))
    if len(gallery.failed) == len(chosen):
        raise ValueError(f"none of {len(chosen)} images can be shown; the first: {gallery.failed[0]}")
    return gallery


def write(gallery: Gallery, output: Path) -> int:
    """Write the page, whole or not at all; returns its size in bytes."""
    texts = ("path", "name", "category", "kind", "mask_path")
    rows = [asdict(row) | {key: _without_bytes(getattr(row, key)) for key in texts} for row in gallery.rows]
    html = render(
        "view.html",
        title=_without_bytes(gallery.title),
        data={"threshold": gallery.threshold, "rows": rows, "command": _without_bytes(gallery.command)},
        origin=gallery.origin,
        labelled=any(row.label is not None for row in gallery.rows),
        guessed=gallery.guessed,
        masked=any(row.mask_path for row in gallery.rows),
        categories=list(dict.fromkeys(row["category"] for row in rows)),
        pictured=sum(bool(row.pictures) for row in gallery.rows),
        failed=len(gallery.failed),
    )
    write_text(output, html)
    return output.stat().st_size


def _without_bytes(text: str) -> str:
    """Text without the bytes of a file name that are no text."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _number(line: Mapping[str, str], key: str) -> float:
    """A finite number of a line of the table."""
    try:
        value = float(line[key])
    except (TypeError, ValueError):  # None: the line is too short
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"predictions.csv: {key} of {line['image_path']} is {line[key]!r}, expected a finite number")
    return value


# The gallery without pictures, the normality by which rows are chosen (the lowest first), and what makes pictures.
_Unillustrated = tuple[Gallery, Callable[[Row], float], Callable[[Row], dict[str, Picture]]]


def _of_run(
    folder: Path,
    lines: Sequence[Mapping[str, str]],
    checkpoint: Path,
    rate: float | None,
    trust: Sequence[str],
    device: str,
) -> _Unillustrated:
    """The test images of a run, which its model judges again."""
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
    place = torch_device(device)
    print(f"device {place}")
    detector = checkpoints.load(checkpoint, trust=trust).to(place)
    threshold, pixel_threshold = thresholds(detector, rate)
    known = detector.state.defective_scores if rate is None else []
    source = "normal images and of known defects" if known else "normal images"
    origin = f"{threshold}. It comes from the scores of held-out {source}, not from this test"
    if detector.state.threshold is not None and rate is None:
        origin = f"{threshold}. Somebody has chosen it with squad-lit calibrate --threshold"
    return (
        Gallery(f"Test images of {folder.resolve().name}", rows, threshold.value, origin, _command(checkpoint)),
        # The most wrong ones first: normal images far above the threshold, defects far below it.
        lambda row: _normality(row, threshold.value),
        lambda row: _judge(detector, row, threshold.value, pixel_threshold.value),
    )


def _normality(row: Row, threshold: float) -> float:
    """How right the model is; the lowest first are false alarms far above the threshold, and misses far below it."""
    return row.score if row.label else 2 * threshold - row.score


def _command(checkpoint: Path | None) -> str:
    """What carries a threshold back to the model."""
    if checkpoint is not None and checkpoint.suffix in (".onnx", ".xml", ".pt2"):  # a file that is not changed
        return f"squad-lit predict --checkpoint {shlex.quote(str(checkpoint))} --output FOLDER IMAGES --threshold"
    model = "last.ckpt" if checkpoint is None else str(checkpoint)
    line = "line.ckpt" if checkpoint is None else str(checkpoint.with_name("line.ckpt"))
    return f"squad-lit calibrate --checkpoint {shlex.quote(model)} --output {shlex.quote(line)} --threshold"


def _judge(detector: Detector, row: Row, threshold: float, pixel_threshold: float) -> dict[str, Picture]:
    """Pictures of an image; a score that is not that of the run says that the image or the model is another one."""
    import torch

    from squad_lit.deploy.pixel_model import shrink

    with torch.inference_mode():
        pixels = read_pixels(row.path, detector.state.data.get("intensity_range"))
        image = shrink(torch.tensor(pixels[None], device=detector.device), detector.state.image_size)
        output = detector(image)
        maps, scores = detector.anomaly(output.maps)
        reconstruction = detector.image_recon(output)
    score = float(scores)
    if not math.isclose(score, row.score, rel_tol=0.05, abs_tol=0.1):  # a GPU may round a code to another level
        raise ValueError(
            f"{row.path}: its score is {score:.4g}, in predictions.csv {row.score:.4g}: the image or the checkpoint "
            f"has changed since the test"
        )
    plain, anomaly_map = to_picture(image[0].cpu().numpy()), maps[0].cpu().numpy()
    if detector.anomaly.inside is not None:
        anomaly_map = np.where(detector.anomaly.inside.cpu().numpy(), anomaly_map, np.float32(np.nan))
    result = Result(anomaly_map, score, *decide(anomaly_map, score, threshold, pixel_threshold))
    pictures = {"image": _with_defect(plain, row), "map": overlay(plain, result, pixel_threshold)}
    if reconstruction is not None:
        pictures["reconstruction"] = to_picture(reconstruction[0].cpu().numpy())
    return pictures


def _with_defect(picture: Picture, row: Row) -> Picture:
    """The image with the true defect outlined, where its mask is known."""
    if not row.mask_path:
        return picture
    marked = Image.fromarray(read_marked(row.mask_path)).resize(picture.shape[1::-1], Image.Resampling.NEAREST)
    for mask in (np.asarray(marked), ndimage.binary_dilation(marked)):  # JPEG halves the colour of a line of one pixel
        picture = outline(picture, mask, TRUTH)
    return picture


def _of_predictions(
    folder: Path, lines: Sequence[Mapping[str, str]], checkpoint: Path | None, rate: float | None, trust: Sequence[str]
) -> _Unillustrated:
    """The images that ``squad_lit.predict`` has judged, with the overlays that it has drawn."""
    truth = truth_of([line["image_path"] for line in lines])
    rows = [
        Row(line["image_path"], line["name"], _number(line, "anomaly_score"), kind=kind, label=label)
        for line, (kind, label) in zip(lines, truth, strict=True)
    ]
    if rate is not None and checkpoint is None:
        raise ValueError("--false-alarm-rate: the normal images are known to the model only: add --checkpoint FILE")
    if checkpoint is not None:
        found = load(checkpoint, false_alarm_rate=rate, trust=trust).threshold
        threshold, origin = found.value, f"{found}"
    else:
        values = Counter(_number(line, "threshold") for line in lines)
        threshold = values.most_common(1)[0][0]
        origin = f"{threshold:.3g}, which the prediction has from normal images that the model was not trained on"
        if len(values) > 1:
            origin += f"; the folder has predictions with {len(values)} thresholds, this is that of the most images"
    return (
        Gallery(
            f"Predictions in {folder.resolve().name}",
            rows,
            threshold,
            origin,
            _command(checkpoint),
            guessed=any(label is not None for _, label in truth),
        ),
        lambda row: -row.score if row.label is None else _normality(row, threshold),
        lambda row: _stored(folder, row),
    )


def _stored(folder: Path, row: Row) -> dict[str, Picture]:
    """The image itself and its overlay; an image that is no longer there is still seen in the overlay."""
    file = files(folder, row.name)["overlay"]
    if not (folder / "overlay").is_dir():  # predict --no-overlay
        return {"image": to_uint8(read_pixels(row.path))}
    if not file.is_file():
        raise FileNotFoundError(f"{row.path}: no {file}")
    pictures = {}
    with contextlib.suppress(OSError, ValueError):
        pictures["image"] = to_uint8(read_pixels(row.path))
    return pictures | {"map": to_uint8(read_pixels(file))}
