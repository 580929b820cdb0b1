"""Can smoothing, fusion weight and image score be chosen without a test label?

    python -m experiments.fusion.run RUN [RUN ...]

Each RUN is the folder of a training on one category. Its maps are computed once, for the validation images, for
copies of these with synthetic anomalies, and for the test set; every choice below is then made on the first two alone
and judged on the third. results.csv gets a row for each run and choice.
"""

from __future__ import annotations

import itertools
import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from experiments.shared import read, write
from omegaconf import OmegaConf
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from squad_lit.metric import auroc, average_precision, image_metrics, pixel_metrics
from squad_lit.network.anomaly import enlarge, top_mean
from squad_lit.report.figures import COLUMNS as METRICS
from squad_lit.run.option import make
from squad_lit.training import checkpoint
from squad_lit.training.detector import Detector

HERE = Path(__file__).parent
SIGMAS = (0.0, 1.0, 2.0, 4.0, 8.0)
WEIGHTS = (0.0, 0.3, 0.5, 0.7, 1.0)  # of the discriminator; the residuals have the rest
SHARES = {"max": 0.0, "top 0.1 %": 0.001, "top 1 %": 0.01, "top 3 %": 0.03, "top 10 %": 0.1}
DEFAULT = {"sigma": 2.0, "weight": 0.5, "score": "top 1 %"}
# Synthetic anomalies, at least: few validation images are corrupted several times each.
SYNTHETIC = 60


class Maps(NamedTuple):
    """Unsmoothed raw maps ``{name: (N, H, W)}``, masks and labels of a set of images."""

    raw: dict[str, Tensor]
    mask: Tensor
    label: Tensor


def load(run: Path) -> tuple[Any, Any, Detector]:
    """Configuration, data and model of a training."""
    config = OmegaConf.load(run / "config.yaml")
    data, module = make(config, "dataset"), checkpoint.load(run / "last.ckpt")
    data.keep_shape(module.multiple)
    data.setup()
    return config, data, module


def collect(module: Detector, dataset: Any, copies: int = 0) -> Maps:
    """The maps of a data set, or of synthetic anomalies on it."""
    images = [dataset[i]["image"] for i in range(len(dataset))]
    masks = [dataset[i]["mask"][0] > 0 for i in range(len(dataset))]
    labels = [dataset[i]["label"] for i in range(len(dataset))]
    if copies:
        arrays = [image.permute(1, 2, 0).numpy() for image in images]
        made = [
            module.synthesis(array, arrays, np.random.default_rng([71, copy, i]))
            for copy in range(copies)
            for i, array in enumerate(arrays)
        ]
        images = [torch.from_numpy(image).permute(2, 0, 1) for image, _ in made]
        masks = [torch.from_numpy(mask) > 0 for _, mask in made]
        labels = [1] * len(made)
    parts = [module.forward_tile(torch.stack(images[i : i + 8])).maps for i in range(0, len(images), 8)]
    raw = {name: torch.cat([part[name] for part in parts]) for name in module.anomaly.names}
    return Maps(raw, torch.stack(masks), torch.tensor(labels))


def collect_bad(module: Detector, data: Any) -> Maps:
    """The maps of held-out normal images with synthetic anomalies, of at least ``SYNTHETIC`` copies."""
    return collect(module, data.val_set, copies=math.ceil(SYNTHETIC / len(data.val_set)))


def z_scores(part: Maps, normal: Maps) -> dict[str, Tensor]:
    """Each map in deviations from its mean on normal images."""
    return {name: (m - normal.raw[name].mean()) / normal.raw[name].std() for name, m in part.raw.items()}


def known_and_test(module: Detector, data: Any) -> list[Maps]:
    """Held-out normal images with and without synthetic anomalies, and the test set; their maps in deviations."""
    plain, bad, test = collect(module, data.val_set), collect_bad(module, data), collect(module, data.test_set)
    raw = {name: torch.cat([m, bad.raw[name]]) for name, m in plain.raw.items()}
    known = Maps(raw, torch.cat([plain.mask, bad.mask]), torch.cat([plain.label, bad.label]))
    return [part._replace(raw=z_scores(part, plain)) for part in (known, test)]


def cells(anomaly_map: Tensor, part: Maps, share: float) -> list[str]:
    """Image AUROC of the mean of a share of the pixels, Pixel AP and AUPRO, in percent."""
    pixel, image = pixel_metrics(anomaly_map, part.mask), image_metrics(top_mean(anomaly_map, share), part.label)
    return [f"{_percent(value):.2f}" for value in (image["image_auroc"], pixel["pixel_ap"], pixel["pixel_aupro"])]


def fused(z: dict[str, Tensor], weight: float, agreement: float = 0.0) -> Tensor:
    """The weighted mean of z-scored maps, with ``weight`` on the discriminator and ``agreement`` of the residuals."""
    residuals = torch.stack([m for name, m in z.items() if name.startswith("residual")])
    residual = (1 - agreement) * residuals.mean(0) + agreement * residuals.amin(0)
    return weight * z["discriminator"] + (1 - weight) * residual


def statistics(z: dict[str, Tensor]) -> np.ndarray[Any, Any]:
    """What the learned score sees of an image: the mean of the highest shares of each map, ``(N, features)``."""
    return torch.stack([top_mean(m, s) for m in z.values() for s in (*SHARES.values(), 1.0)], 1).numpy()


def measure(run: Path) -> list[dict[str, Any]]:
    """A row for each choice."""
    config, data, module = load(run)
    module.anomaly.sigma = 0
    plain, test = collect(module, data.val_set), collect(module, data.test_set)
    bad = collect_bad(module, data)
    known = torch.cat([plain.label, bad.label])
    rows = []
    for sigma in SIGMAS:
        sets = [
            {n: enlarge(m[:, None], m.shape[1:], sigma)[:, 0] for n, m in part.raw.items()}
            for part in (plain, bad, test)
        ]
        scale = {n: (m.mean(), m.std()) for n, m in sets[0].items()}
        z_plain, z_bad, z_test = ({n: (m - scale[n][0]) / scale[n][1] for n, m in part.items()} for part in sets)
        learned = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=2000))
        seen = np.concatenate([statistics(z_plain), statistics(z_bad)])
        guess = cross_val_predict(learned, seen, known.numpy(), cv=5, method="decision_function")
        said = learned.fit(seen, known.numpy()).decision_function(statistics(z_test))
        for weight in WEIGHTS:
            on_plain, on_bad, on_test = (fused(z, weight) for z in (z_plain, z_bad, z_test))
            common = {
                "category": ", ".join(data.categories),
                "seed": config.seed,
                "sigma": sigma,
                "weight": weight,
                "synthetic_ap": _percent(average_precision(on_bad.flatten(), bad.mask.flatten())),
            }
            pixel = {k: _percent(v) for k, v in pixel_metrics(on_test, test.mask).items() if k in METRICS.values()}
            for name, share in SHARES.items():
                score = top_mean(torch.cat([on_plain, on_bad]), share)
                found = image_metrics(top_mean(on_test, share), test.label)["image_auroc"]
                rows.append(common | {"score": name, "synthetic_auroc": _percent(auroc(score, known))})
                rows[-1] |= {"image_auroc": _percent(found), **pixel}
            if weight == DEFAULT["weight"]:  # it has its own weights
                found = image_metrics(torch.from_numpy(said), test.label)["image_auroc"]
                rows.append(common | {"score": "learned", "image_auroc": _percent(found), **pixel})
                rows[-1]["synthetic_auroc"] = _percent(auroc(torch.from_numpy(guess), known))
    return rows


def tables(rows: list[dict[str, Any]]) -> None:
    """What a choice by the synthetic anomalies gets, beside the default and the best there is, in Markdown."""
    runs = list(dict.fromkeys((row["category"], row["seed"]) for row in rows))
    print("| category | seed | choice by | sigma, weight | Pixel AP | AUPRO |\n" + "|---" * 6 + "|")
    for category, seed in runs:
        own = [r for r in rows if (r["category"], r["seed"], r["score"]) == (category, seed, DEFAULT["score"])]
        default = next(r for r in own if (r["sigma"], r["weight"]) == (DEFAULT["sigma"], DEFAULT["weight"]))
        chosen = max(own, key=lambda r: r["synthetic_ap"])
        for name, row in (("default", default), ("synthetic AP", chosen), ("test Pixel AP", _best(own, "pixel_ap"))):
            print(f"| {category} | {seed} | {name} | {_cells(row, 'sigma', 'weight', 'pixel_ap', 'pixel_aupro')}")
    print("\n| category | seed | score | synthetic AUROC | image AUROC |\n" + "|---" * 5 + "|")
    for (category, seed), score in itertools.product(runs, [*SHARES, "learned"]):
        key = (category, seed, score, DEFAULT["sigma"], DEFAULT["weight"])
        row = next(r for r in rows if (r["category"], r["seed"], r["score"], r["sigma"], r["weight"]) == key)
        print(f"| {category} | {seed} | {score} | {row['synthetic_auroc']} | {row['image_auroc']} |")


def _best(rows: list[dict[str, Any]], key: str) -> dict[str, Any]:
    return max(rows, key=lambda row: row[key])


def _cells(row: dict[str, Any], sigma: str, weight: str, *keys: str) -> str:
    return f"{row[sigma]:g}, {row[weight]:g} | " + " | ".join(f"{row[key]:.1f}" for key in keys) + " |"


def _percent(value: Tensor) -> float:
    return round(100 * float(value), 2)


if __name__ == "__main__":
    results = HERE / "results.csv"
    with torch.inference_mode():
        for argument in sys.argv[1:]:
            fresh = measure(Path(argument))
            done = {(row["category"], row["seed"]) for row in fresh}
            write(results, [r for r in read(results) if (r["category"], r["seed"]) not in done] + fresh)
    tables(read(results))
