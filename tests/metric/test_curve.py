"""The truths: scikit-learn's curves, the areas of the metrics, and hand-worked cases."""

import numpy as np
import pytest
import torch
from sklearn.metrics import precision_recall_curve, roc_curve
from torch import Tensor

from squad_lit.metric import aupro, auroc, image_curves, pixel_curves
from squad_lit.metric.curve import Curve, named, thin


def drawn(seed: int, values: int) -> tuple[Tensor, Tensor]:
    """Scores with many ties where there are few values."""
    rng = np.random.default_rng(seed)
    label = torch.from_numpy(rng.integers(0, 2, 300))
    return torch.from_numpy(rng.integers(0, values, 300) + 0.3 * values * label.numpy()).round().float(), label


def area(curve: Curve) -> float:
    return float(torch.trapezoid(curve.y, curve.x))


@pytest.mark.parametrize("values", [3, 40, 100_000])
def test_image_curves_are_those_of_scikit_learn(values: int) -> None:
    score, label = drawn(values, values)
    curves = image_curves(score, label)
    x, y, _ = roc_curve(label, score, drop_intermediate=False)
    # Every point of scikit-learn lies on ours: at the x of a vertical part, between its ends.
    for a, b in zip(x, y, strict=True):
        at = curves["image_roc"].y[curves["image_roc"].x == a]
        assert (float(at.min()) - 1e-12 <= b <= float(at.max()) + 1e-12) if len(at) else True
    assert area(curves["image_roc"]) == pytest.approx(float(auroc(score, label)), abs=1e-12)
    precision, recall, _ = precision_recall_curve(label, score)
    ours = set(zip(*(v.tolist() for v in curves["image_pr"]), strict=True))
    assert ours <= {*zip(recall.tolist(), precision.tolist(), strict=True)}
    assert {r for r, _ in ours} == set(recall.tolist())


def test_region_overlap_by_hand_and_its_area() -> None:
    # Two regions: of one pixel, found second, and of two, one of them found first. One normal pixel above the last.
    mask = torch.tensor([[[1, 0, 1, 1, 0, 0]]])
    maps = torch.tensor([[[0.8, 0.5, 0.9, 0.4, 0.1, 0.0]]])
    curve = pixel_curves(maps, mask, fpr_limit=1.0)["pixel_pro"]
    assert curve.x.tolist() == pytest.approx([0, 0, 0, 1 / 3, 1 / 3, 1])
    assert curve.y.tolist() == pytest.approx([0, 0.25, 0.75, 0.75, 1, 1])


def test_region_overlap_is_cut_where_aupro_is() -> None:
    rng = np.random.default_rng(0)
    mask = torch.from_numpy(rng.random((5, 16, 16)) > 0.9)
    maps = (torch.from_numpy(rng.random((5, 16, 16))) + mask).mul(8).round().float()
    for limit in (0.05, 0.3):
        curve = pixel_curves(maps, mask, fpr_limit=limit)["pixel_pro"]
        assert float(curve.x[-1]) == pytest.approx(limit)
        assert area(curve) / limit == pytest.approx(float(aupro(maps, mask, fpr_limit=limit)), abs=1e-12)


def test_thinning_keeps_the_ends_and_the_shape() -> None:
    score, label = torch.rand(5000, generator=torch.Generator().manual_seed(0)), torch.arange(5000) % 2
    score = score + 0.5 * label
    whole = image_curves(score, label)["image_roc"]
    few = thin(whole, 200)
    assert len(whole.x) > 2000
    assert len(few.x) <= 200
    assert [float(few.x[0]), float(few.y[0]), float(few.x[-1]), float(few.y[-1])] == [0, 0, 1, 1]
    assert area(few) == pytest.approx(area(whole), abs=2e-3)
    assert set(zip(*map(Tensor.tolist, few), strict=True)) <= set(zip(*map(Tensor.tolist, whole), strict=True))
    assert thin(few, 200) is few


def test_a_curve_names_its_axes() -> None:
    curve = Curve(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 0.5]))
    assert named("pixel_pro", curve) == {"false_positive_rate": [0.0, 1.0], "region_overlap": [0.0, 0.5]}


def test_one_class_has_no_curves() -> None:
    with pytest.warns(UserWarning, match="no positive"):
        assert image_curves(torch.tensor([0.1, 0.2]), torch.tensor([0, 0])) == {}
    with pytest.warns(UserWarning, match="no positive"):
        assert pixel_curves(torch.rand(1, 2, 2), torch.zeros(1, 2, 2, dtype=torch.bool)) == {}
