"""The truths: scikit-learn on the images of one category at a time, and means by hand."""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from squad_lit.evaluation import Evaluation

SIDE = 8


class Images:
    """Test images with maps and scores that are a noisy guess of the truth."""

    def __init__(self, labels: dict[str, Sequence[int]], seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.category = [name for name, values in labels.items() for _ in values]
        self.label = np.array([label for values in labels.values() for label in values])
        n = len(self.label)
        self.mask = np.zeros((n, SIDE, SIDE), bool)
        self.mask[:, 2:5, 3:6] = self.label.astype(bool)[:, None, None]
        self.maps = (rng.random((n, SIDE, SIDE)) + 0.5 * self.mask).astype(np.float32)
        self.score = (rng.random(n) + 0.4 * self.label).astype(np.float32)

    def batch(self, index: Sequence[int]) -> dict[str, Any]:
        at = list(index)
        return {
            "index": torch.tensor(at),
            "mask": torch.from_numpy(self.mask[at])[:, None].float(),
            "label": torch.from_numpy(self.label[at]),
            "category": [self.category[i] for i in at],
            "defect": ["crack" if self.label[i] else "good" for i in at],
            "image_path": [f"{self.category[i]}/{i:03}.png" for i in at],
        }

    def feed(self, evaluation: Evaluation, index: Sequence[int], **extra: Sequence[float]) -> None:
        at = list(index)
        evaluation.update(self.batch(at), torch.from_numpy(self.maps[at]), torch.from_numpy(self.score[at]), **extra)

    def truth(self, category: str) -> dict[str, float]:
        of = np.array(self.category) == category
        pixel, guess = self.mask[of].ravel(), self.maps[of].ravel()
        return {
            "image_auroc": roc_auc_score(self.label[of], self.score[of]),
            "image_ap": average_precision_score(self.label[of], self.score[of]),
            "pixel_auroc": roc_auc_score(pixel, guess),
            "pixel_ap": average_precision_score(pixel, guess),
        }


def make() -> Evaluation:
    return Evaluation(fpr_limit=0.3)


def test_one_category_is_that_of_scikit_learn():
    images, evaluation = Images({"a": [0, 1, 0, 1, 1, 0]}), make()
    images.feed(evaluation, range(6))
    found = evaluation.compute()
    assert "per_category" not in found
    assert {key: found[key] for key in images.truth("a")} == pytest.approx(images.truth("a"))


def test_categories_are_measured_apart_and_then_averaged():
    images, evaluation = Images({"a": [0, 0, 1, 1, 1, 1], "b": [1, 0, 0], "c": [0, 1]}), make()
    for part in ([0, 7, 3], [1, 2, 10, 9], [4, 5, 6, 8]):  # batches mix the categories
        images.feed(evaluation, part)
    found = evaluation.compute()
    assert list(found["per_category"]) == ["a", "b", "c"]
    for name, figures in found["per_category"].items():
        assert {key: figures[key] for key in images.truth(name)} == pytest.approx(images.truth(name))
    for key in [*images.truth("a"), "pixel_aupro", "image_f1_max", "pixel_f1_max"]:
        assert found[key] == pytest.approx(np.mean([figures[key] for figures in found["per_category"].values()]))
    # Pooled over the categories it would be something else.
    assert found["image_auroc"] != pytest.approx(roc_auc_score(images.label, images.score))


def test_undefined_is_nan_with_a_warning_and_not_in_the_mean():
    images, evaluation = Images({"a": [0, 1, 1], "empty": [0, 0], "c": [1, 0]}), make()
    images.feed(evaluation, range(7))
    with pytest.warns(
        UserWarning, match=r"category empty: image_auroc, .*pixel_aupro.* undefined: .*no positive"
    ) as caught:
        found = evaluation.compute()
    assert len(caught) == 1
    assert math.isnan(found["per_category"]["empty"]["image_auroc"])
    assert math.isnan(found["per_category"]["empty"]["pixel_ap"])
    each = [images.truth(name) for name in ("a", "c")]
    for key in each[0]:
        assert found[key] == pytest.approx((each[0][key] + each[1][key]) / 2)


def test_only_what_is_undefined_is_nan():
    # Anomalous images alone: no image metric, but both kinds of pixels.
    images, evaluation = Images({"a": [1, 1]}), make()
    images.feed(evaluation, range(2))
    with pytest.warns(UserWarning, match="category a: image_auroc.*no negative") as caught:
        found = evaluation.compute()
    assert "pixel" not in str(caught[0].message).split(" undefined")[0]
    assert math.isnan(found["image_auroc"])
    assert found["pixel_auroc"] == pytest.approx(roc_auc_score(images.mask.ravel(), images.maps.ravel()))


def test_a_mean_of_nothing_is_nan():
    images, evaluation = Images({"a": [0, 0], "b": [0]}), make()
    images.feed(evaluation, range(3))
    with pytest.warns(UserWarning, match="undefined") as caught:
        found = evaluation.compute()
    assert len(caught) == 2
    assert math.isnan(found["pixel_ap"])


def test_a_repeated_image_counts_once():
    images, evaluation = Images({"a": [0, 1, 0, 1]}), make()
    images.feed(evaluation, [0, 1, 2])
    images.feed(evaluation, [3, 0, 1])  # a distributed sampler fills its last batch from the start
    assert len(evaluation.predictions()) == 4
    found = evaluation.compute()
    assert {key: found[key] for key in images.truth("a")} == pytest.approx(images.truth("a"))


def test_processes_are_brought_together(monkeypatch):
    images, here, there = Images({"a": [0, 1, 0, 1, 1]}), make(), make()
    images.feed(here, [0, 2, 4])
    images.feed(there, [1, 3, 0])

    def gather(parts: list[Any], own: Any) -> None:
        parts[:] = [own, there._rows]

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    here.gather()
    found = here.compute()
    assert {key: found[key] for key in images.truth("a")} == pytest.approx(images.truth("a"))


def test_gathering_in_one_process_changes_nothing():
    images, evaluation = Images({"a": [0, 1]}), make()
    images.feed(evaluation, range(2))
    evaluation.gather()
    assert len(evaluation.predictions()) == 2


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["map", "score"])
def test_a_value_that_is_not_finite_is_refused_with_the_path(value, where):
    images = Images({"a": [0, 1, 1]})
    (images.maps[1, 3] if where == "map" else images.score[1:2])[0] = value
    with pytest.raises(ValueError, match=r"the anomaly map of a/001\.png is not finite"):
        images.feed(make(), range(3))


def test_extras_are_averaged_over_the_normal_images_of_a_category():
    images, evaluation = Images({"a": [0, 1, 0], "b": [1, 0]}), make()
    images.feed(evaluation, range(5), psnr=[10.0, 99.0, 20.0, 99.0, 40.0])
    found = evaluation.compute()
    assert found["per_category"]["a"]["psnr"] == 15
    assert found["per_category"]["b"]["psnr"] == 40
    assert found["psnr"] == 27.5


def test_predictions_are_in_the_order_of_the_data_set():
    images, evaluation = Images({"a": [0, 1], "b": [1]}), make()
    images.feed(evaluation, [2, 0])
    images.feed(evaluation, [1])
    rows = evaluation.predictions()
    assert [row["image_path"] for row in rows] == ["a/000.png", "a/001.png", "b/002.png"]
    assert [row["label"] for row in rows] == [0, 1, 1]
    assert [row["defect"] for row in rows] == ["good", "crack", "crack"]
    assert [row["category"] for row in rows] == ["a", "a", "b"]
    assert [row["anomaly_score"] for row in rows] == pytest.approx(images.score.tolist())


def test_reset_forgets():
    images, evaluation = Images({"a": [0, 1], "b": [1, 0]}), make()
    images.feed(evaluation, range(4))
    evaluation.reset()
    assert evaluation.predictions() == []
    images.feed(evaluation, [0, 1])
    assert evaluation.compute()["image_auroc"] == pytest.approx(images.truth("a")["image_auroc"])


def test_defined_metrics_warn_of_nothing():
    images, evaluation = Images({"a": [0, 1], "b": [1, 0]}), make()
    images.feed(evaluation, range(4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluation.compute()


@pytest.mark.parametrize("limit", [0.0, -0.1, 1.1])
def test_limit_is_refused_in_words(limit):
    with pytest.raises(ValueError, match=r"metric.fpr_limit: expected a number in \(0, 1\]"):
        Evaluation(fpr_limit=limit)
