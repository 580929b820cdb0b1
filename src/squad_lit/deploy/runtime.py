"""The runtimes of a trained model: torch, ONNX Runtime and OpenVINO, all behind ``run(image) -> Output``.

The package of a runtime is imported when it is chosen, so an exported file needs NumPy, Pillow and that package alone.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from squad_lit.deploy.device import CPU, onnx_providers, openvino_device, torch_device
from squad_lit.deploy.fixed_size import FixedSize
from squad_lit.deploy.metadata import KEY, read_metadata
from squad_lit.deploy.seal import check_seal, weights_beside
from squad_lit.image.file import to_float32, to_uint8
from squad_lit.image.tile import AT_ONCE
from squad_lit.system.allocator import keep_freed_memory
from squad_lit.system.file import check_archive
from squad_lit.system.package import require

if TYPE_CHECKING:
    import torch

# Images that keep a GPU busy.
_GPU_BATCH = 64


class Output(NamedTuple):
    """The maps and scores of N images, in deviations from normal.

    Args:
        anomaly_map: ``(N, H, W)``, at the resolution of the images.
        anomaly_score: ``(N,)``.
        model_map: ``(N, height, width)``, at the size of the model's input; the score is computed on it.
    """

    anomaly_map: NDArray[np.float32]
    anomaly_score: NDArray[np.float32]
    model_map: NDArray[np.float32]


class Runtime(Protocol):
    """A trained model, ready to run.

    Args:
        metadata: Description of the model, made by :func:`squad_lit.deploy.pixel_model.describe`.
        device: Where it computes, in words.
        batch: Images that are best computed together.
    """

    metadata: dict[str, Any]
    device: str
    batch: int

    def run(self, image: NDArray[Any]) -> Output:
        """Compute maps and scores.

        Args:
            image: Images, or tiles of one, ``(N, H, W, 3)``: uint8, or float32 in [0, 1]. An exported file of a model
                without tiles takes 8 bits, so float pixels are rounded.
        """
        ...


def open_runtime(
    path: str | Path, name: str | None = None, *, trust: Sequence[str] = (), device: str = "auto"
) -> Runtime:
    """Open a checkpoint or an exported file.

    Args:
        path: An exported file, ``.onnx`` for ONNX Runtime, ``.xml`` for OpenVINO or ``.pt2`` for torch. Any other
            suffix means a checkpoint, which torch runs.
        name: ``torch``, ``onnx`` or ``openvino``; None chooses by the suffix.
        trust: Packages whose classes a checkpoint may name.
        device: See :func:`squad_lit.load`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, foreign, for another runtime, or exported by another version; or the device is
            not there.
        ImportError: The package of the runtime is not installed.
    """
    path = Path(path)
    kind, make = _KINDS.get(path.suffix.lower(), ("torch", Checkpoint))
    if name not in (None, kind):
        raise ValueError(
            f"runtime {name} cannot run {path.name}, which is for {kind}: leave it out"
            + (
                f", or export the checkpoint with squad-lit export --format {name}"
                if name in ("onnx", "openvino")
                else ""
            )
        )
    if path.suffix.lower() in _KINDS and not path.is_file():
        raise FileNotFoundError(f"no exported model {path.resolve()}; python -m squad_lit.export writes one")
    if make is Checkpoint:
        return make(path, device, trust)
    runtime = make(path, device)
    return runtime if "N" in runtime.metadata["input"]["shape"] else FixedSize(runtime)


class Torch:
    """A module that torch runs on pixels; on a GPU one image at a time is a captured graph."""

    metadata: dict[str, Any]
    batch = AT_ONCE
    captures = True
    """Whether a GPU may replay a captured graph, which does not see that the model has changed in between."""

    def _start(self, model: Any, device: torch.device) -> None:
        self._model, self._single, self._device, self.device = model, model, device, str(device)
        self._last: tuple[int, ...] = ()
        self._turn: Any = contextlib.nullcontext()
        if device.type == "cuda":
            from squad_lit.training.graph import Graph

            self.batch = _GPU_BATCH
            self.device += f" ({require('torch').cuda.get_device_name(device)})"
            self._single = Graph(model)
            self._turn = threading.Lock()  # a graph has one memory, and threads may share a model

    def run(self, image: NDArray[Any]) -> Output:
        import torch

        with self._turn, torch.inference_mode():
            pixels = torch.tensor(image, device=self._device)
            # A capture takes as long as some images, so it waits for a second one of a size.
            repeated = self.captures and len(image) == 1 and image.shape == self._last
            self._last = image.shape
            anomaly_map, score, _, model_map = self._replay(pixels) if repeated else self._model(pixels)
            return Output(anomaly_map.cpu().numpy(), score.cpu().numpy(), model_map.cpu().numpy())

    def _replay(self, pixels: torch.Tensor) -> Any:
        try:
            return self._single(pixels)
        except ValueError:  # a part of one's own waits for the device
            self._single = self._model
            return self._model(pixels)


class Checkpoint(Torch):
    """A checkpoint that a run wrote."""

    def __init__(self, path: Path, device: str, trust: Sequence[str] = ()) -> None:
        from squad_lit.deploy.pixel_model import Inference, describe
        from squad_lit.training import checkpoint

        keep_freed_memory()
        place = torch_device(device)
        self.detector = detector = checkpoint.load(path, trust=trust)
        self.metadata = describe(detector)
        self._start(Inference(detector, self.metadata["threshold"]).to(place), place)


class Program(Torch):
    """A ``torch.export`` program. torch unpickles parts of it, so open only files of a trusted source."""

    def __init__(self, path: Path, device: str) -> None:
        torch = require("torch")
        from torch.export.passes import move_to_device_pass  # torch does not import it by itself

        keep_freed_memory()
        place = torch_device(device)
        found = {KEY: ""}
        logging.disable(logging.ERROR)  # torch logs the stack trace of what it raises
        try:
            check_archive(path)
            program = torch.export.load(path, extra_files=found)
            if place.type != "cpu":
                program = move_to_device_pass(program, str(place))
            model = program.module()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise ValueError(f"{path} is not a readable torch.export program: damaged, or another file") from error
        finally:
            logging.disable(logging.NOTSET)
        self.metadata = read_metadata(path, found[KEY])
        self._start(model, place)

    def run(self, image: NDArray[Any]) -> Output:
        return super().run(_as_input(image, self.metadata))


class Onnx:
    """An ONNX file, on ONNX Runtime."""

    def __init__(self, path: Path, device: str) -> None:
        onnxruntime = require("onnxruntime")
        providers = onnx_providers(device, onnxruntime.get_available_providers())
        options = onnxruntime.SessionOptions()
        check_seal(path)
        options.log_severity_level = 3  # errors only; the warnings are about shapes inside of the graph
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=providers)
        except Exception as error:  # each thing that can be wrong has a type of its own
            raise ValueError(f"{path} is not a readable ONNX file: {' '.join(str(error).split())}") from error
        used = self._session.get_providers()[0]
        if device != "auto" and used != providers[0][0]:  # a library of the device is missing
            raise ValueError(f"device={device}: ONNX Runtime could not start {providers[0][0]}, and offers {used}")
        self.device, self.batch = used, AT_ONCE if used == CPU else _GPU_BATCH
        self.metadata = read_metadata(path, self._session.get_modelmeta().custom_metadata_map.get(KEY))
        _check_ports(path, self._session.get_inputs(), {port.name for port in self._session.get_outputs()})

    def run(self, image: NDArray[Any]) -> Output:
        return Output(*self._session.run(Output._fields, {"image": _as_input(image, self.metadata)}))


class OpenVino:
    """OpenVINO's IR: an ``.xml`` with the ``.bin`` beside it."""

    batch = AT_ONCE

    def __init__(self, path: Path, device: str) -> None:
        openvino = require("openvino")
        if not weights_beside(path).is_file():
            raise FileNotFoundError(f"{path} needs its weights beside it: no file {weights_beside(path).resolve()}")
        check_seal(path)
        core = openvino.Core()
        self.device = openvino_device(device, core.available_devices)
        try:
            model = core.read_model(path)
            # float32: on some processors the default is bfloat16, which moves codes.
            self._model = core.compile_model(model, self.device, {"INFERENCE_PRECISION_HINT": "f32"})
        except RuntimeError as error:
            raise ValueError(f"{path} is not a readable model of OpenVINO: {' '.join(str(error).split())}") from error
        self._own = threading.local()  # a request computes one image at a time, and threads may share a model
        self.metadata = read_metadata(path, model.get_rt_info([KEY]).value if model.has_rt_info([KEY]) else None)
        _check_ports(path, model.inputs, {name for port in model.outputs for name in port.names})

    def run(self, image: NDArray[Any]) -> Output:
        if not hasattr(self._own, "request"):
            self._own.request = self._model.create_infer_request()
        found = self._own.request.infer(_as_input(image, self.metadata), share_inputs=True)
        return Output(*(found[name] for name in Output._fields))


_KINDS: dict[str, tuple[str, Callable[[Path, str], Runtime]]] = {
    ".onnx": ("onnx", Onnx),
    ".xml": ("openvino", OpenVino),
    ".pt2": ("torch", Program),
}


def _check_ports(path: Path, inputs: Sequence[Any], outputs: set[str]) -> None:
    if len(inputs) != 1 or not outputs >= set(Output._fields):
        raise ValueError(f"{path} is damaged, or not of squad_lit.export: its graph has other inputs or outputs")


def _as_input(image: NDArray[Any], metadata: dict[str, Any]) -> NDArray[Any]:
    """The pixels in the type that the graph takes."""
    return to_uint8(image) if metadata["input"]["type"] == "uint8" else to_float32(image)
