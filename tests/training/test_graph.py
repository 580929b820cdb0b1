"""The truth: the same computation without a graph. It needs a GPU."""

import copy

import pytest
import torch
from torch import Tensor, nn

from squad_lit.training.graph import Graph

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a CUDA device")


def make() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.Linear(8, 1)).cuda()


def step(module: nn.Module, batch: dict[str, Tensor], scale: float) -> Tensor:
    loss = scale * module(batch["x"]).square().mean()
    loss.backward()
    return loss.detach()


def test_losses_gradients_buffers_and_random_numbers_are_those_of_the_eager_step():
    eager = make()
    captured = copy.deepcopy(eager)
    graph = Graph(captured, lambda batch, scale: step(captured, batch, scale))
    optimizers = [torch.optim.AdamW(m.parameters(), lr=0.1, fused=True) for m in (eager, captured)]
    for number in range(8):
        batch = {"x": torch.randn(16 if number < 6 else 5, 4, device="cuda")}  # another shape is captured anew
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


def test_a_module_alone_is_captured_for_inference():
    module = make().eval()
    graph = Graph(module)
    with torch.inference_mode():
        for _ in range(3):
            x = torch.randn(1, 4, device="cuda")
            torch.testing.assert_close(graph(x), module(x))
