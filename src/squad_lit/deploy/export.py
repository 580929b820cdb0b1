"""A trained model as one file for other runtimes: ONNX, OpenVINO or ``torch.export``."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import shutil
import statistics
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from squad_lit.deploy.half import halve
from squad_lit.deploy.metadata import KEY
from squad_lit.deploy.pixel_model import Inference, describe
from squad_lit.deploy.runtime import open_runtime
from squad_lit.deploy.seal import OPEN, seal
from squad_lit.system.file import make_place, whole_beside
from squad_lit.system.package import require
from squad_lit.training import checkpoint

# Version of ONNX's operators: an antialiased Resize needs 18; ONNX Runtime reads 20 since its version 1.17.
OPSET = 20
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}
# Number of images on which an int8 file is compared with its checkpoint.
COMPARED = 8
# Relative difference of scores from which on it is said that the threshold is not quite theirs.
_SHIFT = 0.01
# Packages that a format needs beside torch.
_PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("openvino",), "torch": ()}


class Exported(NamedTuple):
    """What is known of a file that was written.

    Args:
        threshold: Scores above it are labelled anomalous.
        differences: By which share each score of the file is above that of the checkpoint, on two images of noise or,
            with ``int8``, on some of its images.
        milliseconds: With ``int8`` the median time per image, or tile, of this file and of the one in float32.
    """

    threshold: float
    differences: list[float]
    milliseconds: tuple[float, float] | None

    @property
    def difference(self) -> float:
        """The largest of the differences, without its sign."""
        return max(map(abs, self.differences))

    @property
    def shift(self) -> str:
        """A sentence if the scores differ by more than a hundredth, so that the threshold is not quite theirs."""
        if self.difference <= _SHIFT:
            return ""
        return (
            f"the threshold {self.threshold:.3g} comes from scores of the checkpoint, and those of this file are "
            f"{100 * min(self.differences):+.0f} to {100 * max(self.differences):+.0f} % apart, "
            f"{100 * statistics.median(self.differences):+.0f} % in the middle; squad-lit validate shows which labels "
            f"differ, and predict --threshold takes another threshold"
        )


def export(
    path: Path,
    output: Path,
    form: str,
    *,
    false_alarm_rate: float | None = None,
    static: Sequence[int] | None = None,
    fp16: bool = False,
    int8: Path | None = None,
    trust: Sequence[str] = (),
) -> Exported:
    """Export a checkpoint, and compare the file with it. The file is written whole or not at all.

    Args:
        path: The checkpoint.
        output: The file to write.
        form: ``onnx``, ``openvino`` or ``torch``.
        false_alarm_rate: See :func:`squad_lit.deploy.pixel_model.thresholds`.
        static: Number, height and width of the images that the file takes, for compilers that know no other sizes; None
            takes any.
        fp16: Whether the networks compute in 16-bit floats (``onnx``), or the weights are kept in them (``openvino``).
        int8: Folder of normal training images. The backbone of an ONNX file is then quantised to 8 bits, with the
            ranges of values that it has on them.
        trust: Packages whose classes the checkpoint may name.

    Raises:
        OSError: There is no such checkpoint, or the place cannot be written to.
        ValueError: The file is no checkpoint, the suffix is wrong, the rate is out of range, or the size is not that of
            the tiles of a model with tiles.
        ImportError: A package that the format needs is missing.
    """
    if output.suffix != SUFFIXES[form]:
        raise ValueError(f"--output: a file for {form} ends in {SUFFIXES[form]}, got {output.name}")
    check_packages(form)  # now, and not after minutes
    if int8 is not None:
        from squad_lit.deploy.int8 import choose_images, inputs, quantize

        images = choose_images(int8)
    detector = checkpoint.load(path, trust=trust)
    precision = "float32" if not fp16 else "float16" if form == "onnx" else "float16 weights"
    about = describe(detector, false_alarm_rate) | {"format_of_file": form, "precision": precision}
    if static is not None:
        _fix(about, static)
    own_size = static is not None and list(static[1:]) == detector.tile_size
    module = Inference(detector, about["threshold"], own_size=own_size).eval().requires_grad_(False)
    make_place(output)
    with whole_beside(output) as place, quiet():
        made = place / output.name
        computed = halve(module) if about["precision"] == "float16" else module
        {"torch": write_torch, "openvino": write_openvino, "onnx": write_onnx}[form](computed, made, about)
        if int8 is not None:
            shutil.copyfile(made, float32 := made.with_name(f"float32_{made.name}"))
            quantize(made, images, about)
        noise = _example(about).numpy()
        if static is None:
            noise = noise.repeat(2, 1)[:, :, :200]  # another size than that of the example
        compared = inputs(images[:COMPARED], about) if int8 is not None else iter(noise)
        differences, times = _differences(module, made, compared), None
        if int8 is not None:
            times = _milliseconds(made, float32, list(inputs(images[:COMPARED], about)))
            float32.unlink()
    return Exported(about["threshold"], differences, times)


def check_packages(form: str) -> None:
    """Import what a format needs beside torch.

    Raises:
        ImportError: A package is missing.
    """
    for package in _PACKAGES[form]:
        require(package)


def write_torch(module: nn.Module, path: Path, about: dict[str, Any]) -> None:
    """Write a ``torch.export`` program, ``.pt2``."""
    sides = {i: torch.export.Dim(name) for i, name in enumerate("NHW")}
    shapes = None if _is_fixed(about) else (sides,)
    program = torch.export.export(module, (_example(about),), dynamic_shapes=shapes)
    content = io.BytesIO()  # given a path, torch ends the process on a full disk
    torch.export.save(program, content, extra_files={KEY: json.dumps(about)})
    path.write_bytes(content.getbuffer())


def write_onnx(module: nn.Module, path: Path, about: dict[str, Any]) -> None:
    """Write an ONNX file."""
    import onnx

    program = torch.onnx.export(
        module,
        (_example(about),),
        dynamic_shapes=None if _is_fixed(about) else ({0: "N", 1: "H", 2: "W"},),
        dynamo=True,
        opset_version=OPSET,
        input_names=["image"],
        output_names=list(about["outputs"]),
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    for node in model.graph.node:  # stack traces, with the paths of this machine
        node.ClearField("metadata_props")
    onnx.helper.set_model_props(model, {KEY: json.dumps(about | {"opset": OPSET, "digest": OPEN})})
    onnx.save(model, path)
    seal(path)


def write_openvino(module: nn.Module, path: Path, about: dict[str, Any]) -> None:
    """Write OpenVINO's IR, which computes in float32 and may keep its weights in float16.

    It is converted from the module, because OpenVINO's reader of ONNX ignores that a Resize is antialiased.
    """
    import openvino

    image = _example(about)
    # Traced as a function: Lightning's modules have properties that do not survive being traced.
    traced = torch.jit.trace(lambda image: module(image), image, check_trace=False)
    shape = openvino.PartialShape(about["input"]["shape"] if _is_fixed(about) else [-1, -1, -1, 3])
    model = openvino.convert_model(traced, example_input=image, input=[shape])
    first, *_, last = model.get_results()
    if first.input_value(0) == last.input_value(0):  # nothing is resized; a file keeps one name per tensor
        apart = openvino.opset13.reshape(last.input_value(0), [0, 0, 0], special_zero=True)
        last.input(0).replace_source_output(apart.output(0))
    for port, name in zip([*model.inputs, *model.outputs], ["image", *about["outputs"]], strict=True):
        port.get_tensor().set_names({name})
    model.set_rt_info(json.dumps(about | {"digest": OPEN}), [KEY])
    openvino.save_model(model, path, compress_to_fp16=about["precision"] != "float32")
    seal(path)


def _fix(about: dict[str, Any], static: Sequence[int]) -> None:
    """Write the number and the size of the images into the description.

    Raises:
        ValueError: The size is not that of the tiles.
    """
    count, height, width = static
    if about["tile"] is not None and {height, width} != {about["tile"]["side"]}:
        side = about["tile"]["side"]
        raise ValueError(f"--static {count},{height},{width}: the model looks at tiles, so it takes N,{side},{side}")
    for port in (about["input"], *about["outputs"].values()):
        port["shape"] = [{"N": count, "H": height, "W": width}.get(side, side) for side in port["shape"]]


def _is_fixed(about: dict[str, Any]) -> bool:
    return "N" not in about["input"]["shape"]


def _example(about: dict[str, Any]) -> Tensor:
    """Two images whose sides differ from each other and from the model's, so that no size becomes a constant."""
    shape = about["input"]["shape"] if _is_fixed(about) else (2, 300, 280, 3)
    noise = torch.randint(0, 256, tuple(shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return noise if about["input"]["type"] == "uint8" else noise / 255


def _differences(module: nn.Module, path: Path, images: Iterable[NDArray[Any]]) -> list[float]:
    """By which share the score of the file is above that of the module, for each image ``(H, W, 3)``."""
    runtime, differences = open_runtime(path), []
    for image in images:
        with torch.inference_mode():
            _, expected, *_ = module(torch.tensor(image[None]))
        found = runtime.run(image[None]).anomaly_score
        differences.append(float(found[0] / expected[0]) - 1)
        if not math.isfinite(differences[-1]):
            raise ValueError(f"the checkpoint gives the score {float(expected[0])}, and the exported file {found[0]}")
    return differences


def _milliseconds(one: Path, other: Path, images: Sequence[NDArray[Any]]) -> tuple[float, float]:
    """Median times per image of two files, in turns, after a first pass that does not count."""
    runtimes = [open_runtime(path) for path in (one, other)]
    times: list[list[float]] = [[], []]
    for number, image in enumerate([images[0], *images, *images]):
        for runtime, own in zip(runtimes, times, strict=True):
            start = time.perf_counter()
            runtime.run(image[None])
            if number:
                own.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[0]), statistics.median(times[1])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporters, which warn about themselves and about sizes that are constants here."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
