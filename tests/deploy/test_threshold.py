"""The truths: counting, and a simulation of many factories."""

import math
import re

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from squad_lit.deploy.threshold import (
    FALSE_ALARM_RATE,
    Threshold,
    choose,
    extrapolated,
    from_defects,
    from_normals,
    separation,
    strange,
)


@pytest.mark.parametrize(
    ("count", "rate", "place", "expected"),
    [(99, 0.01, 1, 0.01), (98, 0.01, 1, 1 / 99), (199, 0.01, 2, 0.01), (9, 0.29, 2, 0.2), (99, 0.29, 29, 0.29)],
)
def test_threshold_is_an_order_statistic(count, rate, place, expected):
    values = np.random.default_rng(0).permutation(count).astype(float)
    found = from_normals(values.tolist(), rate)
    assert (values > found.value).sum() == place - 1
    assert found.false_alarm_rate == pytest.approx(expected)
    assert found.images == count


@pytest.mark.parametrize(("count", "rate"), [(19, 0.1), (60, 0.05), (9, 0.01)])
def test_the_rate_and_its_interval_hold_for_any_distribution(count, rate):
    rng = np.random.default_rng(1)
    true, inside = [], 0
    for _ in range(4000):
        found = from_normals(rng.lognormal(size=count).tolist(), rate)
        # The share of the log-normal distribution above the threshold, from the error function.
        true.append(0.5 * (1 - math.erf(math.log(found.value) / math.sqrt(2))))
        inside += found.interval[0] <= true[-1] <= found.interval[1]
    assert np.mean(true) == pytest.approx(found.false_alarm_rate, rel=0.05)
    assert inside / 4000 == pytest.approx(0.95, abs=0.015)


def test_a_rate_that_few_images_do_not_support_is_the_smallest_that_they_do():
    assert from_normals([3.0, 1.0, 2.0], 0.001)[:2] == (3.0, 0.25)


@pytest.mark.parametrize(
    ("count", "rate", "text"),
    [
        (3, 0.01, "a false-alarm rate of 1 % needs 99 normal images .*; there are 3, for about 25 %"),
        (1, 0.001, "a false-alarm rate of 0.1 % needs 999 normal images .*; there is 1, for about 50 %"),
        (98, 0.01, "needs 99 normal images .*; there are 98, for about 1 %"),
        (99, 0.01, "$"),
        (1, 1e-310, "needs more than a billion normal images"),
        (1, 0.5, "$"),
    ],
)
def test_a_rate_that_few_images_do_not_support_is_told_with_how_many_do(count, rate, text):
    assert re.match(f".*{text}" if text != "$" else text, from_normals(list(map(float, range(count))), rate).shortfall)
    assert from_defects([1.0], [2.0]).shortfall == ""


def test_percentages_are_written_as_people_do():
    texts = [str(Threshold(2.0, share, (0.0, 1.0), 20)) for share in (1.0, 0.25, 0.0331, 0.0004)]
    for text, share in zip(texts, ("100", "25", "3.3", "0.04"), strict=True):
        assert (
            text
            == f"2: about {share} % of normal images lie above it (95 % interval 0 to 100 %, from 20 normal images)"
        )


def test_separation_is_the_auroc_of_scikit_learn():
    rng = np.random.default_rng(3)
    for shift in (-1, 0, 0.5, 9):
        normal, bad = rng.normal(0, 1, 15).round(1).tolist(), rng.normal(shift, 1, 8).round(1).tolist()
        expected = metrics.roc_auc_score([0] * 15 + [1] * 8, normal + bad)
        assert separation(normal, bad) == pytest.approx(expected)


@pytest.mark.parametrize("rate", [0, 1, -0.1, 2])
def test_rates_that_are_none_are_refused(rate):
    with pytest.raises(ValueError, match="false-alarm rate: expected a share"):
        from_normals([1.0], rate)
    with pytest.raises(ValueError, match="no normal image"):
        from_normals([], 0.1)


@pytest.mark.parametrize(("count", "rate"), [(1, 0.5), (19, 0.1), (60, 0.05), (500, 0.3), (20_000, 0.01)])
def test_the_interval_is_the_beta_distribution_of_scipy(count, rate):
    found = from_normals(np.arange(count, dtype=float).tolist(), rate)
    k = round(found.false_alarm_rate * (count + 1))
    assert found.interval == pytest.approx(stats.beta.ppf([0.025, 0.975], k, count + 1 - k).tolist(), rel=1e-8)


def test_known_defects_refine_the_threshold_to_the_highest_f1():
    rng = np.random.default_rng(2)
    for _ in range(20):
        normal, bad = rng.normal(0, 1, 15).round(1).tolist(), rng.normal(1.5, 1, 8).round(1).tolist()
        found = from_defects(normal, bad)

        def f1(limit, normal=normal, bad=bad):
            above = sum(score > limit for score in bad)
            return 2 * above / (above + sum(score > limit for score in normal) + len(bad))

        assert f1(found.value) == max(f1(limit) for limit in np.arange(-5, 6, 0.05))
        above = sum(score > found.value for score in normal)
        assert found.false_alarm_rate == above / 15
        exact = stats.binomtest(above, 15).proportion_ci(0.95)  # Clopper and Pearson's
        assert found.interval == pytest.approx((exact.low, exact.high), abs=1e-9)


def test_defects_that_are_apart_put_the_threshold_into_the_middle():
    assert from_defects([1.0, 2.0], [4.0, 9.0])[:2] == (3.0, 0.0)
    with pytest.raises(ValueError, match="2 and 0"):
        from_defects([1.0, 2.0], [])


def test_a_rate_that_is_asked_for_is_stronger_than_known_defects():
    scores, maxima, bad = [1.0, 2.0, 3.0], [10.0, 20.0, 30.0], [7.0]
    assert [limit.value for limit in choose(scores, maxima, bad, None)] == [5.0, 30.0]
    assert [limit.value for limit in choose(scores, maxima, bad, 0.5)] == [2.0, 20.0]
    assert choose(scores, maxima, [], None) == choose(scores, maxima, [], FALSE_ALARM_RATE)


def test_a_folder_that_mostly_scores_far_above_all_normal_images_is_told():
    normal = [0.5, 1.0, 1.5, 2.0, 2.5]  # far is above 2.5 + (2.5 - 1.5)
    assert strange([12.0, 13.0, 3.6, 1.0, 1.0], normal).startswith(
        "3 of 5 images score far above all 5 normal images that are known (median 3.6, highest normal score 2.5): "
    )
    for scores in ([12.0, 13.0, 3.5, 1.0, 1.0], [12.0] * 4, [12.0] * 5 + [1.0] * 5, []):
        assert strange(scores, normal) == ""
    # Four images say little about their spread, so that far is above twice the highest.
    assert strange([5.1, 5.1, 5.1, 1.0, 1.0], [2.5, 2.4, 2.5, 2.5]).startswith("3 of 5 images score far above all 4 ")
    assert strange([4.9] * 5, [2.5, 2.4, 2.5, 2.5]) == ""
    assert strange([12.0] * 9, [2.5]) == ""


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_no_threshold_comes_from_scores_that_are_not_finite(value: float) -> None:
    words = rf"^no threshold comes from a score of {value}, which 1 of 3 images have: the file of the model is damaged"
    with pytest.raises(ValueError, match=words):
        from_normals([0.5, value, 1.0], 0.1)
    for normal, defective in (([0.5, value], [1.0]), ([0.5], [value, 1.0])):
        with pytest.raises(ValueError, match=words):
            from_defects(normal, defective)


@pytest.mark.parametrize(("count", "rate"), [(4, 0.01), (4, 0.1), (10, 0.001), (60, 1e-6), (900, 0.0005)])
def test_an_extrapolated_threshold_is_the_prediction_bound_of_student(count, rate):
    values = np.random.default_rng(count).normal(3, 2, count)
    reach = stats.t.isf(rate, count - 1) * math.sqrt(1 + 1 / count)
    found = extrapolated(values.tolist(), rate)
    assert found.value == pytest.approx(max(values.mean() + reach * values.std(ddof=1), values.max()), rel=1e-5)
    assert (found.images, found.asked, found.false_alarm_rate, found.is_extrapolated) == (count, rate, rate, True)


@pytest.mark.parametrize(("count", "rate"), [(4, 0.05), (12, 0.01)])
def test_an_extrapolated_rate_and_its_interval_hold_for_normal_scores(count, rate):
    rng = np.random.default_rng(5)
    true, inside = [], 0
    for _ in range(3000):
        found = extrapolated(rng.normal(7, 3, count).tolist(), rate)
        true.append(stats.norm.sf(found.value, 7, 3))
        inside += found.interval[0] <= true[-1] <= found.interval[1]
    # The threshold is at least the highest value, which lowers the rate of some samples.
    assert 0.8 * rate < np.mean(true) < 1.1 * rate
    assert inside / 3000 > 0.93


def test_only_a_rate_that_the_images_do_not_support_is_extrapolated_and_it_is_said():
    four, three = [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0]
    found = from_normals(four, 0.01, extrapolate=True)
    assert found == extrapolated(four, 0.01)
    assert "about 1 % of normal images lie above it if their scores are normally distributed" in str(found)
    assert "there are 4, and the threshold is extrapolated; squad-lit calibrate takes more" in found.shortfall
    assert "--extrapolate" in from_normals(four, 0.01).shortfall
    assert "--extrapolate" not in from_normals(three, 0.01).shortfall
    assert from_normals(four, 0.2, extrapolate=True) == from_normals(four, 0.2)
    assert from_normals(three, 0.01, extrapolate=True) == from_normals(three, 0.01)
    assert [limit.is_extrapolated for limit in choose(four, four, [], 0.01, extrapolate=True)] == [True, True]
    assert not any(limit.is_extrapolated for limit in choose(four, four, [9.0], None, extrapolate=True))
