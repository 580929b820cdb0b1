"""The backbone of an exported ONNX file in 8 bits."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from onnxruntime import quantization

from squad_lit.deploy.runtime import KEY
from squad_lit.image.file import find_images, read_pixels, resize_pixels, to_uint8
from squad_lit.image.tile import Grid

# Images whose ranges are looked at, at most.
_IMAGES = 64
# What the names of its weights start with. The rest stays in float32: it judges differences that 8 bits would drown.
_BACKBONE = "detector.backbone."


def calibration_images(folder: Path) -> list[Path]:
    """The images of a folder, read recursively; of more than 64 a regular choice.

    Raises:
        ValueError: There is none.
    """
    if not folder.is_dir():
        raise ValueError(f"--calibrate: no folder {folder.resolve()}; name one of normal training images")
    images = find_images([folder])
    return images[:: -(-len(images) // _IMAGES)]


def quantize(path: Path, images: Sequence[Path], about: dict[str, Any]) -> None:
    """Quantise the convolutions of the backbone, in place: weights per channel, activations by ranges on real images.

    Not the one that sees the image's 3 channels, nor depthwise ones, which are cheap and lose most
    (experiments/export).

    Args:
        path: An ONNX file that :mod:`squad_lit.deploy.export` wrote.
        images: Normal training images.
        about: The description to write into the file.

    Raises:
        ValueError: No convolution in the backbone.
        OSError: An image that cannot be read.
    """
    model = onnx.load(path)
    weights = {value.name: value.dims for value in model.graph.initializer if value.name.startswith(_BACKBONE)}
    chosen = [n.name for n in model.graph.node if n.op_type == "Conv" and weights.get(n.input[1], [0, 3])[1] > 3]
    if not chosen:
        raise ValueError("--int8 quantises convolutions, and this backbone has none")
    quantization.quantize_static(
        model,
        path,
        _Reader(images, about),
        per_channel=True,
        nodes_to_quantize=chosen,
        activation_type=quantization.QuantType.QUInt8,
    )
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {KEY: json.dumps(about | {"precision": "int8 backbone"})})
    onnx.save(model, path)


class _Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
    """Images one by one, or a tile of each, as the graph takes them."""

    def __init__(self, paths: Sequence[Path], about: dict[str, Any]) -> None:
        self._images = inputs(paths, about)

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        image = next(self._images, None)
        return None if image is None else {"image": image[None]}


def inputs(paths: Iterable[Path], about: dict[str, Any]) -> Iterator[NDArray[Any]]:
    """Images, or a tile of each, ``(H, W, 3)`` as a graph takes them."""
    for number, path in enumerate(paths):
        pixels = read_pixels(path, about["intensity_range"])
        if about["tile"] is None:
            yield to_uint8(pixels)
        else:
            windows = Grid(about["image_size"], **about["tile"]).windows
            yield resize_pixels(pixels, about["image_size"])[windows[number % len(windows)]]
