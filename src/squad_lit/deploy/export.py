"""A trained model as one file for other runtimes: ONNX, OpenVINO or ``torch.export``."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from squad_lit.deploy.runtime import KEY, open_runtime
from squad_lit.system.file import make_place

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

# Of ONNX's operators: the first with an antialiased Resize is 18; 20 is read by ONNX Runtime 1.17 and later.
OPSET = 20
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}
# Images on which an int8 file is compared with its checkpoint.
COMPARED = 8
# What an export needs beside torch.
_PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("openvino",), "torch": ()}


def export(
    path: Path,
    output: Path,
    form: str,
    *,
    false_alarm_rate: float | None = None,
    calibrate: Path | None = None,
    trust: Sequence[str] = (),
) -> tuple[float, float]:
    """Export a checkpoint, whole or not at all, and compare the file with it.

    Args:
        path: Of the checkpoint.
        output: Of the file to write.
        form: ``onnx``, ``openvino`` or ``torch``.
        false_alarm_rate: Share of normal images that the label calls anomalous; None: see
            :func:`squad_lit.deploy.threshold.choose`.
        calibrate: Folder of normal images; with it the backbone of an ONNX file is quantised to 8 bits.
        trust: Packages whose classes the checkpoint may name.

    Returns:
        The threshold of the label, and the largest relative difference of the scores of two images of noise or, where
        the ranges are those of real ones, of some of these.

    Raises:
        OSError: No such checkpoint, or a place that cannot be written to.
        ValueError: A file that is no checkpoint, a wrong suffix, or a rate out of range.
        ImportError: A package of the extra ``export`` is missing.
    """
    if output.suffix != SUFFIXES[form]:
        raise ValueError(f"--output: a file for {form} ends in {SUFFIXES[form]}, got {output.name}")
    _check_packages(form)
    if calibrate is not None:
        from squad_lit.deploy.int8 import calibration_images, inputs, quantize

        images = calibration_images(calibrate)
    from squad_lit.deploy.pixel_model import Inference, describe
    from squad_lit.training import checkpoint

    detector = checkpoint.load(path, trust=trust)
    about = describe(detector, false_alarm_rate) | {"format_of_file": form, "precision": "float32"}
    module = Inference(detector, about["threshold"]).eval().requires_grad_(False)
    names = list(about["outputs"])
    make_place(output)
    # A folder beside it: an export that fails leaves nothing, and a place that cannot be written to is found out now.
    with tempfile.TemporaryDirectory(dir=output.parent) as place, quiet():
        made = Path(place) / output.name
        if form == "torch":
            write_torch(module, made, about)
        elif form == "openvino":
            write_openvino(module, made, about, names)
        else:
            write_onnx(module, made, about, names)
            if calibrate is not None:
                quantize(made, images, about)
        noise = _example(about).numpy().repeat(2, 1)[:, :, :200]  # of another size than the example
        compared = inputs(images[:COMPARED], about) if calibrate is not None else iter(noise)
        difference = _difference(module, made, compared)
        for file in sorted(Path(place).iterdir()):  # .bin before .xml: who sees the latter can read it
            os.replace(file, output.parent / file.name)
    return about["threshold"], difference


def write_torch(module: nn.Module, path: Path, about: dict[str, Any]) -> None:
    """Write a ``torch.export`` program."""
    import torch

    sides = {i: torch.export.Dim(name) for i, name in enumerate("NHW")}
    program = torch.export.export(module, (_example(about),), dynamic_shapes=(sides,))
    torch.export.save(program, path, extra_files={KEY: json.dumps(about)})


def write_onnx(module: nn.Module, path: Path, about: dict[str, Any], names: Sequence[str]) -> None:
    """Write an ONNX file with the outputs of these names."""
    import onnx
    import torch

    program = torch.onnx.export(
        module,
        (_example(about),),
        dynamic_shapes=({0: "N", 1: "H", 2: "W"},),
        dynamo=True,
        opset_version=OPSET,
        input_names=["image"],
        output_names=list(names),
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    for node in model.graph.node:  # stack traces, with the paths of this machine
        node.ClearField("metadata_props")
    onnx.helper.set_model_props(model, {KEY: json.dumps(about | {"opset": OPSET})})
    onnx.save(model, path)


def write_openvino(module: nn.Module, path: Path, about: dict[str, Any], names: Sequence[str]) -> None:
    """Write OpenVINO's IR, float32, with the outputs of these names.

    From the module and not from its ONNX file: OpenVINO's reader of the latter ignores that a Resize is antialiased.
    """
    import openvino
    import torch

    image = _example(about)
    # Traced as a function: Lightning's modules have properties that do not survive being traced.
    traced = torch.jit.trace(lambda image: module(image), image, check_trace=False)
    model = openvino.convert_model(traced, example_input=image, input=[openvino.PartialShape([-1, -1, -1, 3])])
    for port, name in zip([*model.inputs, *model.outputs], ["image", *names], strict=True):
        port.get_tensor().set_names({name})
    model.set_rt_info(json.dumps(about), [KEY])
    openvino.save_model(model, path, compress_to_fp16=False)


def _example(about: dict[str, Any]) -> Tensor:
    """Two images whose sides differ from each other and from the model's: no size is taken for a constant."""
    import torch

    noise = torch.randint(0, 256, (2, 300, 280, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return noise if about["input"]["type"] == "uint8" else noise / 255


def _difference(module: nn.Module, path: Path, images: Iterable[NDArray[Any]]) -> float:
    """Largest relative difference of the scores of module and file, of images ``(H, W, 3)``."""
    import torch

    runtime, largest = open_runtime(path), 0.0
    for image in images:
        with torch.inference_mode():
            _, expected, *_ = module(torch.tensor(image[None]))
        found = runtime.run(image[None]).anomaly_score
        largest = max(largest, abs(float(found[0] / expected[0]) - 1))
    return largest


def _check_packages(form: str) -> None:
    for name in _PACKAGES[form]:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ImportError(
                f"--format {form} needs the package {name}: pip install 'squad_lit[export]', or pip install {name}"
            ) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what the exporters say about themselves and about sizes that are constants here."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
