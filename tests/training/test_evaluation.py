"""The truths: scikit-learn on the images of one category at a time, and means by hand."""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score
from torch.nn import functional

from squad_lit.training.evaluation import Evaluation

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
            "mask_path": [f"{i:03}_mask.png" if self.label[i] else "" for i in at],
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
    return Evaluation(fpr_limit=[0.3, 0.05])


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
    assert sum("image_auroc" in str(warning.message) for warning in caught) == 1
    assert math.isnan(found["per_category"]["empty"]["image_auroc"])
    assert math.isnan(found["per_category"]["empty"]["pixel_ap"])
    assert found["categories_averaged"]["image_auroc"] == 2
    each = [images.truth(name) for name in ("a", "c")]
    for key in each[0]:
        assert found[key] == pytest.approx((each[0][key] + each[1][key]) / 2)


def test_only_what_is_undefined_is_nan():
    # Anomalous images alone: no image metric, but both kinds of pixels.
    images, evaluation = Images({"a": [1, 1]}), make()
    images.feed(evaluation, range(2))
    with pytest.warns(UserWarning, match="category a: image_auroc.*no negative") as caught:
        found = evaluation.compute()
    assert "pixel_au" not in str(caught[0].message).split(" undefined")[0].replace("pixel_aupimo", "")
    assert math.isnan(found["image_auroc"])
    assert found["pixel_auroc"] == pytest.approx(roc_auc_score(images.mask.ravel(), images.maps.ravel()))


def test_a_mean_of_nothing_is_nan():
    images, evaluation = Images({"a": [0, 0], "b": [0]}), make()
    images.feed(evaluation, range(3))
    with pytest.warns(UserWarning, match="undefined") as caught:
        found = evaluation.compute()
    assert len(caught) == 2
    assert math.isnan(found["pixel_ap"])
    assert found["categories_averaged"]["pixel_ap"] == 0


def test_a_repeated_image_counts_once():
    images, evaluation = Images({"a": [0, 1, 0, 1]}), make()
    images.feed(evaluation, [0, 1, 2])
    images.feed(evaluation, [3, 0, 1])  # a distributed sampler fills its last batch from the start
    assert len(evaluation.predictions()) == 4
    found = evaluation.compute()
    assert {key: found[key] for key in images.truth("a")} == pytest.approx(images.truth("a"))


def test_gathering_in_one_process_changes_nothing():
    images, evaluation = Images({"a": [0, 1]}), make()
    images.feed(evaluation, range(2))
    assert evaluation.gather()
    assert len(evaluation.predictions()) == 2


def test_each_kind_of_defect_is_measured_against_all_normal_images():
    images, evaluation = Images({"a": [0, 1, 0, 1, 1, 0]}), make()
    kinds = ["good", "cut", "good", "hole", "cut", "good"]
    batch = images.batch(range(6)) | {"defect": kinds}
    evaluation.update(batch, torch.from_numpy(images.maps), torch.from_numpy(images.score))
    found = evaluation.compute()["per_defect"]
    assert list(found) == ["cut", "hole"]
    for kind, row in found.items():
        at = [i for i, name in enumerate(kinds) if name in ("good", kind)]
        assert row["images"] == kinds.count(kind)
        assert row["image_auroc"] == pytest.approx(roc_auc_score(images.label[at], images.score[at]))
        pixel, guess = images.mask[at].ravel(), images.maps[at].ravel()
        assert row["pixel_ap"] == pytest.approx(average_precision_score(pixel, guess))


def test_sizes_of_regions_are_told_apart():
    images, evaluation = Images({"a": [0, 1, 1, 1]}), make()
    images.mask[2, 2:5, 3:6] = False
    images.mask[2, 7, 7] = True
    images.feed(evaluation, range(4))
    found = evaluation.compute()["per_region_size"]
    assert {name: (row["regions"], row["largest_area"]) for name, row in found.items()} == {
        "small": (1, 1),
        "medium": (2, 9),
    }
    assert found["small"]["pixel_auroc"] == pytest.approx((images.maps[~images.mask] < images.maps[2, 7, 7]).mean())


def test_anomalous_images_without_a_mask_leave_the_pixel_metrics_undefined():
    images, evaluation = Images({"a": [0, 1, 1]}), make()
    batch = images.batch(range(3)) | {"mask_path": ["", "x.png", ""]}
    evaluation.update(batch, torch.from_numpy(images.maps), torch.from_numpy(images.score))
    with pytest.warns(UserWarning, match="category a: pixel_auroc.*undefined: 1 anomalous images have no mask"):
        found = evaluation.compute()
    assert math.isnan(found["pixel_aupro"])
    assert math.isnan(found["pixel_aupro_0.05"])
    assert found["image_auroc"] == pytest.approx(images.truth("a")["image_auroc"])
    assert "per_region_size" not in found


def test_original_resolution_is_that_of_the_files(tmp_path):
    images, evaluation = Images({"a": [0, 1]}), Evaluation(fpr_limit=0.3, resolution="original")
    mask = np.zeros((16, 24), np.uint8)
    mask[5:9, 6:15] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    Image.new("RGB", (20, 12)).save(tmp_path / "good.png")
    batch = images.batch(range(2))
    batch |= {"image_path": [str(tmp_path / "good.png"), ""], "mask_path": ["", str(tmp_path / "mask.png")]}
    evaluation.update(batch, torch.from_numpy(images.maps), torch.from_numpy(images.score))
    maps = [
        functional.interpolate(torch.from_numpy(images.maps[i])[None, None], size=size, mode="bilinear").flatten()
        for i, size in enumerate([(12, 20), (16, 24)])
    ]
    truth = np.concatenate([np.zeros(12 * 20, bool), mask.ravel() != 0])
    found = evaluation.compute()
    assert found["pixel_auroc"] == pytest.approx(roc_auc_score(truth, torch.cat(maps)), abs=1e-6)
    assert found["pixel_ap"] == pytest.approx(average_precision_score(truth, torch.cat(maps)), abs=1e-6)


def test_intervals_hold_the_value_and_are_seeded():
    images = Images({"a": [0] * 15 + [1] * 15, "b": [0] * 10 + [1] * 9})

    def found(seed: int) -> dict[str, Any]:
        evaluation = Evaluation(fpr_limit=(0.3, 0.05), bootstrap=200, seed=seed)
        images.feed(evaluation, range(49))
        return evaluation.compute()

    one = found(0)
    assert repr(one) == repr(found(0))  # NaN differs from NaN
    assert one["interval"] != found(1)["interval"]
    for row in [one, *one["per_category"].values()]:
        for key, (low, high) in row["interval"].items():
            assert low <= row[key] <= high or key.endswith("f1_max")  # of a resample, the best F1 is biased upwards
            assert low < high
    width = {key: high - low for key, (low, high) in one["per_category"]["a"]["interval"].items()}
    assert 0.15 < width["image_auroc"] < 0.5


def test_interval_of_what_is_undefined_is_nan():
    images = Images({"a": [0, 0]})
    evaluation = Evaluation(fpr_limit=0.3, bootstrap=5)
    images.feed(evaluation, range(2))
    with pytest.warns(UserWarning, match="undefined"):
        found = evaluation.compute()
    assert all(math.isnan(end) for ends in found["interval"].values() for end in ends)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": "full"}, "^resolution: expected map or original, got 'full'"),
        ({"bootstrap": -1}, "^bootstrap: expected at least 0, got -1"),
        ({"bootstrap": 0.5}, "^bootstrap: expected a whole number, got 0.5"),
        ({"fpr_limit": []}, "^fpr_limit: expected values in"),
        ({"fpr_limit": [0.3, 2]}, "^fpr_limit: expected values in"),
        ({"fpr_limit": "0.3"}, "^fpr_limit: expected a number or a list, got '0.3'"),
    ],
)
def test_options_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Evaluation(**{"fpr_limit": 0.3, **options})


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
        warnings.filterwarnings("ignore", r"category .: pixel_aupimo undefined: 64 pixels")  # it needs 100,000
        evaluation.compute()


@pytest.mark.parametrize("limit", [0.0, -0.1, 1.1])
def test_limit_is_refused_in_words(limit):
    with pytest.raises(ValueError, match=r"^fpr_limit: expected values in \(0, 1\]"):
        Evaluation(fpr_limit=limit)


def test_extras_of_a_category_without_normal_images_are_nan_and_not_in_the_mean():
    images, evaluation = Images({"a": [1, 1], "b": [1, 0]}), make()
    images.feed(evaluation, range(4), psnr=[1.0, 2.0, 3.0, 40.0])
    with pytest.warns(UserWarning, match="category a: image_auroc"):
        found = evaluation.compute()
    assert math.isnan(found["per_category"]["a"]["psnr"])
    assert found["psnr"] == 40
    assert found["categories_averaged"]["psnr"] == 1
