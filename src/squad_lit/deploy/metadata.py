"""The description of a model in an exported file: plain values as JSON, which are checked before they are used.

The check needs no package, because a line's computer has none for it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from squad_lit.image.roi import decode

FORMAT = 4
"""Version of exported files and their description; others are refused."""
KEY = "squad_lit"
"""Key of the description in the metadata of a file."""

# Longest side of an image in pixels.
_SIDE = 2**16


def read_metadata(path: Path, text: object) -> dict[str, Any]:
    """The description of an exported file.

    Args:
        path: The file, for errors.
        text: What it has under ``KEY``, if anything.

    Raises:
        ValueError: There is none, it is of another version, or an entry is missing or of a wrong kind.
    """
    if not text:
        raise ValueError(f"{path} was not written by squad_lit.export: it has no metadata {KEY!r}")
    damaged = f"{path} is damaged, or not of squad_lit.export: its metadata {KEY!r} is not whole"
    try:
        found = json.loads(text)  # type: ignore[arg-type]
        is_known = isinstance(found, dict) and type(found["format"]) is int and isinstance(found["squad_lit"], str)
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise ValueError(damaged) from error
    if not is_known:
        raise ValueError(damaged)
    by = f"{path} was exported by squad_lit {found['squad_lit']}, which is"
    if found["format"] < FORMAT:
        raise ValueError(f"{by} older than this one: export the checkpoint again with python -m squad_lit.export")
    if found["format"] > FORMAT:
        raise ValueError(f"{by} newer than this one: update squad_lit")
    for key, fits in _ENTRIES.items():
        if key not in found or not fits(found[key]):
            raise ValueError(f"{damaged}: {key} is {repr(found[key])[:50] if key in found else 'missing'}")
    if len(found["normal_scores"]) != len(found["normal_maxima"]):
        raise ValueError(f"{damaged}: normal_scores and normal_maxima differ in number")
    if found["tile"] is not None and found["tile"]["side"] > min(found["image_size"]):
        raise ValueError(f"{damaged}: a tile is larger than the image")
    return dict(found)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_side(value: Any) -> bool:
    return type(value) is int and 0 < value <= _SIDE


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_number, value))


def _is_tile(value: Any) -> bool:
    if not isinstance(value, dict) or value.keys() != {"side", "overlap"}:
        return False
    return _is_side(value["side"]) and _is_number(value["overlap"]) and 0 <= value["overlap"] < 1


def _is_roi(value: str) -> bool:
    try:
        decode(value)
    except ValueError:
        return False
    return True


# What the entries have to be that this package reads.
_ENTRIES: dict[str, Callable[[Any], bool]] = {
    "image_size": lambda v: isinstance(v, list) and len(v) == 2 and all(map(_is_side, v)),
    "tile": lambda v: v is None or _is_tile(v),
    "top": lambda v: _is_number(v) and 0 < v <= 1,
    "intensity_range": lambda v: v is None or (_are_numbers(v) and len(v) == 2 and v[0] < v[1]),
    "false_alarm_rate": lambda v: v is None or (_is_number(v) and 0 < v < 1),
    "chosen_threshold": lambda v: v is None or _is_number(v),
    "normal_scores": lambda v: _are_numbers(v) and len(v) > 0,
    "normal_maxima": _are_numbers,
    "defective_scores": _are_numbers,
    "roi": lambda v: isinstance(v, str) and _is_roi(v),
    "input": lambda v: isinstance(v, dict) and v.get("type") in ("uint8", "float32"),
}
