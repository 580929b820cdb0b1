"""The output folder of ``squad_lit.predict``: three files and a row of ``predictions.csv`` per image."""

from __future__ import annotations

import contextlib
import os
from argparse import ArgumentParser, Namespace
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from squad_lit.image.picture import colour_map, outline
from squad_lit.system.file import fitting, inside, make_folder, write_picture, write_tiff
from squad_lit.system.lock import hold
from squad_lit.system.table import append_row, read_rows, write_rows

if TYPE_CHECKING:
    from squad_lit.deploy.predictor import Result

HEADER = ["image_path", "name", "anomaly_score", "label", "threshold", "regions", "largest_box", "largest_area"]
HEADER += ["min_area", "roi", "model", "file"]
# The folder of each kind of file, and the ending that is added to the name of the image.
ENDINGS = {"map": ".tiff", "mask": ".png", "overlay": ".png"}
# Rows of an overlay that are drawn at a time, and the brightness outside of the region of interest.
_STRIP = 256
_ROOM = max(map(len, ENDINGS.values()))
_DIMMED = 0.35


class Predictions:
    """An output folder: the images that were predicted into it, and the names of those to come.

    Args:
        root: The folder; created if it is missing.
        kinds: Which of map, mask and overlay an image gets.

    Raises:
        ValueError: It has a ``predictions.csv`` of another kind, is in use by another process, or cannot be created.
        OSError: It cannot be written to.
    """

    def __init__(self, root: Path, kinds: Collection[str] = tuple(ENDINGS)) -> None:
        self.kinds = kinds
        make_folder(root)
        self._lock = contextlib.ExitStack()
        self._lock.enter_context(hold(root))
        self.root, self.table = root, root / "predictions.csv"
        try:
            self._rows = {row["image_path"]: row for row in _whole_rows(self.table)}
            write_rows(self.table, list(self._rows.values()), HEADER)  # without what a power cut left of a row
        except (ValueError, OSError):
            self._lock.close()
            raise
        self._owner = {row["name"]: path for path, row in self._rows.items()}

    @property
    def rows(self) -> list[dict[str, str]]:
        """The rows of the table, one per image."""
        return list(self._rows.values())

    def name(self, path: Path, folder: Path) -> str:
        """The name of an image: its path below ``folder``, longer by parent folders if another image has that name.

        An image keeps the name that it once got, and no two images share one. A name is cut that is too long for the
        endings of the files.
        """
        key = os.path.abspath(path)
        if key in self._rows:
            return str(self._rows[key]["name"])
        parts = Path(key).parts[1:]
        fewest = len(parts) - len(folder.absolute().parts) + 1
        names = [output_name("/".join(parts[-count:])) for count in range(fewest, len(parts) + 1)]
        name = next(name for name in names if self._owner.get(name, key) == key)
        self._owner[name] = key
        return name

    def is_done(self, path: Path, known_by: Mapping[str, str]) -> bool:
        """Whether an image has its files, and a row with the values of ``known_by``."""
        row = self._rows.get(os.path.abspath(path))
        if row is None or not row.items() >= known_by.items():
            return False
        places = files(self.root, row["name"], self.kinds)
        return all(file.is_file() and file.stat().st_size > 0 for file in places.values())

    def add(self, path: Path, row: Mapping[str, Any]) -> None:
        """Append the row of an image to the table at once, so that an interruption loses nothing."""
        key = os.path.abspath(path)
        whole = {"image_path": key} | {column: str(row[column]) for column in HEADER[1:]}
        self._rows[key], self._owner[whole["name"]] = whole, key
        append_row(self.table, [whole[column] for column in HEADER])

    def close(self) -> None:
        """Rewrite the table with one row per image, where one that was predicted again had two, and free the folder."""
        with self._lock:
            write_rows(self.table, list(self._rows.values()), HEADER)


def output_name(name: str) -> str:
    """The name of an image in the folder: its own, unless that is too long for the endings of the files."""
    return fitting(name, _ROOM)


def add_kinds(parser: ArgumentParser) -> None:
    """Add the options that :func:`kinds` reads."""
    parser.add_argument("--no-map", action="store_true", help="write no map and no mask")
    parser.add_argument("--no-overlay", action="store_true", help="write no overlay")


def kinds(options: Namespace) -> list[str]:
    """Which of map, mask and overlay an image gets."""
    return [kind for kind in ENDINGS if not (options.no_overlay if kind == "overlay" else options.no_map)]


def files(root: Path, name: str, kinds: Collection[str] = tuple(ENDINGS)) -> dict[str, Path]:
    """The paths of map, mask and overlay; they keep the suffix of the image, since a.png and a.jpg may both exist.

    Raises:
        ValueError: The name, as another's ``predictions.csv`` may have it, leads out of the folder.
    """
    inside(root, name)
    return {kind: root / kind / f"{name}{ending}" for kind, ending in ENDINGS.items() if kind in kinds}


def describe(result: Result) -> dict[str, Any]:
    """The columns of ``predictions.csv`` that come from a result."""
    *box, area = result.regions[0] if result.regions else ("", "")
    return {
        "anomaly_score": f"{result.anomaly_score:.6g}",
        "label": result.label,
        "regions": len(result.regions),
        "largest_box": " ".join(map(str, box)),
        "largest_area": area,
    }


def write(result: Result, image: NDArray[np.uint8], places: Mapping[str, Path], pixel_threshold: float) -> None:
    """Write those files of an image, of map, mask and overlay, that ``places`` has."""
    for file in places.values():
        file.parent.mkdir(parents=True, exist_ok=True)
    if "map" in places:
        write_tiff(places["map"], result.anomaly_map)
    if "mask" in places:
        write_picture(places["mask"], result.mask.astype("uint8") * 255)
    if "overlay" in places:
        write_picture(places["overlay"], overlay(image, result, pixel_threshold))


def overlay(image: NDArray[np.uint8], result: Result, pixel_threshold: float) -> NDArray[np.uint8]:
    """The image with its map laid over it, on one colour scale for all images.

    Args:
        image: ``(H, W, 3)``.
        result: The result for the image.
        pixel_threshold: The value with the middle colour of the scale. Where the map is 0 or below, the image shows
            unchanged.

    Returns:
        ``(H, W, 3)`` uint8, with the mask outlined. Outside of the region of interest the image is dimmed.
    """
    mixed = np.empty_like(image)
    for start in range(0, len(image), _STRIP):  # all colours of a large image would take ten times its memory
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
    if rows and [column for column in rows[0] if column is not None] != HEADER:  # None: the row is too long
        raise ValueError(
            f"--output: {table} has other columns, so a run or another version wrote it; name another folder"
        )
    whole = [row for row in rows if row.keys() == set(HEADER) and None not in row.values()]
    for row in whole:
        try:
            files(table.parent, row["name"])
        except ValueError as error:
            raise ValueError(f"--output: {table} is damaged, or of a stranger: {error}") from None
    return whole
