"""Do exported files give what the checkpoint gives? Scores, metrics and codes of the test images, runtime by runtime.

    python -m experiments.export.parity --checkpoint RUN/last.ckpt [RUN/last.ckpt ...] [--int8]

Each checkpoint is of one of the three real categories; the data are looked for as by ``squad_lit.train``. Rounding to a
code is discontinuous, so that an error of 1e-6 may move a code to its neighbour: such cells are counted.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from experiments.shared import DATASETS
from numpy.typing import NDArray
from torch import Tensor, nn

from squad_lit import metric
from squad_lit.dataset.image import read_mask, resize_batch
from squad_lit.dataset.mvtec import scan_mvtec_layout
from squad_lit.dataset.sample import Sample
from squad_lit.deploy.export import SUFFIXES, export, quiet, write_onnx, write_openvino
from squad_lit.deploy.runtime import Runtime, open_runtime
from squad_lit.image.file import read_pixels
from squad_lit.report.figures import COLUMNS as METRICS
from squad_lit.training import checkpoint
from squad_lit.training.detector import Detector
from squad_lit.training.squad import Squad

DATA = Path(os.environ.get("SQUAD_LIT_DATA", "data"))
Pixels = NDArray[np.uint8]


class Output(NamedTuple):
    """Maps, scores and code indices of all test images; a model without codes has no indices."""

    maps: list[Tensor]
    scores: Tensor
    indices: list[list[NDArray[np.int64]]]


class Codes(nn.Module):
    """Pixels to the index of each cell's code, as a model to export; ``detector`` is where the quantiser looks."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    @torch.no_grad()
    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        output = self.detector.forward_tile(
            resize_batch(image.permute(0, 3, 1, 2).float() / 255, self.detector.state.image_size)
        )
        assert output.recon is not None
        return tuple(index for index in output.recon.indices.values() if index is not None)


def run(runtime: Runtime, codes: Callable[[Pixels], list[Any]] | None, samples: list[Sample]) -> Output:
    """What a runtime makes of each image."""
    output = Output([], torch.zeros(len(samples)), [])
    for i, sample in enumerate(samples):
        pixels = read_pixels(sample.image_path)[None]
        found = runtime.run(pixels)
        output.maps.append(torch.tensor(found.anomaly_map[0]))
        output.scores[i] = float(found.anomaly_score[0])
        if codes is not None:
            output.indices.append([np.asarray(index) for index in codes(pixels)])
    return output


def measure(output: Output, samples: list[Sample]) -> dict[str, float]:
    """The four metrics, at the resolution of the image files."""
    masks = [
        read_mask(s.mask_path).bool() if s.mask_path else torch.zeros(m.shape, dtype=torch.bool)
        for s, m in zip(samples, output.maps, strict=True)
    ]
    label = torch.tensor([sample.label for sample in samples])
    found = metric.image_metrics(output.scores, label) | metric.pixel_metrics(output.maps, masks)
    return {name: float(found[key]) for name, key in METRICS.items()}


def compare(output: Output, truth: Output, samples: list[Sample]) -> list[str]:
    """The cells of a row."""
    relative = ((output.scores - truth.scores) / truth.scores).abs()
    highest = max(float((a - b).abs().max()) for a, b in zip(output.maps, truth.maps, strict=True))
    own, expected = measure(output, samples), measure(truth, samples)
    cells = [f"{100 * float((relative <= 1e-4).double().mean()):.1f}", f"{float(relative.max()):.1g}", f"{highest:.1g}"]
    cells += [f"{100 * (own[name] - expected[name]):+.3f}" for name in METRICS]
    if not truth.indices:
        return [*cells, "", ""]
    flipped = [
        sum(int((a != b).sum()) for a, b in zip(*pair, strict=True))
        for pair in zip(output.indices, truth.indices, strict=True)
    ]
    cells_of_all = sum(index.size for image in truth.indices for index in image)
    return [*cells, f"{sum(count > 0 for count in flipped)}", f"{sum(flipped)} of {cells_of_all}"]


def code_reader(module: Codes, form: str, folder: Path, int8: Path | None) -> Callable[[Pixels], list[Any]]:
    """Exports the codes as the model itself is exported, and returns what reads them."""
    if form == "torch":  # a .pt2 runs the checkpoint's own operators
        return lambda pixels: list(module(torch.tensor(pixels)))
    names = [f"index_{group}" for group in module.detector.backbone.groups]
    about: dict[str, Any] = {"input": {"type": "uint8"}, "outputs": dict.fromkeys(names)}
    path = folder / f"codes{SUFFIXES[form]}"
    with quiet():
        if form == "openvino":
            import openvino

            write_openvino(module, path, about)
            model = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
            return lambda pixels: [model(pixels)[name] for name in names]
        import onnxruntime

        write_onnx(module, path, about)
        if int8 is not None:
            from squad_lit.deploy.int8 import choose_images, quantize

            quantize(path, choose_images(int8), {"intensity_range": None, "tile": None})
    session = onnxruntime.InferenceSession(path)
    return lambda pixels: session.run(names, {"image": pixels})


def main() -> None:
    """A table in Markdown; metrics are differences in percentage points."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, nargs="+", required=True)
    parser.add_argument("--int8", action="store_true", help="the quantised ONNX file too")
    options = parser.parse_args()
    head = ["category", "file", "scores within 1e-4 (%)", "largest relative", "largest of maps", *METRICS]
    head += ["images with moved codes", "codes moved"]
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    forms = {"torch": "torch", "onnx": "onnx", "openvino": "openvino"} | ({"int8": "onnx"} if options.int8 else {})
    for path in options.checkpoint:
        detector = checkpoint.load(path)
        category = detector.state.categories[0]
        train, samples = scan_mvtec_layout(DATA / DATASETS[category], category)
        coded = isinstance(detector, Squad) and any(detector.generator.codebook_sizes.values())
        codes = Codes(detector).eval().requires_grad_(False)
        truth = run(open_runtime(path), code_reader(codes, "torch", path.parent, None) if coded else None, samples)
        for name, form in forms.items():
            int8 = train[0].image_path.parent if name == "int8" else None
            with tempfile.TemporaryDirectory() as place:
                file = Path(place) / f"model{SUFFIXES[form]}"
                export(path, file, form, int8=int8)
                reader = code_reader(codes, form, Path(place), int8) if coded else None
                output = run(open_runtime(file), reader, samples)
            print(f"| {category} | {name} | " + " | ".join(compare(output, truth, samples)) + " |", flush=True)


if __name__ == "__main__":
    main()
