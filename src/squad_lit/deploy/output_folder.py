"""The output folder of ``squad_lit.predict``: three files and a row of ``predictions.csv`` for each image."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from squad_lit.image.picture import colour_map, outline
from squad_lit.system.file import make_folder, read_rows, write_picture, write_rows, write_tiff

if TYPE_CHECKING:
    from squad_lit.deploy.predictor import Result

HEADER = ["image_path", "name", "anomaly_score", "label", "threshold", "regions", "largest_box", "largest_area"]
HEADER += ["roi", "model", "file"]
# Folder of each kind of file, and what is appended to the image's name.
ENDINGS = {"map": ".tiff", "mask": ".png", "overlay": ".png"}
# Rows of an overlay that are drawn at a time, and the brightness of what is not judged.
_STRIP = 256
_DIMMED = 0.35


class Predictions:
    """What has been predicted into a folder, and where what is to come will lie.

    Args:
        root: The folder; made if it is not there.

    Raises:
        ValueError: It has another table of this name, or cannot be made.
        OSError: It cannot be written to.
    """

    def __init__(self, root: Path) -> None:
        make_folder(root)
        self.root, self.table = root, root / "predictions.csv"
        self._rows = {row["image_path"]: row for row in _whole_rows(self.table)}
        self._owner = {row["name"]: path for path, row in self._rows.items()}
        write_rows(self.table, list(self._rows.values()), HEADER)  # without what a power cut has left of a row

    def name(self, path: Path, folder: Path) -> str:
        """What an image is called here: its path below ``folder``, with more of its folders if another has that name.

        An image keeps its name, and none gets that of another, whatever was predicted before.
        """
        key = os.path.abspath(path)
        if key in self._rows:
            return str(self._rows[key]["name"])
        parts = Path(key).parts[1:]
        fewest = len(parts) - len(folder.absolute().parts) + 1
        names = ["/".join(parts[-count:]) for count in range(fewest, len(parts) + 1)]
        return next(name for name in names if self._owner.get(name, key) == key)

    def is_done(self, path: Path, known_by: Mapping[str, str]) -> bool:
        """Whether an image has its files and a row with these values."""
        row = self._rows.get(os.path.abspath(path))
        if row is None or not row.items() >= known_by.items():
            return False
        return all(file.is_file() and file.stat().st_size > 0 for file in files(self.root, row["name"]).values())

    def add(self, path: Path, row: Mapping[str, Any]) -> None:
        """Add the row of an image at once, so that an interruption loses nothing."""
        key = os.path.abspath(path)
        whole = {"image_path": key} | {column: str(row[column]) for column in HEADER[1:]}
        self._rows[key], self._owner[whole["name"]] = whole, key
        with self.table.open("a", newline="", encoding="utf-8", errors="surrogateescape") as file:
            csv.DictWriter(file, HEADER, lineterminator="\n").writerow(whole)

    def close(self) -> None:
        """Write the table anew: one row an image, also where one was predicted again."""
        write_rows(self.table, list(self._rows.values()), HEADER)


def files(root: Path, name: str) -> dict[str, Path]:
    """Where the map, mask and overlay of an image lie; ``a.png`` and ``a.jpg`` may be two images."""
    return {kind: root / kind / f"{name}{ending}" for kind, ending in ENDINGS.items()}


def describe(result: Result) -> dict[str, Any]:
    """The columns of ``predictions.csv`` that a result gives."""
    *box, area = result.regions[0] if result.regions else ("", "")
    return {
        "anomaly_score": f"{result.anomaly_score:.6g}",
        "label": result.label,
        "regions": len(result.regions),
        "largest_box": " ".join(map(str, box)),
        "largest_area": area,
    }


def write(result: Result, image: NDArray[np.uint8], places: Mapping[str, Path], pixel_threshold: float) -> None:
    """Write the map, mask and overlay of an image to their places (see :func:`files`)."""
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


def _whole_rows(table: Path) -> list[dict[str, str]]:
    if not table.exists():
        return []
    rows = read_rows(table)
    if rows and not _is_ours(list(rows[0])):
        raise ValueError(
            f"--output: {table} has other columns: it is a run's, or of another version; name another folder"
        )
    return [row for row in rows if row.keys() == set(HEADER) and None not in row.values()]


def _is_ours(columns: Sequence[str | None]) -> bool:
    return [column for column in columns if column is not None] == HEADER  # None: the first row is too long
