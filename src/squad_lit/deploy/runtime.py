"""What a trained model runs on: torch, ONNX Runtime or OpenVINO, all behind ``run(image) -> (map, score, model map)``.

Each runtime's own package is imported when it is chosen, so that an exported file needs NumPy, Pillow and that package.
"""

from __future__ import annotations

import importlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from squad_lit.image.file import to_float32, to_uint8
from squad_lit.system.allocator import keep_freed_memory

FORMAT = 3
"""Of an exported file and its description; another one is refused."""
KEY = "squad_lit"
"""Of the description, in the file's own metadata."""


class Output(NamedTuple):
    """What a model says of N images, in deviations from normal.

    Args:
        anomaly_map: ``(N, H, W)``, at the images' resolution.
        anomaly_score: ``(N,)``.
        model_map: ``(N, height, width)``, at the size that the model looks at; the score is its.
    """

    anomaly_map: NDArray[np.float32]
    anomaly_score: NDArray[np.float32]
    model_map: NDArray[np.float32]


class Runtime(Protocol):
    """A trained model, ready to run.

    Args:
        metadata: What :func:`squad_lit.deploy.pixel_model.describe` says of it.
    """

    metadata: dict[str, Any]

    def run(self, image: NDArray[Any]) -> Output:
        """Maps and scores of images, or of tiles, ``(N, H, W, 3)``: uint8, or float32 in [0, 1].

        Exported files of models without tiles take uint8, to which float pixels are rounded.
        """
        ...


def open_runtime(path: str | Path, name: str | None = None, *, trust: Sequence[str] = ()) -> Runtime:
    """Open a checkpoint or an exported file.

    Args:
        path: ``.onnx`` and ``.xml`` are exported for ONNX Runtime and OpenVINO, ``.pt2`` for torch; anything else is
            taken for a checkpoint, which torch runs.
        name: ``torch``, ``onnx`` or ``openvino``; None: by the suffix.
        trust: Packages whose classes a checkpoint may name.

    Raises:
        FileNotFoundError: No such file.
        ValueError: A file of another runtime, damaged, foreign, or exported by a newer squad_lit.
        ImportError: The runtime's package is not installed.
    """
    path = Path(path)
    kind, make = _KINDS.get(path.suffix.lower(), ("torch", Checkpoint))
    if name not in (None, kind):
        raise ValueError(
            f"--runtime {name} cannot run {path.name}, which is for {kind}: leave --runtime out, or export the "
            f"checkpoint with python -m squad_lit.export --format {name}"
        )
    if path.suffix.lower() in _KINDS and not path.is_file():
        raise FileNotFoundError(f"no exported model {path.resolve()}; python -m squad_lit.export writes one")
    return make(path, trust) if make is Checkpoint else make(path)


class Torch:
    """What torch runs: a module that takes pixels."""

    metadata: dict[str, Any]
    _model: Any

    def run(self, image: NDArray[Any]) -> Output:
        import torch

        with torch.inference_mode():
            anomaly_map, score, _, model_map = self._model(torch.tensor(self._input(image)))
        return Output(anomaly_map.numpy(), score.numpy(), model_map.numpy())

    def _input(self, image: NDArray[Any]) -> NDArray[Any]:
        return image


class Checkpoint(Torch):
    """A checkpoint that a run wrote."""

    def __init__(self, path: Path, trust: Sequence[str] = ()) -> None:
        from squad_lit.deploy.pixel_model import Inference, describe
        from squad_lit.training import checkpoint

        keep_freed_memory()
        detector = checkpoint.load(path, trust=trust)
        self.metadata = describe(detector)
        self._model = Inference(detector, self.metadata["threshold"])


class Program(Torch):
    """A ``torch.export`` program. Parts of it are unpickled, so that a foreign one can run code."""

    def __init__(self, path: Path) -> None:
        torch = _import("torch", "torch")
        keep_freed_memory()
        found = {KEY: ""}
        logging.disable(logging.ERROR)  # torch logs a stack trace of what is raised all the same
        try:
            self._model = torch.export.load(path, extra_files=found).module()
        except Exception as error:
            raise ValueError(f"{path} is not a readable torch.export program: damaged, or another file") from error
        finally:
            logging.disable(logging.NOTSET)
        self.metadata = _metadata(path, found[KEY])

    def _input(self, image: NDArray[Any]) -> NDArray[Any]:
        return _as_input(image, self.metadata)


class Onnx:
    """An ONNX file, on ONNX Runtime."""

    def __init__(self, path: Path) -> None:
        onnxruntime = _import("onnxruntime", "onnxruntime")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors; warnings are about the shapes inside
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # one type for each thing that can be wrong
            raise ValueError(f"{path} is not a readable ONNX file: {error}") from error
        self.metadata = _metadata(path, self._session.get_modelmeta().custom_metadata_map.get(KEY))

    def run(self, image: NDArray[Any]) -> Output:
        return Output(*self._session.run(Output._fields, {"image": _as_input(image, self.metadata)}))


class OpenVino:
    """OpenVINO's IR: an ``.xml`` with the ``.bin`` beside it."""

    def __init__(self, path: Path) -> None:
        openvino = _import("openvino", "openvino")
        if not path.with_suffix(".bin").is_file():
            raise FileNotFoundError(f"{path} needs its weights beside it: no file {path.with_suffix('.bin').resolve()}")
        core = openvino.Core()
        try:
            model = core.read_model(path)
            # float32: on some processors the default is bfloat16, which moves codes.
            self._model = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        except RuntimeError as error:
            raise ValueError(f"{path} is not a readable model of OpenVINO: {error}") from error
        self.metadata = _metadata(path, model.get_rt_info([KEY]).value if model.has_rt_info([KEY]) else None)

    def run(self, image: NDArray[Any]) -> Output:
        found = self._model(_as_input(image, self.metadata))
        return Output(*(found[name] for name in Output._fields))


# Of the description, what is read of it here and in :mod:`squad_lit.deploy.predictor`.
_NEEDED = {"squad_lit", "image_size", "tile", "top", "intensity_range", "false_alarm_rate", "normal_scores"}
_NEEDED |= {"normal_maxima", "defective_scores", "roi", "input"}

_KINDS: dict[str, tuple[str, Callable[[Path], Runtime]]] = {
    ".onnx": ("onnx", Onnx),
    ".xml": ("openvino", OpenVino),
    ".pt2": ("torch", Program),
}


def _import(name: str, package: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"this model needs the package {package}: pip install {package}") from error


def _as_input(image: NDArray[Any], metadata: dict[str, Any]) -> NDArray[Any]:
    """Pixels of the type that the graph takes."""
    return to_uint8(image) if metadata["input"]["type"] == "uint8" else to_float32(image)


def _metadata(path: Path, text: str | None) -> dict[str, Any]:
    """The description of an exported file, checked."""
    if not text:
        raise ValueError(f"{path} was not written by squad_lit.export: it has no metadata {KEY!r}")
    try:
        found: dict[str, Any] = json.loads(text)
        known = type(found["format"]) is int and (found["format"] != FORMAT or found.keys() >= _NEEDED)
    except (ValueError, TypeError, LookupError):
        known = False
    if not known:
        raise ValueError(f"{path} is damaged, or not of squad_lit.export: its metadata {KEY!r} is not whole")
    if found["format"] < FORMAT:
        raise ValueError(
            f"{path} was exported by squad_lit {found['squad_lit']}, which is older than this one: export the "
            f"checkpoint anew with python -m squad_lit.export"
        )
    if found["format"] > FORMAT:
        raise ValueError(
            f"{path} was exported by squad_lit {found['squad_lit']}, which is newer than this one: update squad_lit"
        )
    return found
