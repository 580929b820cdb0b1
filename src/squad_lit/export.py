"""A trained model as one file for other runtimes: ``python -m squad_lit.export --checkpoint FILE --format onnx ...``.

The graph takes uint8 RGB images ``(N, H, W, 3)`` of any size and gives ``anomaly_map`` ``(N, H, W)`` at the image's own
resolution, ``anomaly_score`` ``(N,)``, ``label`` ``(N,)``, and ``model_map``, the map at the model's own size: resize,
normalisation, calibration and threshold are inside, the decoding of image files is not. Of a model with tiles the graph
takes single tiles, float32 in [0, 1]. Its metadata (key ``squad_lit``, JSON) says what else there is to know.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from squad_lit.deploy.export import COMPARED, SUFFIXES, export
from squad_lit.system.console import exit_status


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m squad_lit.export``; returns the exit status."""
    options = _parse(arguments)
    return exit_status(lambda: _run(options), interrupted="interrupted; nothing was written")


def _run(options: argparse.Namespace) -> int:
    threshold, difference = export(
        options.checkpoint,
        options.output,
        options.format,
        false_alarm_rate=options.false_alarm_rate,
        calibrate=options.calibrate if options.int8 else None,
        trust=options.trust,
    )
    of = f"up to {COMPARED} of the normal images" if options.int8 else "two images of noise"
    print(
        f"{options.output}: labels scores above {threshold:.3g}; the scores of {of} differ from the checkpoint's by at "
        f"most {difference:.1g} of their size"
    )
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m squad_lit.export", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, required=True, help="last.ckpt of a run")
    parser.add_argument("--format", choices=SUFFIXES, required=True, help="what the file is for")
    parser.add_argument("--output", type=Path, required=True, help="file: .onnx, .xml (and .bin beside it) or .pt2")
    rate = "of normal images; predict can choose another (default: by known defects, else that of the training)"
    parser.add_argument("--false-alarm-rate", type=float, help=rate)
    parser.add_argument("--int8", action="store_true", help="the backbone in 8 bits (onnx only); needs --calibrate")
    parser.add_argument("--calibrate", type=Path, metavar="DIR", help="normal training images, which give the ranges")
    trust = "package whose classes the checkpoint may name; may be repeated"
    parser.add_argument("--trust", action="append", default=[], metavar="PACKAGE", help=trust)
    options = parser.parse_args(arguments)
    if options.int8 != (options.calibrate is not None):
        parser.error("--int8 and --calibrate DIR go together: the ranges of 8 bits are those of normal images")
    if options.int8 and options.format != "onnx":
        parser.error("--int8 is for --format onnx")
    return options


if __name__ == "__main__":
    sys.exit(main())
