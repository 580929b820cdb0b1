"""Paired tests and ranks against brute force, scikit-learn-free hand computation and published numbers."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from squad_lit.report import comparison, critical_difference, table
from squad_lit.report.gather import Result, Run

# Hamilton's depression scale of nine patients, before and after: Hollander and Wolfe, table 3.1; the example of R.
BEFORE = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30]
AFTER = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29]


def result(arm: str, category: str, seed: int, value: float | None, **more: object) -> Result:
    return Result("mvtec", category, arm, seed, {"pixel_ap": value, **more}, Run(Path(), {}, [], None))


def brute_force(differences: list[float]) -> float:
    """The two-sided p-value over all signs of the ranks."""
    ranks = np.argsort(np.argsort(np.abs(differences))) + 1
    observed = ranks[np.array(differences) > 0].sum()
    sums = np.array([sum(r for r, s in zip(ranks, signs, strict=True) if s) for signs in _signs(len(ranks))])
    return float(min(1, 2 * min((sums <= observed).mean(), (sums >= observed).mean())))


def _signs(n: int) -> itertools.product:
    return itertools.product((0, 1), repeat=n)


def test_the_example_of_hollander_and_wolfe() -> None:
    differences = [a - b for a, b in zip(AFTER, BEFORE, strict=True)]
    estimate, interval, p = comparison.signed_rank(differences)
    assert estimate == pytest.approx(-0.46)
    assert p == pytest.approx(0.0390625)
    assert p == pytest.approx(brute_force(differences))
    # The book's interval of 96.1 % coverage, the smallest above 95 %.
    assert interval == pytest.approx((-0.786, -0.010))


@pytest.mark.parametrize("n", [6, 8, 11])
def test_the_interval_has_the_values_that_the_test_does_not_refuse(n: int) -> None:
    differences = np.random.default_rng(n).normal(0.4, 1, n).round(3)
    _, interval, _ = comparison.signed_rank(differences)
    assert interval is not None
    for end, inside in zip(interval, (1e-4, -1e-4), strict=True):
        assert brute_force(list(differences - end - inside)) > 0.05
        assert brute_force(list(differences - end + inside)) <= 0.05


def test_few_pairs_have_no_interval_and_equal_arms_no_difference() -> None:
    assert comparison.signed_rank([1.0, 2.0, 3.0, 4.0, 5.0])[1:] == (None, pytest.approx(2 * 0.5**5))
    assert comparison.signed_rank([0.0] * 8) == (0.0, (0.0, 0.0), 1.0)


def test_equal_differences_share_a_rank_although_floats_differ() -> None:
    """0.3 - 0.2 and 0.2 - 0.1 are one difference; scipy permutes all signs then."""
    ties = [0.3 - 0.2, 0.2 - 0.1, 0.1 - 0.3]
    ranks = [1.5, 1.5, 3.0]
    sums = np.array([sum(r for r, s in zip(ranks, signs, strict=True) if s) for signs in _signs(3)])
    expected = min(1, 2 * min((sums <= 3).mean(), (sums >= 3).mean()))
    assert comparison.signed_rank(ties)[2] == pytest.approx(expected)


def test_holm_by_hand() -> None:
    """Holm 1979: the smallest times 4, the next times 3, never decreasing, never above 1."""
    assert comparison.holm([0.005, 0.04, 0.011, 0.9]) == pytest.approx([0.02, 0.08, 0.033, 0.9])
    assert comparison.holm([0.5, 0.6]) == [1.0, 1.0]
    assert comparison.holm([]) == []


def test_pairs_are_categories_and_seeds_that_both_arms_have() -> None:
    results = [result("a", c, s, v) for c, s, v in (("x", 0, 0.5), ("x", 1, 0.6), ("y", 0, 0.7), ("z", 0, 0.1))]
    results += [result("b", c, s, v) for c, s, v in (("x", 0, 0.52), ("x", 1, 0.63), ("y", 0, None), ("y", 1, 0.2))]
    (found,) = comparison.compare(results)
    assert (found.arm, found.against, found.pairs) == ("b", "a", 2)
    assert found.difference == pytest.approx(2.5)
    assert found.text == "+2.5, p = 0.5"
    (made,) = comparison.tables([found])
    assert [row.name for row in made.rows] == ["b against a (2 pairs)"]
    assert [c.text for c in made.rows[0].cells] == ["", "", "+2.5, p = 0.5", ""]


def test_a_baseline_limits_the_tests_and_their_correction() -> None:
    rng = np.random.default_rng(0)
    results = [
        result(arm, f"c{i}", 0, float(v + shift))
        for i, v in enumerate(rng.uniform(0.3, 0.6, 8))
        for arm, shift in (("a", 0), ("b", 0.01 + 0.001 * i), ("c", 0.02 + 0.001 * i))
    ]
    each = {(c.arm, c.against): c for c in comparison.compare(results)}
    assert set(each) == {("b", "a"), ("c", "a"), ("c", "b")}
    assert each["b", "a"].p == pytest.approx(2 / 2**8)
    assert each["b", "a"].p_holm == pytest.approx(6 / 2**8)
    base = {c.arm: c for c in comparison.compare(results, "a")}
    assert set(base) == {"b", "c"}
    assert base["b"].p_holm == pytest.approx(4 / 2**8)
    (made,) = comparison.tables(list(base.values()))
    assert [row.cells[2].best for row in made.rows] == [True, True]
    rows = comparison.rows(list(base.values()))
    assert rows[0]["low"] == pytest.approx(1.0, abs=0.2)
    assert rows[0].keys() >= {"dataset", "metric", "arm", "against", "pairs", "p", "p_holm", "high"}


def test_many_arms_are_compared_with_a_baseline_alone() -> None:
    results = [result(f"a{i}", "x", seed, i / 10 + seed / 100) for i in range(7) for seed in range(3)]
    assert comparison.compare(results) == []
    assert next((c.arm, c.against) for c in comparison.compare(results, "a3")) == ("a0", "a3")
    assert len(comparison.compare(results, "a3")) == 6
    assert len(comparison.compare(results[:18])) == 15


def test_ranks_and_critical_difference_of_demsar() -> None:
    """q(0.05) of 4 algorithms is 2.569, so 14 data sets have 1.25 (his section 3.2.2)."""
    rng = np.random.default_rng(0)
    values = rng.uniform(size=(14, 4))
    results = [result("abcd"[j], f"c{i}", s, float(values[i, j])) for i in range(14) for j in range(4) for s in (0, 1)]
    found = critical_difference.ranks(results, table.METRICS[2])
    assert found is not None
    assert found.difference == pytest.approx(1.25, abs=0.005)
    assert (found.blocks, found.what) == (14, "categories")
    by_hand = {"abcd"[j]: np.mean([1 + (row > row[j]).sum() for row in values]) for j in range(4)}
    assert found.average == pytest.approx(by_hand)
    assert list(found.average.values()) == sorted(found.average.values())
    statistic = 12 * 14 / (4 * 5) * (sum(r**2 for r in by_hand.values()) - 4 * 25 / 4)  # chi-squared, 3 degrees
    tail = math.erfc(math.sqrt(statistic / 2)) + math.sqrt(2 * statistic / math.pi) * math.exp(-statistic / 2)
    assert found.p == pytest.approx(tail)


def test_one_category_ranks_seeds_and_two_arms_have_no_plot() -> None:
    results = [result(arm, "x", s, v) for arm, v in (("a", 0.1), ("b", 0.2), ("c", 0.2)) for s in (0, 1)]
    found = critical_difference.ranks(results, table.METRICS[2])
    assert found is not None
    assert found.average == {"b": 1.5, "c": 1.5, "a": 3.0}
    assert (found.blocks, found.what) == (2, "seeds")
    assert critical_difference.ranks([r for r in results if r.arm != "c"], table.METRICS[2]) is None
    assert critical_difference.plot([r for r in results if r.arm != "c"], {}) is None
    figure = critical_difference.plot(results, {"a": "C0", "b": "C1", "c": "C2"})
    assert figure is not None
    assert "average rank over 2 seeds" in figure.axes[0].get_title()


def test_a_single_value_has_its_bootstrap_interval() -> None:
    one = result("a", "x", 0, 0.9, interval={"pixel_ap": [0.85, 0.93]})
    column = table.METRICS[2]
    from squad_lit.report.text import cell_text

    assert cell_text(table.cell([one], column), 1) == "90.0 [85.0, 93.0]"
    assert cell_text(table.cell([one, result("a", "x", 1, 0.8)], column), 1) == "85.0 ± 7.1"
