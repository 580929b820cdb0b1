"""Is a code that is rare on normal images, or rare beside its neighbour, a sign of a defect?

    python experiments/novelty/run.py RUN [RUN ...]

Each RUN is the folder of a training with FSQ on one category; the data are those of its config.yaml. Counts are of the
training images, maps are smoothed and calibrated on the validation images like all others, and nothing is fitted to the
test set. The two maps: the negative log frequency of a code, and of a code given each of its four neighbours, backed
off to the former where the pair is rare.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import torch
from omegaconf import OmegaConf
from torch import Tensor

from squad_lit import checkpoint
from squad_lit.anomaly import top_mean
from squad_lit.detector import Detector
from squad_lit.metric import image_metrics, pixel_metrics

# Strength of the back-off: a pair counts as much as this many sightings of its code alone.
BACK_OFF = 5.0
SHARES = (0.1, 0.2)


def collect(module: Detector, dataset: Any) -> dict[str, Any]:
    """Codes ``{group: (N, h, w)}``, fused maps, masks and labels of a data set."""
    codes: dict[str, list[Tensor]] = {group: [] for group in module.backbone.groups}
    maps, masks, labels = [], [], []
    for start in range(0, len(dataset), 8):
        items = [dataset[i] for i in range(start, min(start + 8, len(dataset)))]
        seen = module.look(torch.stack([item["image"] for item in items]))
        assert seen.recon is not None
        for group, indices in seen.recon.indices.items():
            assert indices is not None
            codes[group].append(indices)
        maps.append(module.anomaly(seen.maps)[0])
        masks.append(torch.stack([item["mask"][0] for item in items]))
        labels += [item["label"] for item in items]
    joined = {group: torch.cat(parts) for group, parts in codes.items()}
    return {"codes": joined, "map": torch.cat(maps), "mask": torch.cat(masks), "label": torch.tensor(labels)}


def frequencies(codes: Tensor, size: int) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """From training codes ``(N, h, w)`` the function that gives the maps of a single code and of pairs."""
    count = torch.bincount(codes.flatten(), minlength=size).double()
    share = (count + 0.5) / (count.sum() + 0.5 * size)
    pairs = [torch.bincount((a * size + b).flatten(), minlength=size**2) for a, b in _neighbours(codes)]

    def maps(found: Tensor) -> tuple[Tensor, Tensor]:
        total, times = torch.zeros(found.shape, dtype=torch.float64), torch.zeros(found.shape[1:])
        for axis, (known, (a, b)) in enumerate(zip(pairs, _neighbours(found), strict=True)):
            together = known[a * size + b].double()
            first, second = (slice(None, -1), slice(1, None))
            at_a, at_b = (
                ((slice(None), first), (slice(None), second))
                if axis == 0
                else ((slice(None), slice(None), first), (slice(None), slice(None), second))
            )
            total[at_b] -= ((together + BACK_OFF * share[b]) / (count[a] + BACK_OFF)).log()
            total[at_a] -= ((together + BACK_OFF * share[a]) / (count[b] + BACK_OFF)).log()
            times[at_b[1:]] += 1
            times[at_a[1:]] += 1
        return -share[found].log(), total / times

    return maps


def _neighbours(codes: Tensor) -> list[tuple[Tensor, Tensor]]:
    return [(codes[:, :-1], codes[:, 1:]), (codes[:, :, :-1], codes[:, :, 1:])]


def line(name: str, anomaly_map: Tensor, test: dict[str, Any], top: float) -> str:
    """A row of the table, in percent."""
    pixel = pixel_metrics(anomaly_map, test["mask"])
    image = image_metrics(top_mean(anomaly_map, top), test["label"])
    values = (image["image_auroc"], pixel["pixel_auroc"], pixel["pixel_ap"], pixel["pixel_aupro"])
    return f"| {name} | " + " | ".join(f"{100 * float(v):.1f}" for v in values) + " |"


@torch.inference_mode()
def main(run: Path) -> None:
    """The table of a run."""
    config = OmegaConf.load(run / "config.yaml")
    data = hydra.utils.instantiate(config.dataset, _convert_="all")
    data.setup()
    module = checkpoint.load(run / "last.ckpt")
    train, val, test = (collect(module, part) for part in (data.train_set, data.val_set, data.test_set))
    print(
        f"\n{', '.join(data.categories)}\n\n| map | image AUROC | pixel AUROC | Pixel AP | AUPRO |\n" + "|---" * 5 + "|"
    )
    print(line("fused, as it is", test["map"], test, module.anomaly.top))
    for group, codes in train["codes"].items():
        maps = frequencies(codes, module.generator.codebook_sizes[group])
        for name, at in (("code", 0), ("pairs", 1)):
            scaled = []
            for part in (val, test):
                raw = {"novelty": maps(part["codes"][group])[at][:, None].float()}
                scaled.append(module.anomaly.prepare(raw, data.image_size)["novelty"])
            novelty = (scaled[1] - scaled[0].mean()) / scaled[0].std()
            print(line(f"{name}, {group}", novelty, test, module.anomaly.top))
            if at == 1:
                for share in SHARES:
                    mixed = (1 - share) * test["map"] + share * novelty
                    print(line(f"fused with {share} of {name}, {group}", mixed, test, module.anomaly.top))


if __name__ == "__main__":
    for folder in sys.argv[1:]:
        main(Path(folder))
