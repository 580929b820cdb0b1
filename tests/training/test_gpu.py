"""What a GPU would refuse or wait for, on any machine.

The truth: tensors of torch's device ``meta`` have no values, so that reading one is an error, and so is an operation
with a tensor of the CPU.
"""

import contextlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from test_graph import Recorded, on, record
from test_pool import SIDE as POOL_SIDE
from test_pool import Pixels, Textures
from test_pool import make as make_pool
from test_squad import SIDE, draw, make
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from squad_lit.deploy.pixel_model import Inference
from squad_lit.deploy.runtime import Torch
from squad_lit.image.tile import Grid
from squad_lit.training.graph import Graph
from squad_lit.training.squad import Squad


class OnDevice(TorchDispatchMode):
    """Refuses operations on the CPU, copies to the device included, which a CUDA graph would replay with old values."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves((args, kwargs, out)):
            assert not isinstance(tensor, Tensor) or tensor.device.type == "meta", func
        return out


@pytest.fixture
def autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Meta knows no autocast."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())


def module_and_batch(*overrides: str, model: str) -> tuple[Squad, dict[str, Any]]:
    """A model that is ready for a training step, and its batch, on the device ``meta``."""
    module = make(*overrides, model=model)
    batch = draw(module)
    if module.memory is not None:
        module.memory.fill([module.backbone(torch.rand(3, 3, SIDE, SIDE))], 3, seed=0)
        for part in ("features", "target"):
            batch[part] |= module._beside(batch[part], torch.arange(4) % 3)
    module.manual_backward = lambda loss: loss.backward()  # type: ignore[method-assign,assignment]
    module._losses_and_gradients = module._backward
    module.trainer = SimpleNamespace(  # type: ignore[assignment]
        precision_plugin=SimpleNamespace(scaler=None), log_every_n_steps=10, world_size=1, global_rank=0
    )
    module.make_optimizer = lambda parameters: torch.optim.SGD(parameters, lr=0.1)  # AdamW knows no meta
    module.to("meta")
    optimizers, schedulers = module.configure_optimizers()
    raw: Any = [SimpleNamespace(optimizer=o, step=o.step, zero_grad=o.zero_grad) for o in optimizers]
    module.optimizers = lambda **_: raw  # type: ignore[method-assign]
    module.lr_schedulers = lambda: schedulers  # type: ignore[method-assign]
    module._diverged_at = torch.full((), module.steps, device="meta")
    return module, on("meta", batch)


@pytest.mark.parametrize(
    ("model", "overrides"),
    [("hybrid", []), ("squad", ["discriminator=both"]), ("squad", ["quantizer=none"])],
    ids=["hybrid", "adversarial", "no quantiser"],
)
def test_a_training_step_reads_nothing_back_and_copies_nothing_to_the_device(autocast, model, overrides):
    module, batch = module_and_batch(*overrides, model=model)
    for step in (0, module.steps // 2):  # the adversarial loss comes later
        module.state.step = step
        with OnDevice():
            module.training_step(batch, 0)
        assert module.state.step == step + 1


@pytest.mark.parametrize("every", [1, 4])
def test_a_batch_is_put_together_where_the_pool_lies(draw_texture, every):
    pool = make_pool()
    pool.attach(Textures(draw_texture, 5), Pixels().to("meta"), Grid((POOL_SIDE, POOL_SIDE)), seed=0, device="meta")
    for step in (0, 4):  # a period each
        pool.advance(step)
        pool.batch(step, clean=2, synthetic=2)  # the first of a pass brings its order to the device
        with OnDevice():
            batch = pool.batch(step + 1, clean=2, synthetic=2, image_every=every)
        assert batch["features"]["pixel"].shape == (4, 3, POOL_SIDE, POOL_SIDE)
        assert batch["image"].shape == (4 // every, 3, POOL_SIDE, POOL_SIDE)
        assert batch["mask"].device.type == batch["shown"].device.type == "meta"


@pytest.mark.parametrize("quantizer", ["fsq", "vq", "none"])
def test_a_step_is_captured_on_one_gpu_unless_its_quantiser_reads_values(autocast, quantizer):
    module, batch = module_and_batch(f"quantizer={quantizer}", model="squad")
    waits = quantizer == "vq"
    reading = pytest.raises(RuntimeError, match=r"item\(\) cannot be called on meta tensors")
    with reading if waits else contextlib.nullcontext():
        module._backward(batch, False)
    module._device = torch.device("cuda", 0)
    assert module.captures is not waits
    module.trainer.world_size = 2
    assert not module.captures
    module.trainer.world_size, module.cuda_graph = 1, False
    assert not module.captures


@pytest.mark.parametrize("tile", ["null", "32"])
def test_a_prediction_stays_on_the_device(autocast, tile):
    module, _ = module_and_batch(f"model.tile={tile}", model="hybrid")
    module.state.image_size = [SIDE, SIDE]
    size = module.tile_size
    inference = Inference(module.eval(), 1.0)
    given = torch.zeros(2, 48, 80, 3, dtype=torch.uint8, device="meta")
    with torch.inference_mode(), OnDevice():
        found = inference(given)
    assert [tuple(t.shape) for t in found] == [(2, 48, 80), (2,), (2,), (2, *size)]


class Mean(nn.Module):
    """Stands for a model: the mean of the colours, which one of them reads on the CPU."""

    def __init__(self, *, reads: bool) -> None:
        super().__init__()
        self.reads, self.runs = reads, 0

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        self.runs += 1
        mean = image.float().mean(3)
        score = torch.tensor([float(m.amax()) for m in mean]) if self.reads else mean.amax((1, 2))
        return mean, score, score > 1, mean


@pytest.mark.parametrize("reads", [False, True], ids=["captured", "one that cannot be captured"])
def test_one_image_at_a_time_is_a_graph_from_the_second_one_of_a_size_on(monkeypatch, reads):
    record(monkeypatch)
    runtime, model = Torch(), Mean(reads=reads)
    runtime._start(model, torch.device("cpu"))
    runtime._single = Graph(model)
    rng, runs = np.random.default_rng(0), []
    for shape in [(1, 4, 6, 3), *[(1, 8, 5, 3)] * 4, (2, 8, 5, 3), (1, 8, 5, 3)]:
        image = rng.integers(256, size=shape, dtype=np.uint8)
        found = runtime.run(image)
        np.testing.assert_allclose(found.anomaly_map, image.mean(3), rtol=1e-6)
        np.testing.assert_allclose(found.anomaly_score, image.mean(3).max((1, 2)), rtol=1e-6)
        runs.append(model.runs)
    warm_up_and_capture = 4
    first = 2 + warm_up_and_capture + (1 if reads else 0)
    later = [first + 1, first + 2] if reads else [first, first]
    assert runs[:5] == [1, 2, first, *later]
    assert isinstance(getattr(runtime._single, "_graph", None), Recorded) is not reads
