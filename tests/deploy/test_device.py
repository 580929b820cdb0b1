"""The truths: names of the three libraries, as their documentation has them, and devices that are not there."""

import pytest
import torch

from squad_lit.deploy.device import onnx_providers, openvino_device, torch_device

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def test_torch_takes_the_first_gpu_or_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert torch_device("auto") == torch.device("cuda:0")
    assert torch_device("cuda") == torch.device("cuda:0")
    assert torch_device("cuda:1") == torch.device("cuda:1")
    assert torch_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match=r"^device=cuda:2 is not there: torch sees 2 CUDA devices"):
        torch_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert torch_device("auto") == torch.device("cpu")
    with pytest.raises(ValueError, match=r"^device=cuda is not there: torch sees 0"):
        torch_device("cuda")


def test_onnx_runtime_gets_the_provider_and_the_cpu_for_what_it_lacks():
    both = ["TensorrtExecutionProvider", CUDA, CPU]
    assert onnx_providers("auto", both) == [(CUDA, {"device_id": 0}), (CPU, {})]
    assert onnx_providers("auto", [CPU]) == [(CPU, {})]
    assert onnx_providers("cuda:1", both) == [(CUDA, {"device_id": 1}), (CPU, {})]
    assert onnx_providers("tensorrt", both)[0] == ("TensorrtExecutionProvider", {"device_id": 0})
    assert onnx_providers("coreml", ["CoreMLExecutionProvider", CPU])[0] == ("CoreMLExecutionProvider", {})
    with pytest.raises(ValueError, match=f"^device=cuda is not there: this ONNX Runtime has {CPU}; .*onnxruntime-gpu"):
        onnx_providers("cuda", [CPU])


def test_openvino_names_its_devices_with_a_point():
    assert openvino_device("auto", ["CPU", "GPU"]) == "CPU"
    assert openvino_device("gpu", ["CPU", "GPU"]) == "GPU"
    assert openvino_device("gpu", ["CPU", "GPU.0", "GPU.1"]) == "GPU"
    assert openvino_device("gpu:1", ["CPU", "GPU.0", "GPU.1"]) == "GPU.1"
    with pytest.raises(ValueError, match=r"^device=npu is not there: OpenVINO sees CPU"):
        openvino_device("npu", ["CPU"])


@pytest.mark.parametrize("name", ["gpu0", "cuda:", "cuda:x", "CPU", "", "tpu", "cpu:3", "cpu:0"])
def test_unknown_names_are_refused_in_words(name):
    onnx, openvino = (lambda n: onnx_providers(n, [CPU])), (lambda n: openvino_device(n, ["CPU"]))
    for choose, example in ((torch_device, "cuda:1"), (onnx, "cuda:1"), (openvino, "gpu:1")):
        with pytest.raises(ValueError, match=rf"^device={name}: expected auto, cpu, .* a number, as in {example}$"):
            choose(name)
