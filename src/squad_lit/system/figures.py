"""The figures of a run in ``metrics.json``, which are checked before use: anyone may have changed the file."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from squad_lit.system.file import regular

_LARGEST = 10**8  # bytes


def read_figures(folder: Path) -> dict[str, Any] | None:
    """The content of ``metrics.json`` in the folder of a run; None if there is no such file.

    Raises:
        OSError: It is no file, such as a named pipe.
        ValueError: The file is damaged, an entry is of another kind than runs write, or no run wrote it.
    """
    path = folder / "metrics.json"
    if not path.exists():
        return None
    try:
        if regular(path).stat().st_size > _LARGEST:
            raise ValueError(f"it has more than {_LARGEST // 10**6} MB")
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if not isinstance(found, dict) or not isinstance(found.get("run"), dict):
        raise ValueError(f"{path} is damaged: it does not say of which run it is")
    if wrong := _misfit(found):
        raise ValueError(f"{path} is damaged: {wrong[0]} is {repr(wrong[1])[:50]}")
    return found


def _misfit(figures: Mapping[str, Any], place: str = "") -> tuple[str, Any] | None:
    """The first entry that is of a wrong kind, with its name; own figures of a user's model may be of any kind."""
    for key, value in figures.items():
        fits = next((fits for start, fits in _KINDS.items() if key.startswith(start)), None)
        if fits is not None and not fits(value):
            return f"{place}{key}", value
        if key in ("per_category", "per_defect"):
            for name, own in value.items():
                if wrong := _misfit(own, f"{place}{key}.{name}."):
                    return wrong
    return None


def _is_figure(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and math.isfinite(value))


def _are(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(fits, value.values()))


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_figure, value))


def _are_shares(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(own, list) and all(map(_is_figure, own)) for own in value)


def _is_of_a_run(value: dict[str, Any]) -> bool:
    texts = ("command", "config_hash", "ended_early", "partly_tested")
    return all(isinstance(value.get(name, ""), str) for name in texts)


# What the entries have to be that this package reads, by the beginnings of their names.
_KINDS: dict[str, Callable[[Any], bool]] = {
    "run": _is_of_a_run,
    "per_category": _are(lambda value: isinstance(value, dict)),
    "per_defect": _are(lambda value: isinstance(value, dict)),
    "categories_averaged": _are(lambda value: type(value) is int),
    "interval": _are(_is_pair),
    "threshold": _are(_is_figure),
    "level_histogram/": _are_shares,
} | dict.fromkeys(
    [
        "image_",
        "pixel_",
        "synthetic_",
        "normal_score",
        "copy_ratio/",
        "feature_error/",
        "codebook_usage/",
        "perplexity/",
        "psnr",
        "ssim",
        "seconds/",
        "images_per_second/",
        "peak_",
    ],
    _is_figure,
)
