"""Options of the command line that say which model judges and how, the same for each command that judges images."""

from __future__ import annotations

import math
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from squad_lit.deploy.device import NAMES
from squad_lit.deploy.predictor import load as load_model

if TYPE_CHECKING:
    from squad_lit.deploy.predictor import Predictor


def add(parser: ArgumentParser) -> None:
    """Add the options that :func:`load` reads."""
    parser.add_argument("--runtime", choices=("torch", "onnx", "openvino"), help="default: by the suffix of the file")
    rate = "share of normal images labelled anomalous (default: from known defects, or the rate of training or export)"
    parser.add_argument("--false-alarm-rate", type=float, metavar="RATE", help=rate)
    limit = "scores above it are anomalous, in the place of a rate; it is said what rate the normal images give it"
    parser.add_argument("--threshold", type=finite, metavar="X", help=limit)
    more = "for a rate that the normal images are too few for: assume that scores are normally distributed"
    parser.add_argument("--extrapolate", action="store_true", help=more)
    parser.add_argument("--device", default="auto", metavar="DEVICE", help=f"{NAMES} (default: auto)")
    roi = "picture of the region of interest, scaled to each image; where it is 0 nothing is judged"
    parser.add_argument("--roi", type=Path, metavar="FILE", help=roi)
    small = "least area of a region in pixels of the image; one without a larger region is normal (default: 0)"
    parser.add_argument("--min-area", type=int, default=0, metavar="PIXELS", help=small)
    trust = "package whose classes a checkpoint may name; may be repeated"
    parser.add_argument("--trust", action="append", default=[], metavar="PACKAGE", help=trust)


def finite(text: str) -> float:
    """A number of the command line that is neither infinite nor nan."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ArgumentTypeError(f"expected a finite number, got {text}")
    return value


def load(path: Path, options: Namespace) -> Predictor:
    """:func:`squad_lit.load` with these options; it may import torch, so the checks of paths come first."""
    return load_model(
        path,
        runtime=options.runtime,
        false_alarm_rate=options.false_alarm_rate,
        threshold=options.threshold,
        extrapolate=options.extrapolate,
        roi=options.roi,
        min_area=options.min_area,
        trust=options.trust,
        device=options.device,
    )
