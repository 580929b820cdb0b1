"""Is a code that is rare on normal images, or rare beside its neighbour, a sign of a defect?

    python experiments/novelty/run.py RUN [RUN ...]

Each RUN is the folder of a training with FSQ on one category; the data are those of its config.yaml. Counts are of the
training images, maps are smoothed and standardised on the validation images like all others, and nothing is fitted to
the test set. The maps are negative log probabilities of a code: alone (``code``); given each of its four neighbours,
backed off to the former where the pair is rare (``pairs``); given all four, each reduced to the signs of its scalars,
with the same back-off (``context``); and by a small network that sees the 7x7 codes around it but not the code itself
(``prior``).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn import functional as F

from squad_lit.metric import image_metrics, pixel_metrics
from squad_lit.network.anomaly import top_mean
from squad_lit.run.option import make
from squad_lit.training import checkpoint
from squad_lit.training.detector import Detector

# Strength of the back-off: a pair counts as much as this many sightings of its code alone.
BACK_OFF = 5.0
SHARES = (0.1, 0.2)
PRIOR_STEPS = 600


def collect(module: Detector, dataset: Any) -> dict[str, Any]:
    """Codes ``{group: (N, h, w)}``, fused maps, masks and labels of a data set."""
    codes: dict[str, list[Tensor]] = {group: [] for group in module.backbone.groups}
    maps, masks, labels = [], [], []
    for start in range(0, len(dataset), 8):
        items = [dataset[i] for i in range(start, min(start + 8, len(dataset)))]
        output = module.forward_tile(torch.stack([item["image"] for item in items]))
        assert output.recon is not None
        for group, indices in output.recon.indices.items():
            assert indices is not None
            codes[group].append(indices)
        maps.append(module.anomaly(output.maps)[0])
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


def context(codes: Tensor, scalars: Tensor) -> Callable[[Tensor], Tensor]:
    """From training codes ``(N, h, w)`` the map of a code given the signs of its four neighbours' scalars.

    Args:
        codes: Indices of codes.
        scalars: The scalars of each code in the codebook, ``(size, dim)``.
    """
    size, dim = scalars.shape
    signs = ((scalars > 0).long() * 2 ** torch.arange(dim)).sum(1)
    count = torch.bincount(codes.flatten(), minlength=size).double()
    share = (count + 0.5) / (count.sum() + 0.5 * size)

    def surrounding(found: Tensor) -> Tensor:
        padded = F.pad(signs[found][:, None].double(), (1, 1, 1, 1), mode="replicate")[:, 0].long()
        sides = (padded[:, :-2, 1:-1], padded[:, 2:, 1:-1], padded[:, 1:-1, :-2], padded[:, 1:-1, 2:])
        return sum(side * 2 ** (dim * i) for i, side in enumerate(sides))  # type: ignore[return-value]

    around = surrounding(codes)
    contexts, times = around.unique(return_counts=True)
    joint, joint_times = (around * size + codes).unique(return_counts=True)

    def maps(found: Tensor) -> Tensor:
        around = surrounding(found)
        total = _times(contexts, times, around)
        together = _times(joint, joint_times, around * size + found)
        return -((together + BACK_OFF * share[found]) / (total + BACK_OFF)).log()

    return maps


def prior(codes: Tensor, scalars: Tensor) -> Callable[[Tensor], Tensor]:
    """From training codes ``(N, h, w)`` the map of a network that guesses a code from those around it."""
    torch.manual_seed(0)
    around = nn.Conv2d(scalars.shape[1], 64, 7, padding=3)
    hidden = nn.Sequential(nn.SiLU(), nn.Conv2d(64, 64, 1), nn.SiLU(), nn.Conv2d(64, len(scalars), 1))
    hole = torch.ones(7, 7)
    hole[3, 3] = 0

    def logits(found: Tensor) -> Tensor:
        z = scalars[found].permute(0, 3, 1, 2)
        return hidden(F.conv2d(z, around.weight * hole, around.bias, padding=3))

    optimizer = torch.optim.AdamW([*around.parameters(), *hidden.parameters()], lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=PRIOR_STEPS)
    with torch.enable_grad():
        for _ in range(PRIOR_STEPS):
            batch = codes[torch.randint(len(codes), (8,))].clone()
            optimizer.zero_grad()
            F.cross_entropy(logits(batch), batch).backward()
            optimizer.step()
            schedule.step()

    def maps(found: Tensor) -> Tensor:
        return torch.cat([F.cross_entropy(logits(f), f, reduction="none") for f in found.split(8)]).double()

    return maps


def _times(keys: Tensor, times: Tensor, wanted: Tensor) -> Tensor:
    """How often each wanted key was counted, 0 if never."""
    at = torch.searchsorted(keys, wanted).clamp_max(len(keys) - 1)
    return torch.where(keys[at] == wanted, times[at], 0).double()


def _neighbours(codes: Tensor) -> list[tuple[Tensor, Tensor]]:
    return [(codes[:, :-1], codes[:, 1:]), (codes[:, :, :-1], codes[:, :, 1:])]


def line(name: str, anomaly_map: Tensor, test: dict[str, Any], top: float) -> str:
    """A row of the table, in percent."""
    pixel = pixel_metrics(anomaly_map, test["mask"])
    image = image_metrics(top_mean(anomaly_map, top), test["label"])
    values = (image["image_auroc"], pixel["pixel_auroc"], pixel["pixel_ap"], pixel["pixel_aupro"])
    return f"| {name} | " + " | ".join(f"{100 * float(v):.1f}" for v in values) + " |"


@torch.no_grad()
def main(run: Path) -> None:
    """The table of a run."""
    config = OmegaConf.load(run / "config.yaml")
    data = make(config, "dataset")
    data.setup()
    module = checkpoint.load(run / "last.ckpt")
    train, val, test = (collect(module, part) for part in (data.train_set, data.val_set, data.test_set))
    print(
        f"\n{', '.join(data.categories)}\n\n| map | image AUROC | pixel AUROC | Pixel AP | AUPRO |\n" + "|---" * 5 + "|"
    )
    print(line("fused, as it is", test["map"], test, module.anomaly.top))
    for group, codes in train["codes"].items():
        quantizer = module.generator.quantizer[group]
        scalars = quantizer.decode(torch.arange(quantizer.codebook_size)[:, None, None])[:, :, 0, 0]
        counted = frequencies(codes, quantizer.codebook_size)
        kinds = {
            "code": lambda found, counted=counted: counted(found)[0],
            "pairs": lambda found, counted=counted: counted(found)[1],
            "context": context(codes, scalars),
            "prior": prior(codes, scalars),
        }
        for name, maps in kinds.items():
            scaled = []
            for part in (val, test):
                raw = {"novelty": maps(part["codes"][group])[:, None].float()}
                scaled.append(module.anomaly.prepare(raw, data.image_size)["novelty"])
            novelty = (scaled[1] - scaled[0].mean()) / scaled[0].std()
            print(line(f"{name}, {group}", novelty, test, module.anomaly.top))
            if name != "code":
                for share in SHARES:
                    mixed = (1 - share) * test["map"] + share * novelty
                    print(line(f"fused with {share} of {name}, {group}", mixed, test, module.anomaly.top))


if __name__ == "__main__":
    for folder in sys.argv[1:]:
        main(Path(folder))
