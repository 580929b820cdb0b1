"""The truth: the same computation without a graph, on a GPU and, with a stand-in of CUDA graphs, on any machine."""

import contextlib
import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_squad import draw, make
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from squad_lit.training.graph import Graph

_READS = [getattr(torch.ops.aten, name).default for name in ("_local_scalar_dense", "item", "is_nonzero")]


class Recorded(TorchDispatchMode):
    """Stands for a CUDA graph: notes each operation with its tensors, and replays them into the same memory.

    As under CUDA, Python does not run in a replay, what was computed before the capture stays as it was then, and no
    value is read in a capture.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _READS:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore lines")
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out

    def replay(self) -> None:
        with torch.no_grad():
            for func, args, kwargs, out in self.calls:
                for into, new in zip(tree_leaves(out), tree_leaves(func(*args, **kwargs)), strict=True):
                    if isinstance(into, Tensor) and into.data_ptr() != new.data_ptr():
                        into.copy_(new)


@pytest.fixture(params=["recorded", "cuda"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("CUDA graphs need a CUDA device")
        return "cuda"
    record(monkeypatch)
    return "cpu"


def record(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let graphs be captured on the CPU."""
    stream = SimpleNamespace(wait_stream=lambda other: None)
    stand_in = {
        "device": lambda device: contextlib.nullcontext(),
        "stream": lambda stream: contextlib.nullcontext(),
        "Stream": lambda: stream,
        "current_stream": lambda: stream,
        "CUDAGraph": Recorded,
        "graph": lambda graph: graph,
        "get_rng_state": torch.get_rng_state,
        "set_rng_state": torch.set_rng_state,
    }
    for name, function in stand_in.items():
        monkeypatch.setattr(torch.cuda, name, function)


def small(device: str) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.Linear(8, 1)).to(device)


def step(module: nn.Module, batch: dict[str, Tensor], scale: float) -> Tensor:
    loss = scale * module(batch["x"]).square().mean()
    loss.backward()
    return loss.detach()


def test_losses_gradients_buffers_and_random_numbers_are_those_of_the_eager_step(device):
    eager = small(device)
    captured = copy.deepcopy(eager)
    graph = Graph(captured, lambda batch, scale: step(captured, batch, scale))
    optimizers = [torch.optim.AdamW(m.parameters(), lr=0.1, fused=True) for m in (eager, captured)]
    for number in range(8):
        batch = {"x": torch.randn(16 if number < 6 else 5, 4, device=device)}  # another shape is captured anew
        scale = 1.0 if number < 3 else 2.0
        torch.manual_seed(number)
        eager.zero_grad()
        expected = step(eager, batch, scale)
        torch.manual_seed(number)
        torch.testing.assert_close(graph(batch, scale), expected)
        for a, b in zip(eager.parameters(), captured.parameters(), strict=True):
            torch.testing.assert_close(b.grad, a.grad)
        for optimizer in optimizers:
            optimizer.step()
        for a, b in zip(eager.buffers(), captured.buffers(), strict=True):
            torch.testing.assert_close(b, a)


def test_a_module_alone_is_captured_for_inference(device):
    module = small(device).eval()
    graph = Graph(module)
    with torch.inference_mode():
        for _ in range(3):
            x = torch.randn(1, 4, device=device)
            torch.testing.assert_close(graph(x), module(x))


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
def test_a_training_step_that_is_replayed_learns_as_an_eager_one(device, half):
    modules = []
    for _ in range(2):
        module = make("discriminator=both").to(device).train()
        module.manual_backward = lambda loss: loss.backward()  # type: ignore[method-assign,assignment]
        module._losses_and_gradients = module._backward
        optimizer = torch.optim.AdamW(module.parameters(), lr=1e-2, fused=True)
        module.optimizers = lambda optimizer=optimizer, **_: optimizer  # type: ignore[method-assign]
        modules.append((module, optimizer))
    modules[1][0]._losses_and_gradients = Graph(modules[1][0], modules[1][0]._backward)
    batch = draw(modules[0][0].cpu())
    modules[0][0].to(device)
    for number, adversarial in enumerate([False, False, True]):
        losses = []
        for module, optimizer in modules:
            torch.manual_seed(number)
            with torch.autocast(device, torch.bfloat16, enabled=half):
                log = module._losses_and_gradients(on(device, batch), adversarial)
            losses.append({name: value.clone() for name, value in log.items()})
            optimizer.step()
        # Sums of gradients are rounded in another order.
        torch.testing.assert_close(losses[1], losses[0], **{"rtol": 0.02, "atol": 0.0} if half else {})


def on(device: str, batch: dict[str, Any]) -> dict[str, Any]:
    return {k: on(device, v) if isinstance(v, dict) else v.to(device) for k, v in batch.items()}


def test_what_waits_for_the_device_is_told_with_the_option():
    with pytest.MonkeyPatch.context() as patch:
        record(patch)
        graph = Graph(small("cpu"), lambda x: x * float(x.sum()))
        with pytest.raises(
            ValueError,
            match=r"cannot be captured .* \(CUDA error: .* capturing\): train with model.cuda_graph=false$",
        ):
            graph(torch.ones(2))
