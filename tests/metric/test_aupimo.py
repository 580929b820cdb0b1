"""AUPIMO against the integral over a fine grid of rates, a value by hand, and anomalib where it is installed."""

import importlib
import importlib.util
import math
import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from squad_lit.metric import aupimo, aupimo_per_image


def make(seed: int, normal: int = 6, anomalous: int = 5, side: int = 48) -> tuple[Tensor, Tensor]:
    """Maps that are noise, with squares that stand out more or less."""
    rng = np.random.default_rng(seed)
    maps = rng.normal(size=(normal + anomalous, side, side)).astype(np.float32)
    mask = np.zeros(maps.shape, np.uint8)
    for i in range(anomalous):
        mask[normal + i, 5 : 15 + i, 8:20] = 255
        maps[normal + i, 5 : 15 + i, 8:20] += rng.uniform(0.5, 3.5)
    return torch.from_numpy(maps), torch.from_numpy(mask)


def on_a_grid(maps: list[Tensor], masks: list[Tensor], low: float, high: float) -> list[float]:
    """The area as the definition says it, each pixel counted, at 4,000 rates that are even in the logarithm."""
    normal = [m.numpy() for m, t in zip(maps, masks, strict=True) if not t.any()]
    rates = np.exp(np.linspace(math.log(low), math.log(high), 4001))
    found = []
    for anomaly_map, mask in zip(maps, masks, strict=True):
        if not mask.any():
            found.append(math.nan)
            continue
        scores = anomaly_map[mask != 0].numpy()
        reached = np.array([np.mean([(m >= s).mean() for m in normal]) for s in scores])
        overlap = np.array([(reached <= rate).mean() for rate in rates])
        found.append(float(np.trapezoid(overlap, np.log(rates)) / math.log(high / low)))
    return found


@pytest.mark.parametrize("seed", range(3))
def test_the_area_is_that_of_the_curve_on_a_fine_grid(seed: int) -> None:
    maps, masks = make(seed)
    found = aupimo_per_image(maps, masks, fpr_range=(1e-3, 1e-1))
    assert found.isnan().tolist() == [True] * 6 + [False] * 5
    assert found.numpy() == pytest.approx(on_a_grid(list(maps), list(masks), 1e-3, 1e-1), abs=1e-3, nan_ok=True)
    assert float(aupimo(maps, masks, fpr_range=(1e-3, 1e-1))) == pytest.approx(float(found[6:].mean()))


def test_images_of_several_sizes_count_alike() -> None:
    """The rate is the mean of the images' rates and not that of all pixels."""
    pairs = [make(seed, 2, 2, side) for seed, side in enumerate((24, 40, 64))]
    maps, masks = ([image for pair in pairs for image in pair[k]] for k in (0, 1))
    found = aupimo_per_image(maps, masks, fpr_range=(1e-3, 1e-1))
    assert found.numpy() == pytest.approx(on_a_grid(maps, masks, 1e-3, 1e-1), abs=1e-3, nan_ok=True)


def test_ties_and_the_ends_by_hand() -> None:
    """Ten normal pixels; rates from 0.1 to 1. A score that ties with a normal pixel counts that one."""
    normal = torch.arange(10.0)[None]  # 0 to 9
    anomalous = torch.tensor([[9.0, 10.0, 8.5, 0.0, -1.0, 0, 0, 0, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1, 0, 0, 0, 0, 0]])
    found = aupimo_per_image([normal, anomalous], [torch.zeros_like(mask), mask], fpr_range=(0.1, 1.0))
    # Rates 0.1, 0 (counts as 0.1), 0.1, 1, 1: three perfect pixels of five.
    assert found[1].item() == pytest.approx(3 / 5)


def test_the_order_alone_matters_and_a_normal_image_with_a_defect_beside_it_does_not() -> None:
    maps, masks = make(0)
    expected = aupimo_per_image(maps, masks, fpr_range=(1e-3, 1e-1))
    torch.testing.assert_close(
        aupimo_per_image(maps.double().exp(), masks, fpr_range=(1e-3, 1e-1)), expected, equal_nan=True
    )
    maps[7][masks[7] == 0] = 100.0  # what is marked beside a defect costs nothing
    torch.testing.assert_close(aupimo_per_image(maps, masks, fpr_range=(1e-3, 1e-1)), expected, equal_nan=True)


@pytest.mark.parametrize(
    ("normal", "anomalous", "reason"),
    [
        (0, 2, r"0 pixels of normal images, where rates of 1e-05 need 100,000"),
        (2, 0, "no anomalous image among 2"),
        (2, 2, r"4,608 pixels of normal images, where rates of 1e-05 need 100,000"),
    ],
)
def test_undefined_is_nan_with_a_reason(normal: int, anomalous: int, reason: str) -> None:
    maps, masks = make(0, normal, anomalous)
    with pytest.warns(UserWarning, match=reason):
        assert math.isnan(aupimo(maps, masks))


def test_a_wrong_range_is_told() -> None:
    with pytest.raises(ValueError, match=r"fpr_range: expected 0 < low < high <= 1, got \(0.1, 0.01\)"):
        aupimo(*make(0), fpr_range=(0.1, 0.01))


@pytest.fixture
def reference() -> types.ModuleType:
    """anomalib's functions; its packages are stubs here, because their imports need a dozen further packages.

    ``pip install --no-deps --target FOLDER anomalib==2.7.0``, and ANOMALIB=FOLDER.
    """
    folder = os.environ.get("ANOMALIB")
    spec = importlib.util.find_spec("anomalib")
    place = Path(folder) / "anomalib" if folder else Path(spec.origin).parent if spec and spec.origin else None
    if place is None or not (place / "metrics" / "pimo").is_dir():
        pytest.skip("anomalib is not installed; the environment variable ANOMALIB may name its folder")
    before = dict(sys.modules)
    try:
        for name, path in (("", place), (".metrics", place / "metrics"), (".metrics.pimo", place / "metrics" / "pimo")):
            stub = types.ModuleType(f"anomalib{name}")
            stub.__path__ = [str(path)]
            sys.modules[f"anomalib{name}"] = stub
        yield importlib.import_module("anomalib.metrics.pimo.functional")
    finally:
        for name in sys.modules.keys() - before.keys():
            if name.startswith("anomalib"):
                del sys.modules[name]


def test_anomalib_has_the_same_values(reference: types.ModuleType) -> None:
    """It takes 300,000 even thresholds between the extremes of the normal images, and the nearest to each end."""
    maps, masks = make(1, 16, 4, 250)  # a million normal pixels, so that both ends of the range are whole numbers
    maps = maps.clamp(-3, None)  # a shorter range has finer thresholds
    maps[masks != 0] += 2
    *_, theirs, points = reference.aupimo_scores(maps, (masks != 0).int(), num_thresholds=300_000)
    assert points > 300
    ours = aupimo_per_image(maps, masks)
    assert ours[16:].max() - ours[16:].min() > 0.3
    assert ours[16:].numpy() == pytest.approx(theirs[16:].numpy(), abs=2e-3)
