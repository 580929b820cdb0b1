"""Where a trained model computes: the devices of torch, ONNX Runtime and OpenVINO by one set of names.

What is asked for and is not there is an error, never a silent CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

CPU = "CPUExecutionProvider"
_PROVIDERS = {
    "cpu": CPU,
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}
NAMES = "auto, cpu, cuda or cuda:1; for .onnx also tensorrt, directml or coreml; for .xml also gpu or npu"
"""The names of devices, in words."""


def torch_device(name: str) -> torch.device:
    """The device of torch; ``auto`` is the first CUDA device or, without one, the CPU.

    Raises:
        ValueError: The name is unknown to torch, or there is no such device.
    """
    import torch

    count = torch.cuda.device_count()
    if name == "auto":
        return torch.device("cuda:0" if count else "cpu")
    kind, number = _split(name, ("cpu", "cuda"), "torch")
    if kind == "cuda" and number >= count:
        raise _missing(name, f"torch sees {count} CUDA devices")
    return torch.device(kind, number) if kind == "cuda" else torch.device(kind)


def onnx_providers(name: str, available: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """The execution providers of ONNX Runtime, the wanted one first; ``auto`` is CUDA or, without it, the CPU.

    Raises:
        ValueError: The name is unknown, or this ONNX Runtime was built without it.
    """
    if name == "auto":
        name = "cuda" if _PROVIDERS["cuda"] in available else "cpu"
    kind, number = _split(name, _PROVIDERS, "ONNX Runtime")
    if (provider := _PROVIDERS[kind]) not in available:
        raise _missing(name, f"this ONNX Runtime has {', '.join(available)}; CUDA needs the package onnxruntime-gpu")
    if kind == "cpu":
        return [(CPU, {})]
    # What the device has no kernel for runs on the CPU.
    return [(provider, {} if kind == "coreml" else {"device_id": number}), (CPU, {})]


def openvino_device(name: str, available: Sequence[str]) -> str:
    """The device of OpenVINO; ``auto`` is the CPU.

    Raises:
        ValueError: The name is unknown, or OpenVINO sees no such device.
    """
    kind, number = _split("cpu" if name == "auto" else name, ("cpu", "gpu", "npu"), "OpenVINO")
    found = kind.upper() if number == 0 else f"{kind.upper()}.{number}"
    if found not in available and f"{found}.0" not in available:
        raise _missing(name, f"OpenVINO sees {', '.join(available)}")
    return found


def _split(name: str, known: Any, runtime: str) -> tuple[str, int]:
    kind, colon, number = name.partition(":")
    if kind not in known or (colon and (kind == "cpu" or not number.isdecimal())):
        choices, numbered = ", ".join(["auto", *known]), next(k for k in known if k != "cpu")
        raise ValueError(f"device={name}: expected {choices} for {runtime}, or one with a number, as in {numbered}:1")
    return kind, int(number or 0)


def _missing(name: str, found: str) -> ValueError:
    return ValueError(f"device={name} is not there: {found}; leave it out to take what there is")
