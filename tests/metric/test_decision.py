"""Decisions by a given threshold, against scikit-learn."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import precision_recall_fscore_support

from squad_lit.metric import image_decisions, pixel_decisions


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.75])
def test_decisions_are_those_of_scikit_learn(threshold: float) -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 60)
    score = (rng.random(60) + 0.3 * label).round(2)  # with scores that equal the threshold
    found = image_decisions(torch.from_numpy(score), torch.from_numpy(label), threshold)
    precision, recall, f1, _ = precision_recall_fscore_support(label, score > threshold, average="binary")
    expected = {"image_f1": f1, "image_precision": precision, "image_recall": recall}
    expected["image_false_alarm_rate"] = (score[label == 0] > threshold).mean()
    assert {name: value.item() for name, value in found.items()} == pytest.approx(expected)


def test_pixels_of_all_images_are_one_set_also_of_several_sizes() -> None:
    rng = np.random.default_rng(1)
    maps = [torch.from_numpy(rng.random((side, side))) for side in (4, 7)]
    masks = [torch.from_numpy(rng.integers(0, 3, (side, side))) for side in (4, 7)]
    found = pixel_decisions(maps, masks, 0.6)
    truth = np.concatenate([m.numpy().ravel() > 0 for m in masks])
    marked = np.concatenate([m.numpy().ravel() > 0.6 for m in maps])
    precision, recall, f1, _ = precision_recall_fscore_support(truth, marked, average="binary")
    assert found["pixel_f1"].item() == pytest.approx(f1)
    assert found["pixel_precision"].item() == pytest.approx(precision)
    assert found["pixel_recall"].item() == pytest.approx(recall)
    assert found["pixel_false_alarm_rate"].item() == pytest.approx(marked[~truth].mean())


def test_what_has_nothing_to_count_is_nan() -> None:
    score = torch.tensor([0.1, 0.2])
    with pytest.warns(UserWarning, match="no image above the threshold"):
        found = image_decisions(score, torch.tensor([0, 1]), 0.5)
    assert math.isnan(found["image_precision"])
    assert (found["image_f1"], found["image_recall"], found["image_false_alarm_rate"]) == (0, 0, 0)
    with pytest.warns(UserWarning, match="no anomalous image"):
        found = image_decisions(score, torch.tensor([0, 0]), 0.15)
    assert [math.isnan(v) for v in found.values()] == [True, False, True, False]
    assert found["image_false_alarm_rate"] == 0.5
    with pytest.warns(UserWarning, match="no normal image"):
        assert math.isnan(image_decisions(score, torch.tensor([1, 1]), 0.15)["image_false_alarm_rate"])
