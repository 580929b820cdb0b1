"""The truths: brute force over pairs, scikit-learn, a textbook per-region overlap, and hand-worked cases."""

import math
import os
import runpy
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score
from torch import Tensor

from squad_lit.metric import (
    aupro,
    auroc,
    average_precision,
    f1_max,
    image_metrics,
    pixel_metrics,
    pixel_metrics_by_size,
    ranking,
)

PIXEL_KEYS = ["pixel_auroc", "pixel_ap", "pixel_f1_max", "pixel_aupro"]
repeatable = settings(derandomize=True, deadline=None, database=None, max_examples=60)


# --- slow truths ---


def slow_auroc(score: Tensor, label: Tensor) -> float:
    """Share of (anomalous, normal) pairs in the right order; a tie is half a pair."""
    pairs = [
        1.0 if p > q else 0.5 if p == q else 0.0 for p in score[label != 0].tolist() for q in score[label == 0].tolist()
    ]
    return sum(pairs) / len(pairs)


def slow_f1_max(score: Tensor, label: Tensor) -> float:
    precision, recall, _ = precision_recall_curve((label != 0).numpy(), score.numpy())
    total = precision + recall
    return float(np.max(2 * precision * recall / np.where(total == 0, 1, total)))


def flood_regions(mask: np.ndarray) -> list[np.ndarray]:
    """The 8-connected regions of one mask, each as a boolean mask, by flood fill."""
    todo = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    regions = []
    while todo:
        front = [todo.pop()]
        region = np.zeros(mask.shape, bool)
        while front:
            y, x = front.pop()
            region[y, x] = True
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & todo
            todo -= near
            front += near
        regions.append(region)
    return regions


def slow_aupro(anomaly_map: Tensor, mask: Tensor, fpr_limit: float = 0.3) -> float:
    """The definition, one threshold at a time."""
    maps, truth = anomaly_map.numpy(), mask.numpy() != 0
    regions = [(i, region) for i in range(len(truth)) for region in flood_regions(truth[i])]
    fpr, pro = [0.0], [0.0]
    for threshold in np.unique(maps)[::-1]:
        found = maps >= threshold
        fpr.append(float(found[~truth].mean()))
        pro.append(float(np.mean([found[i][region].mean() for i, region in regions])))
    area = 0.0
    for x0, x1, y0, y1 in zip(fpr, fpr[1:], pro, pro[1:], strict=False):
        if x0 < fpr_limit:
            cut = min(x1, fpr_limit)
            y_cut = y1 if x1 == x0 else y0 + (y1 - y0) * (cut - x0) / (x1 - x0)
            area += (cut - x0) * (y0 + y_cut) / 2
    return area / fpr_limit


def draw_case(seed: int, n: int, ties: bool) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    label = torch.rand(n, generator=generator) < 0.3
    label[:2] = torch.tensor([True, False])
    score = torch.randn(n, generator=generator, dtype=torch.float64) + label
    return (score * 2).round() / 2 if ties else score, label


def draw_maps(seed: int, levels: int = 0) -> tuple[Tensor, Tensor]:
    """Four 9x10 maps, the first without a defect; with ``levels``, scores in coarse steps."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(4, 9, 10, generator=generator) < 0.25
    mask[0] = False
    score = torch.randn(4, 9, 10, generator=generator, dtype=torch.float64) + 0.8 * mask
    return (score * levels).round() / levels if levels else score, mask


# --- against the slow truths ---


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", [2, 17, 300])
def test_sample_metrics_equal_brute_force_and_scikit_learn(n: int, ties: bool) -> None:
    score, label = draw_case(n, n, ties)
    assert auroc(score, label).item() == pytest.approx(slow_auroc(score, label), abs=1e-12)
    assert auroc(score, label).item() == pytest.approx(roc_auc_score(label, score), abs=1e-12)
    assert average_precision(score, label).item() == pytest.approx(average_precision_score(label, score), abs=1e-12)
    assert f1_max(score, label).item() == pytest.approx(slow_f1_max(score, label), abs=1e-12)


@pytest.mark.parametrize("fpr_limit", [0.01, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("levels", [0, 1, 4])
def test_pixel_metrics_equal_textbook_and_scikit_learn(levels: int, fpr_limit: float) -> None:
    score, mask = draw_maps(levels, levels)
    got = pixel_metrics(score, mask, fpr_limit=fpr_limit)
    flat, truth = score.flatten(), mask.flatten()
    assert list(got) == PIXEL_KEYS
    assert got["pixel_auroc"].item() == pytest.approx(roc_auc_score(truth, flat), abs=1e-12)
    assert got["pixel_ap"].item() == pytest.approx(average_precision_score(truth, flat), abs=1e-12)
    assert got["pixel_f1_max"].item() == pytest.approx(slow_f1_max(flat, truth), abs=1e-12)
    assert got["pixel_aupro"].item() == pytest.approx(slow_aupro(score, mask, fpr_limit), abs=1e-12)
    assert got["pixel_aupro"] == aupro(score, mask, fpr_limit=fpr_limit)


def test_image_metrics_are_the_three_functions() -> None:
    score, label = draw_case(4, 50, ties=True)
    got = image_metrics(score, label)
    assert got == {
        "image_auroc": auroc(score, label),
        "image_ap": average_precision(score, label),
        "image_f1_max": f1_max(score, label),
    }


@pytest.mark.parametrize("chunk", [1, 7, 90, 1000])
def test_sorting_in_pieces_changes_nothing(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    score, mask = draw_maps(3, 4)
    whole = pixel_metrics(score, mask)
    monkeypatch.setattr(ranking, "_CHUNK", chunk)
    assert pixel_metrics(score, mask) == whole


def test_maps_of_different_sizes_are_one_set_of_pixels() -> None:
    score, mask = draw_maps(5)
    maps, masks = [score[0], score[1, :5], score[2, :, 2:], score[3]], [mask[0], mask[1, :5], mask[2, :, 2:], mask[3]]
    got = pixel_metrics(maps, masks, fpr_limit=(0.3, 0.05))
    flat, truth = torch.cat([m.flatten() for m in maps]), torch.cat([m.flatten() for m in masks])
    assert got["pixel_auroc"].item() == pytest.approx(roc_auc_score(truth, flat), abs=1e-12)
    assert got["pixel_ap"].item() == pytest.approx(average_precision_score(truth, flat), abs=1e-12)
    # The textbook wants one size: what is missing is filled with normal pixels below all scores, which stretches the
    # false-positive rate by a known factor.
    full, full_mask = torch.full_like(score, -1e9), torch.zeros_like(mask)
    for i, (s, m) in enumerate(zip(maps, masks, strict=True)):
        full[i, : s.shape[0], : s.shape[1]], full_mask[i, : s.shape[0], : s.shape[1]] = s, m
    normal = int((~truth).sum())
    for key, limit in (("pixel_aupro", 0.3), ("pixel_aupro_0.05", 0.05)):
        scaled = limit * normal / (normal + score.numel() - flat.numel())
        assert got[key].item() == pytest.approx(slow_aupro(full, full_mask, scaled), abs=1e-12)


def test_sequence_and_tensor_are_the_same() -> None:
    score, mask = draw_maps(6)
    assert pixel_metrics(list(score), list(mask)) == pixel_metrics(score, mask)
    assert pixel_metrics(score, list(mask)) == pixel_metrics(score, mask)


def test_a_further_limit_has_its_own_key() -> None:
    score, mask = draw_maps(7)
    got = pixel_metrics(score, mask, fpr_limit=[0.3, 0.05, 1])
    assert list(got) == [*PIXEL_KEYS, "pixel_aupro_0.05", "pixel_aupro_1"]
    assert got["pixel_aupro_0.05"] == aupro(score, mask, fpr_limit=0.05)


@pytest.mark.parametrize("levels", [0, 3])
def test_thirds_by_size_equal_the_textbook_on_their_regions(levels: int) -> None:
    score, mask = draw_maps(8, levels)
    regions = [(i, region) for i in range(4) for region in flood_regions(mask[i].numpy())]
    areas = sorted(int(region.sum()) for _, region in regions)
    cuts = [0, *(areas[math.ceil(len(areas) * k / 3) - 1] for k in (1, 2, 3))]
    got = pixel_metrics_by_size(score, mask)
    assert list(got) == ["small", "medium", "large"]
    for row, low, high in zip(got.values(), cuts, cuts[1:], strict=False):
        own = torch.zeros_like(mask)
        for i, region in regions:
            if low < region.sum() <= high:
                own[i] |= torch.from_numpy(region)
        # Pixels of other regions are neither: below every score and normal they would count, so each is left out.
        kept = own | ~mask
        assert row["pixel_auroc"].item() == pytest.approx(roc_auc_score(own[kept], score[kept]), abs=1e-12)
        assert row["pixel_ap"].item() == pytest.approx(average_precision_score(own[kept], score[kept]), abs=1e-12)
        assert row["pixel_f1_max"].item() == pytest.approx(slow_f1_max(score[kept], own[kept]), abs=1e-12)
        lowest = torch.where(kept, score, torch.full_like(score, -1e9))
        stretched = 0.3 * int((~mask).sum()) / int((~own).sum())
        assert row["pixel_aupro"].item() == pytest.approx(slow_aupro(lowest, own, stretched), abs=1e-12)
        assert row["largest_area"] == high
    assert sum(int(row["regions"]) for row in got.values()) == len(regions)


def test_regions_of_one_size_are_one_third() -> None:
    mask = torch.zeros(1, 5, 9, dtype=torch.bool)
    mask[0, 1, [1, 4, 7]] = True
    got = pixel_metrics_by_size(torch.rand(1, 5, 9), mask)
    assert list(got) == ["small"]
    assert got["small"]["regions"] == 3
    assert pixel_metrics_by_size(torch.rand(1, 5, 9), torch.zeros_like(mask)) == {}


@pytest.mark.parametrize(
    ("maps", "masks", "message"),
    [
        ([], [], "at least one map"),
        ([torch.zeros(2, 2)], [], "as many masks as maps, got 0 and 1"),
        ([torch.zeros(2, 2)], [torch.zeros(2, 3).bool()], r"mask\[0\] must have the shape of anomaly_map\[0\]"),
        ([torch.full((2, 2), math.nan)], [torch.zeros(2, 2).bool()], r"anomaly_map\[0\] must be finite, got 4"),
    ],
)
def test_sequences_refused(maps: list[Tensor], masks: list[Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pixel_metrics(maps, masks)


def test_reference_case() -> None:
    """Figures of scikit-learn and of the MVTec authors' evaluation code, given with the case."""
    root = Path(__file__).resolve().parents[2]
    path = root / os.environ.get("SQUAD_LIT_REFERENCE", "../shared/reference") / "metrics_case.py"
    if not path.is_file():
        pytest.skip(f"no reference case at {path}; set SQUAD_LIT_REFERENCE to its folder")
    pytest.importorskip("scipy", reason="the reference case draws its maps with scipy")
    scores, masks = runpy.run_path(str(path))["make"](80)  # run_path leaves no bytecode beside the file
    got = pixel_metrics(torch.from_numpy(scores), torch.from_numpy(masks))
    assert got["pixel_auroc"].item() == pytest.approx(0.88073338, abs=1e-8)
    assert got["pixel_ap"].item() == pytest.approx(0.39493404, abs=1e-8)
    assert got["pixel_aupro"].item() == pytest.approx(0.69280456, abs=1e-8)


# --- by hand ---


def test_perfect_and_reversed_order() -> None:
    label = torch.tensor([0, 0, 1, 1])
    up, down = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([4.0, 3.0, 2.0, 1.0])
    assert auroc(up, label) == average_precision(up, label) == f1_max(up, label) == 1
    assert auroc(down, label) == 0
    assert average_precision(down, label).item() == pytest.approx((1 / 3 + 2 / 4) / 2)
    assert f1_max(down, label).item() == pytest.approx(2 / 3)  # all four called anomalous


def test_all_scores_equal() -> None:
    """One threshold: chance for the areas, the anomalous share for AP, F1 of calling everything anomalous."""
    mask = torch.zeros(2, 4, 4, dtype=torch.bool)
    mask[1, :2] = True
    got = pixel_metrics(torch.full((2, 4, 4), 0.7), mask)
    assert got["pixel_auroc"] == 0.5
    assert got["pixel_ap"] == 0.25
    assert got["pixel_f1_max"].item() == pytest.approx(2 * 8 / (32 + 8))
    assert got["pixel_aupro"].item() == pytest.approx(0.15)  # triangle below the diagonal: 0.3 * 0.3 / 2 / 0.3


def test_one_outlier_pixel() -> None:
    """A normal pixel far above all others costs one rank, however far it lies."""
    mask = torch.zeros(1, 10, 10, dtype=torch.bool)
    mask[0, 3:5, 3:5] = True
    anomaly_map = torch.where(mask, 1.0, 0.0)
    anomaly_map[0, 9, 9] = 1e30
    got = pixel_metrics(anomaly_map, mask)
    assert got["pixel_auroc"].item() == pytest.approx(95 / 96)
    assert got["pixel_ap"].item() == pytest.approx(4 / 5)
    assert got["pixel_f1_max"].item() == pytest.approx(8 / 9)
    assert got["pixel_aupro"].item() == pytest.approx((0.3 - 1 / 96) / 0.3)


def test_scores_beyond_the_unit_interval_are_not_squashed() -> None:
    """A sigmoid in float32 makes 20..40 one value, and the AUROC 0.5."""
    score, label = torch.arange(20.0, 41.0), torch.arange(21) >= 15
    assert auroc(score, label) == auroc(score - 100, label) == 1
    assert average_precision(score - 100, label) == f1_max(score - 100, label) == 1


def test_neighbouring_float32_scores_are_two_thresholds() -> None:
    low = torch.tensor(0.5)
    high = torch.nextafter(low, torch.tensor(1.0))
    assert auroc(torch.stack([low, high]), torch.tensor([0, 1])) == 1
    assert auroc(torch.tensor([0.0, -0.0]), torch.tensor([0, 1])) == 0.5


def test_small_region_weighs_as_much_as_a_large_one() -> None:
    """One pixel missed and 24 found: overlap 1/2, whatever the limit."""
    mask = torch.zeros(2, 12, 12, dtype=torch.bool)
    mask[0, 2:6, 2:8] = True
    mask[1, 11, 11] = True  # one pixel, in a corner
    anomaly_map = mask.double()
    anomaly_map[1, 11, 11] = -1
    for fpr_limit in (0.05, 0.3, 1.0):
        assert aupro(anomaly_map, mask, fpr_limit=fpr_limit).item() == pytest.approx(0.5)


def test_diagonal_neighbours_are_one_region_and_images_are_apart() -> None:
    """Found: 1 of 2 diagonal pixels. One region would be 1/2; with a second image's region found, 3/4."""
    mask = torch.zeros(2, 3, 4, dtype=torch.bool)
    mask[0, 0, 0] = mask[0, 1, 1] = True
    anomaly_map = torch.zeros(2, 3, 4)
    anomaly_map[0, 0, 0], anomaly_map[0, 1, 1] = 2.0, -1.0
    assert aupro(anomaly_map[:1], mask[:1]).item() == pytest.approx(1 / 2)
    mask[1, 0, :] = True  # at the place of the other image's region
    anomaly_map[1, 0, :] = 2.0
    assert aupro(anomaly_map, mask).item() == pytest.approx(3 / 4)


def test_region_at_the_border_and_region_of_a_whole_image() -> None:
    mask = torch.zeros(3, 5, 5, dtype=torch.bool)
    mask[0, :, 0] = mask[0, 4, :] = True  # an L along two edges
    mask[1] = True  # leaves no normal pixel in its image
    anomaly_map = torch.randn(3, 5, 5, generator=torch.Generator().manual_seed(0)) + mask
    assert aupro(anomaly_map, mask).item() == pytest.approx(slow_aupro(anomaly_map, mask), abs=1e-9)
    assert aupro(mask.float(), mask) == 1


def test_limit_inside_a_tie_is_interpolated() -> None:
    """Ten normal pixels, five tied with the only anomalous one: the curve runs from (0, 0) to (0.5, 1)."""
    mask = torch.tensor([[[1] + [0] * 10]])
    anomaly_map = torch.tensor([[[1.0] * 6 + [0.0] * 5]])
    assert aupro(anomaly_map, mask, fpr_limit=0.2).item() == pytest.approx(0.2)  # 0.2 * 0.4 / 2 / 0.2
    assert aupro(anomaly_map, mask, fpr_limit=0.5).item() == pytest.approx(0.5)
    assert aupro(anomaly_map, mask, fpr_limit=1.0).item() == pytest.approx(0.75)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64])
@pytest.mark.parametrize("values", [(1, 1), (255, 255), (1, 2)])
def test_any_nonzero_mask_value_is_anomalous(values: tuple[int, int], dtype: torch.dtype) -> None:
    score, truth = draw_maps(5)
    mask = truth.to(torch.int64) * values[0]
    mask[:, :, 5:] = truth[:, :, 5:] * values[1]  # two values inside one region: still one region
    got = pixel_metrics(score, mask.to(dtype))
    assert got == pixel_metrics(score, truth)
    assert got["pixel_aupro"].item() == pytest.approx(slow_aupro(score, truth), abs=1e-12)
    assert auroc(score.flatten(), mask.to(dtype).flatten()) == got["pixel_auroc"]


# --- properties ---


@pytest.mark.parametrize(
    "transform",
    [torch.exp, torch.atan, torch.sigmoid, lambda x: x**3, lambda x: 1e6 * x - 3e7, lambda x: 1e-9 * x],
    ids=["exp", "atan", "sigmoid", "cube", "large", "small"],
)
def test_strictly_increasing_transform_changes_nothing(transform: Callable[[Tensor], Tensor]) -> None:
    for levels in (0, 2):
        score, mask = draw_maps(11, levels)
        before, after = pixel_metrics(score, mask), pixel_metrics(transform(score), mask)
        for name in PIXEL_KEYS:
            assert after[name].item() == pytest.approx(before[name].item(), abs=1e-9), name


samples = st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=30).filter(
    lambda pairs: len({truth for _, truth in pairs}) == 2
)


@repeatable
@given(samples)
def test_any_samples(pairs: list[tuple[int, bool]]) -> None:
    score = torch.tensor([float(value) for value, _ in pairs])
    label = torch.tensor([truth for _, truth in pairs])
    area, precision, f1 = auroc(score, label), average_precision(score, label), f1_max(score, label)
    assert area.item() == pytest.approx(slow_auroc(score, label), abs=1e-12)
    assert precision.item() == pytest.approx(average_precision_score(label, score), abs=1e-12)
    assert f1.item() == pytest.approx(slow_f1_max(score, label), abs=1e-12)
    # Turning the order around, or exchanging the classes, mirrors the ROC curve.
    assert auroc(-score, label).item() == pytest.approx(1 - area.item(), abs=1e-12)
    assert auroc(score, ~label).item() == pytest.approx(1 - area.item(), abs=1e-12)
    # The order of the samples is of no account.
    assert auroc(score.flip(0), label.flip(0)).item() == pytest.approx(area.item(), abs=1e-12)
    # Calling everything anomalous is always possible.
    share = label.double().mean().item()
    assert 1 >= f1.item() >= 2 * share / (1 + share) - 1e-12


small_maps = st.integers(1, 3).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(-3, 3), min_size=12 * n, max_size=12 * n),
        st.lists(st.booleans(), min_size=12 * n, max_size=12 * n).filter(lambda mask: len(set(mask)) == 2),
    )
)


@repeatable
@given(small_maps, st.floats(1e-3, 1.0))
def test_any_maps(case: tuple[list[int], list[bool]], fpr_limit: float) -> None:
    anomaly_map = torch.tensor(case[0], dtype=torch.float32).reshape(-1, 3, 4)
    mask = torch.tensor(case[1]).reshape(-1, 3, 4)
    got = aupro(anomaly_map, mask, fpr_limit=fpr_limit)
    assert 0 <= got.item() <= 1
    assert got.item() == pytest.approx(slow_aupro(anomaly_map, mask, fpr_limit), abs=1e-9)
    mirrored = aupro(anomaly_map.transpose(1, 2).flip(0), mask.transpose(1, 2).flip(0), fpr_limit=fpr_limit)
    assert mirrored.item() == pytest.approx(got.item(), abs=1e-12)


# --- form of input and output ---


def test_scalars_are_float64_and_carry_no_gradient() -> None:
    score, mask = draw_maps(2)
    score.requires_grad_()
    label = mask.flatten()
    results = [*pixel_metrics(score, mask).values(), aupro(score, mask)]
    results += [metric(score.flatten(), label) for metric in (auroc, average_precision, f1_max)]
    for value in results:
        assert value.shape == ()
        assert value.dtype == torch.float64
        assert not value.requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_short_floats_rank_like_their_float64_copy(dtype: torch.dtype) -> None:
    score, mask = draw_maps(3)
    assert pixel_metrics(score.to(dtype), mask) == pixel_metrics(score.to(dtype).double(), mask)


def test_input_is_left_alone_and_may_be_a_view() -> None:
    score, mask = draw_maps(4)
    before = score.clone()
    view = score.transpose(1, 2)
    assert aupro(view, mask.transpose(1, 2)).item() == pytest.approx(aupro(score, mask).item(), abs=1e-12)
    assert torch.equal(score, before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_cpu() -> None:
    score, mask = draw_maps(6, levels=4)
    got = pixel_metrics(score.cuda(), mask.cuda())
    for name, value in pixel_metrics(score, mask).items():
        assert got[name].device.type == "cuda"
        assert got[name].item() == pytest.approx(value.item(), abs=1e-12), name


# --- undefined is NaN, never 0 ---


@pytest.mark.parametrize("metric", [auroc, average_precision, f1_max])
@pytest.mark.parametrize(
    ("label", "missing"),
    [
        ([0, 0, 0], r"no positive \(anomalous\) sample among 3"),
        ([1, 1, 1], r"no negative \(normal\) sample among 3"),
        ([], r"no positive \(anomalous\) and no negative \(normal\) sample among 0"),
    ],
)
def test_one_class_of_samples_is_nan(
    metric: Callable[[Tensor, Tensor], Tensor], label: list[int], missing: str
) -> None:
    truth = torch.tensor(label, dtype=torch.int64)
    with pytest.warns(UserWarning, match=missing) as caught:
        value = metric(torch.zeros(len(label)), truth)
    assert math.isnan(value.item())
    assert value.dtype == torch.float64
    assert caught[0].filename == __file__  # the warning points at the caller


@pytest.mark.parametrize(
    ("fill", "missing"), [(0, "no positive .* pixel among 18"), (1, "no negative .* pixel among 18")]
)
def test_one_class_of_pixels_is_nan(fill: int, missing: str) -> None:
    anomaly_map, mask = torch.rand(2, 3, 3), torch.full((2, 3, 3), fill)
    with pytest.warns(UserWarning, match=missing) as caught:
        got = pixel_metrics(anomaly_map, mask)
    assert len(caught) == 1
    assert list(got) == PIXEL_KEYS
    assert all(math.isnan(value.item()) for value in got.values())
    with pytest.warns(UserWarning, match=missing):
        assert math.isnan(aupro(anomaly_map, mask).item())


def test_no_warning_when_defined() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixel_metrics(*draw_maps(7))


# --- refusals, in words ---


@pytest.mark.parametrize("metric", [auroc, average_precision, f1_max])
def test_samples_refused(metric: Callable[[Tensor, Tensor], Tensor]) -> None:
    label = torch.tensor([0, 1, 1])
    with pytest.raises(ValueError, match=r"score must have shape \(N,\), got \(3, 1\)"):
        metric(torch.zeros(3, 1), label)
    with pytest.raises(ValueError, match=r"label must have the shape of score, \(2,\), got \(3,\)"):
        metric(torch.zeros(2), label)
    with pytest.raises(ValueError, match=r"score must be floating point, got torch\.int64"):
        metric(label, label)
    with pytest.raises(ValueError, match=r"label must be boolean or integer, got torch\.float32"):
        metric(torch.zeros(3), label.float())
    with pytest.raises(ValueError, match=r"score must be finite, got 2 NaN or infinite values, at image index 0, 2"):
        metric(torch.tensor([math.nan, 0.0, -math.inf]), label)


@pytest.mark.parametrize("metric", [aupro, pixel_metrics])
def test_maps_refused(metric: Callable[..., object]) -> None:
    anomaly_map, mask = torch.zeros(8, 4, 4), torch.ones(8, 4, 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"anomaly_map must have shape \(N, H, W\), got \(8, 1, 4, 4\)"):
        metric(anomaly_map[:, None], mask[:, None])
    with pytest.raises(ValueError, match=r"mask must have the shape of anomaly_map, \(8, 4, 4\), got \(8, 1, 4, 4\)"):
        metric(anomaly_map, mask[:, None])
    with pytest.raises(ValueError, match=r"mask must be boolean or integer, got torch\.float32"):
        metric(anomaly_map, mask.float())
    anomaly_map[1, 2, 3] = anomaly_map[1, 0, 0] = math.nan
    anomaly_map[5, 0, 0] = math.inf
    with pytest.raises(ValueError, match=r"anomaly_map must be finite, got 3 NaN .* at image index 1, 5$"):
        metric(anomaly_map, mask)
    anomaly_map[:] = math.nan
    with pytest.raises(ValueError, match=r"got 128 NaN .* at image index 0, 1, 2, 3, 4, \.\.\.$"):
        metric(anomaly_map, mask)


@pytest.mark.parametrize("fpr_limit", [0.0, -0.1, 1.01, 30, math.nan])
def test_fpr_limit_refused(fpr_limit: float) -> None:
    score, mask = draw_maps(8)
    for metric in (aupro, pixel_metrics):
        with pytest.raises(ValueError, match=rf"fpr_limit: expected values in \(0, 1\], got {fpr_limit}"):
            metric(score, mask, fpr_limit=fpr_limit)


@pytest.mark.parametrize(
    ("fpr_limit", "message"),
    [
        (True, "expected values in"),
        ("0.3", "expected values in"),
        ([], "expected values in"),
        ([0.3, 0.05, 0.05000001], "differ in six digits"),
    ],
)
def test_limits_refused(fpr_limit: object, message: str) -> None:
    score, mask = draw_maps(8)
    with pytest.raises(ValueError, match=f"fpr_limit.*{message}"):
        pixel_metrics(score, mask, fpr_limit=fpr_limit)  # type: ignore[arg-type]


def test_numpy_limits_are_numbers_and_aupro_takes_one() -> None:
    score, mask = draw_maps(8)
    assert aupro(score, mask, fpr_limit=np.float64(0.3)) == aupro(score, mask, fpr_limit=0.3)
    with pytest.raises(ValueError, match="one number"):
        aupro(score, mask, fpr_limit=[0.3, 0.05])  # type: ignore[arg-type]


@pytest.mark.parametrize("score", [np.zeros(3), [0.0, 1.0, 2.0]])
def test_other_things_than_tensors_are_refused(score: object) -> None:
    with pytest.raises(ValueError, match=r"score must be a torch\.Tensor, got (ndarray|list)"):
        auroc(score, torch.tensor([0, 1, 0]))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"must be (tensors|a torch\.Tensor)"):
        pixel_metrics(score, score)  # type: ignore[arg-type]
