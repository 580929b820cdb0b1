"""One network, ours or a peer's, measured in this process; ``experiments.speed.peers`` starts it and says what is what.

The images, and what the training leaves for the prediction, lie in a folder. The last line that is printed is JSON.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
import time
import types
from collections import namedtuple
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from experiments.inference.benchmark import peak_mb
from torch import Tensor, nn

from squad_lit.system.allocator import keep_freed_memory

OURS = ("squad", "hybrid", "memory")
WARM_UP = 3
# Packages of anomalib whose __init__ would import the whole of it: here they are only folders.
FOLDERS = (
    *("", "data", "data.utils", "data.utils.generators", "models", "models.components", "models.components.base"),
    *("models.image", *(f"models.image.{name}" for name in ("dsr", "efficient_ad", "patchcore", "stfpm"))),
)
# What the networks take from these packages, and the modules that have it.
TAKEN = {
    "DynamicBufferMixin": ("models.components.base", "models.components.base.dynamic_buffer"),
    "KCenterGreedy": ("models.components", "models.components.sampling"),
    "TimmFeatureExtractor": ("models.components", "models.components.feature_extractors"),
    "GaussianBlur2d": ("models.components", "models.components.filters"),
}


class Peer(NamedTuple):
    """A network, the loss of a step by images and its number, and the optimiser; Patchcore has neither."""

    network: Any
    loss: Callable[[Tensor, int], Tensor] | None = None
    optimizer: torch.optim.Optimizer | None = None


def stand_in(root: Path) -> None:
    """Let the files of anomalib's networks be imported from a folder, without the rest of it and without a hub."""
    import timm

    sys.path.append(str(root))  # kornia is there, too
    for name in FOLDERS:
        package: Any = types.ModuleType(f"anomalib.{name}".rstrip("."))
        package.__path__ = [str(root.joinpath("anomalib", *name.split(".")))]
        sys.modules[package.__name__] = package
    fields = ["pred_score", "pred_label", "anomaly_map", "pred_mask"]
    data: Any = sys.modules["anomalib.data"]
    data.InferenceBatch = namedtuple("InferenceBatch", fields, defaults=[None] * 4)
    for name, (package_name, module) in TAKEN.items():
        part = getattr(importlib.import_module(f"anomalib.{module}"), name)
        setattr(sys.modules[f"anomalib.{package_name}"], name, part)
        setattr(sys.modules["anomalib.models.components"], name, part)
    create = timm.create_model
    timm.create_model = lambda *names, **options: create(*names, **{**options, "pretrained": False})


def efficient_ad(image: Any) -> Peer:
    """EfficientAd-S; its second image of a step, one of ImageNette, is noise here."""
    network = image("efficient_ad.torch_model").EfficientAdModel()
    trained = [*network.student.parameters(), *network.ae.parameters()]
    optimizer = torch.optim.Adam(trained, lr=1e-4, weight_decay=1e-5)
    return Peer(network, lambda images, _: sum(network(images, torch.rand_like(images))), optimizer)


def dsr(image: Any) -> Peer:
    """DSR; 7 of 10 steps are of its second stage and 3 of the third, as in a whole training."""
    losses, network = image("dsr.loss"), image("dsr.torch_model").DsrModel()
    second, third = losses.DsrSecondStageLoss(), losses.DsrThirdStageLoss()
    masks = image("dsr.anomaly_generator").DsrAnomalyGenerator()
    perlin = importlib.import_module("anomalib.data.utils.generators.perlin").PerlinAnomalyGenerator()
    features = ("recon_feat_hi", "recon_feat_lo", "embedding_bot", "embedding_top")

    def loss(images: Tensor, step: int) -> Tensor:
        if step % 10 < 7:
            found = network(images, masks.augment_batch(images))
            shown = (images, found["obj_spec_image"], found["anomaly_map"], found["true_anomaly_map"])
            return second(*(found[name] for name in features), *shown)
        changed, mask = perlin(images)
        return third(network(changed)["anomaly_map"], mask)

    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return Peer(network, loss, torch.optim.Adam(trained, lr=2e-4))


def stfpm(image: Any) -> Peer:
    """STFPM with a ResNet-18."""
    network = image("stfpm.torch_model").STFPMModel(layers=["layer1", "layer2", "layer3"])
    criterion = image("stfpm.loss").STFPMLoss()
    trained = network.student_model.parameters()
    optimizer = torch.optim.SGD(trained, lr=0.4, momentum=0.9, dampening=0.0, weight_decay=0.001)
    return Peer(network, lambda images, _: criterion(*network(images)), optimizer)


def patchcore(image: Any) -> Peer:
    """PatchCore with a Wide ResNet-50-2, which keeps a tenth of all patches."""
    return Peer(image("patchcore.torch_model").PatchcoreModel(layers=["layer2", "layer3"], pre_trained=False))


PEERS = {"EfficientAd-S": efficient_ad, "DSR": dsr, "STFPM": stfpm, "PatchCore": patchcore}
ONE_BY_ONE = ("EfficientAd-S",)  # anomalib refuses other batches in its training


def make(name: str) -> Peer:
    """A peer, after :func:`stand_in`."""
    return PEERS[name](lambda module: importlib.import_module(f"anomalib.models.image.{module}"))


def read(folder: Path, device: str) -> Tensor:
    """The images ``(N, 3, H, W)`` in [0, 1], on the device."""
    images: Tensor = torch.load(folder / "images.pt", mmap=True)
    return images.to(device).float() / 255


def now(device: str) -> float:
    """The time, when the device has done its work."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def memory(device: str) -> float:
    """Peak memory so far: what tensors took on a GPU, else that of this process, in MiB."""
    return torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else peak_mb()


def train_ours(name: str, folder: Path, options: Sequence[str], steps: int) -> dict[str, float]:
    """Figures of a training of two periods, of which the first one warms up; each has ten times the steps."""
    from squad_lit.run.config import compose
    from squad_lit.run.fit import run

    given = [f"model={name}", "logger=none", "callback.panels=null", "callback.curves=null", *options]
    given += ["callback.progress=null", "+callback.rate={_target_: experiments.speed.rate.Rate}"]
    if name != "memory":
        period = 10 * steps
        given += [f"model.steps={2 * period}", f"model.validate_every={period}"]
        given += [f"model.pool.synthetic={period}", f"model.pool.refresh_every={period}"]
    found = run(compose(given, output=folder / name), folder / name).figures
    kept = {
        "training images/s": "images_per_second/period",
        "s a step": "seconds/step",
        "set-up, s": "seconds/set_up",
        "training, s": "seconds/only_step",
        "GFLOP a step": "gflop/step",
        "peak MB, training": "peak_mb/train",
    }
    return {column: found[key] for column, key in kept.items() if key in found}


def train_peer(name: str, folder: Path, device: str, steps: int, batch: int) -> dict[str, float]:
    """Figures of some steps after a warm-up, or of the filling of a memory."""
    images, peer = read(folder, device), make(name)
    network = peer.network.to(device).train()
    if peer.loss is None or peer.optimizer is None:
        begun = now(device)
        for part in images.split(batch):
            network(part)
        network.subsample_embedding(0.1)
        figures = {"training, s": now(device) - begun}
    else:
        for step in range(-WARM_UP, steps):
            if step == 0:
                begun = now(device)
            loss = peer.loss(images[torch.randint(len(images), (batch,), device=device)], step)
            peer.optimizer.zero_grad()
            loss.backward()
            peer.optimizer.step()
        seconds = (now(device) - begun) / steps
        figures = {"training images/s": batch / seconds, "s a step": seconds}
    figures["peak MB, training"] = memory(device)
    torch.save(network.state_dict(), folder / f"{name}.pt")
    return figures


def load(name: str, folder: Path, device: str) -> nn.Module:
    """The trained network, ready to predict."""
    if name in OURS:
        from squad_lit.training import checkpoint

        return checkpoint.load(folder / name / "last.ckpt").to(device)
    network: nn.Module = make(name).network
    network.load_state_dict(torch.load(folder / f"{name}.pt", map_location=device))
    return network.to(device).eval()


def predict(name: str, folder: Path, device: str, batches: Sequence[int], started: float) -> dict[str, float]:
    """Start-up, and how fast all images are predicted in batches of each size."""
    network: Any = load(name, folder, device)
    call = network.predict if name in OURS else network
    images = read(folder, device)
    with torch.inference_mode():
        call(images[:1])
        now(device)
        figures = {"start-up, s": time.time() - started}
        figures |= one_by_one(call, images, device) | {"peak MB, one by one": memory(device)}
        figures |= in_batches(call, images, device, batches) | {"peak MB, batches": memory(device)}
    return figures


def one_by_one(call: Callable[[Tensor], Any], images: Tensor, device: str) -> dict[str, float]:
    """Milliseconds an image, the median."""
    seconds = []
    for image in (*images[:WARM_UP], *images):
        begun = now(device)
        call(image[None])
        seconds.append(now(device) - begun)
    middle = statistics.median(seconds[WARM_UP:])
    return {"ms an image": 1000 * middle, "images/s, one by one": 1 / middle}


def in_batches(call: Callable[[Tensor], Any], images: Tensor, device: str, batches: Sequence[int]) -> dict[str, float]:
    """Images per second at the best size of a batch; sizes above the number of images are left out."""
    rates = {}
    for size in batches:
        groups = [part for part in images.split(size) if len(part) == size]
        if groups:
            call(groups[0])
            begun = now(device)
            for group in groups:
                call(group)
            rates[size] = size * len(groups) / (now(device) - begun)
    best = max(rates, key=lambda size: rates[size])
    return {"images/s, best batch": rates[best], "best batch": best}


def floors(folder: Path, device: str, batches: Sequence[int]) -> dict[str, Any]:
    """Our backbone alone, the multiplications of our network, and the rate of a large product of matrices."""
    from torch.utils.flop_counter import FlopCounterMode

    detector: Any = load("squad", folder, device)
    images = read(folder, device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        detector.predict(images[:1])
    side = 8192 if device == "cuda" else 2048
    factor = torch.rand(side, side, device=device)
    seconds = []
    with torch.inference_mode():
        alone = one_by_one(detector.backbone, images, device) | in_batches(detector.backbone, images, device, batches)
        for _ in range(5):
            begun = now(device)
            factor @ factor
            seconds.append(now(device) - begun)
    rate = 2 * side**3 / min(seconds)
    return {"backbone": alone, "GFLOP an image": counter.get_total_flops() / 1e9, "GFLOP/s": rate / 1e9}


def main() -> None:
    """Figures as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", choices=("train", "predict", "floors"))
    parser.add_argument("name")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--anomalib", type=Path)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--batches", type=int, nargs="+", required=True)
    parser.add_argument("--started", type=float, required=True, help="time.time() when the command was given")
    parser.add_argument("--options", nargs="+", required=True, help="of our training")
    given = parser.parse_args()
    torch.manual_seed(0)
    keep_freed_memory()  # for all, as our commands do
    if given.name in PEERS:
        stand_in(given.anomalib)
    if given.what == "floors":
        found: dict[str, Any] = floors(given.folder, given.device, given.batches)
    elif given.what == "predict":
        found = predict(given.name, given.folder, given.device, given.batches, given.started)
    elif given.name in OURS:
        found = train_ours(given.name, given.folder, given.options, given.steps)
    else:
        found = train_peer(given.name, given.folder, given.device, given.steps, given.batch)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
