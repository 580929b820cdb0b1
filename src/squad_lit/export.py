"""A trained model as one file for other runtimes: ``python -m squad_lit.export --checkpoint FILE --format onnx ...``.

The graph takes uint8 RGB images ``(N, H, W, 3)`` of any size. It gives ``anomaly_map`` ``(N, H, W)`` at the resolution
of the image, ``anomaly_score`` ``(N,)``, ``label`` ``(N,)`` and ``model_map``, the map at the model's own size. Resize,
normalisation, standardised maps and threshold are inside; the decoding of image files is not.

The graph of a model with tiles takes single tiles, float32 in [0, 1]. The metadata of the file (key ``squad_lit``,
JSON) describes the model.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from squad_lit.system.console import exit_status, say


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m squad_lit.export``; returns the exit status."""
    options = _parse(arguments)
    return exit_status(lambda: _run(options), interrupted="interrupted; nothing was written")


def _run(options: argparse.Namespace) -> int:
    from squad_lit.deploy.export import COMPARED, export

    made = export(
        options.checkpoint,
        options.output,
        options.format,
        false_alarm_rate=options.false_alarm_rate,
        static=options.static,
        fp16=options.fp16,
        int8=options.int8,
        trust=options.trust,
    )
    on = f"up to {COMPARED} of the normal images" if options.int8 else "two images of noise"
    say(
        f"{options.output}: labels scores above {made.threshold:.3g} as anomalous. On {on} the scores differ from "
        f"those of the checkpoint by at most {made.difference:.1g} of their size"
    )
    if made.shift:
        print(f"warning: {made.shift}", file=sys.stderr)
    if made.milliseconds:
        int8, float32 = made.milliseconds
        print(f"int8 takes {int8:.1f} ms per image on this machine, and float32 {float32:.1f} ms")
        if int8 >= float32:
            print("warning: int8 is no faster here: leave --int8 out, unless another machine runs it", file=sys.stderr)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="squad-lit export", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, required=True, help="last.ckpt of a run")
    parser.add_argument("--format", choices=("onnx", "openvino", "torch"), required=True, help="what runs the file")
    parser.add_argument("--output", type=Path, required=True, help="file: .onnx, .xml (and .bin beside it) or .pt2")
    rate = "share of normal images labelled anomalous (default: from known defects, or the rate of the training)"
    parser.add_argument("--false-alarm-rate", type=float, metavar="RATE", help=rate)
    static = "take images of this number and size alone, as TensorRT, OAK and Hailo need it; best the model's own size"
    parser.add_argument("--static", type=_static, metavar="N,H,W", help=static)
    fp16 = "compute the networks in 16-bit floats (onnx), or keep the weights in them (openvino)"
    parser.add_argument("--fp16", action="store_true", help=fp16)
    int8 = "quantise the backbone to 8 bits (onnx only), by the ranges that it has on the normal images in DIR"
    parser.add_argument("--int8", type=Path, metavar="DIR", help=int8)
    trust = "package whose classes the checkpoint may name; may be repeated"
    parser.add_argument("--trust", action="append", default=[], metavar="PACKAGE", help=trust)
    options = parser.parse_args(arguments)
    if options.int8 and options.format != "onnx":
        parser.error("--int8 is for --format onnx")
    if options.fp16 and options.format == "torch":
        parser.error("--fp16 is for --format onnx and openvino")
    if options.int8 and (options.fp16 or options.static):
        parser.error("--int8 goes with neither --fp16 nor --static, whose compilers quantise by themselves")
    return options


def _static(text: str) -> list[int]:
    """Number, height and width of images."""
    parts = text.split(",")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"expected number, height and width, such as 1,256,256, got {text}")
    return [int(part) for part in parts]


if __name__ == "__main__":
    sys.exit(main())
