"""The truth is every pair, one by one."""

import numpy as np
import pytest

from squad_lit.dataset.duplicates import alike


@pytest.mark.parametrize("first", [0, 30, 2500])
def test_the_most_similar_one_before_is_found(first):
    rng = np.random.default_rng(first)
    vectors = rng.normal(size=(2500, 12)).astype(np.float32)  # more than are compared at once
    for new, old in ((40, 3), (41, 3), (42, 35), (2400, 41), (2401, 2300), (2402, 29)):
        vectors[new] = vectors[old] + 0.05 * rng.normal(size=12)
    away = (vectors - vectors.mean(0)).astype(np.float64)
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    distance = np.array([np.linalg.norm(away - one, axis=1) for one in away])
    np.fill_diagonal(distance, np.inf)
    limit = 0.45 * np.median(distance.min(1))
    expected = {}
    for new in range(1, len(vectors)):
        for before in (distance[new, : min(new, first)], distance[new, :new]):
            if len(before) and before.min() <= limit:
                expected[new] = int(before.argmin())
                break
    found = alike(vectors.copy(), first)
    assert found == expected
    assert found.keys() >= {40, 41, 42, 2400, 2401, 2402}
    assert len(found) < 50


def test_neighbours_of_a_few_kinds_are_not_alike():
    rng = np.random.default_rng(0)
    kinds = rng.normal(size=(3, 40))  # such as three positions of a part
    vectors = (kinds[np.arange(60) % 3] + 0.1 * rng.normal(size=(60, 40))).astype(np.float32)
    assert alike(vectors, 60) == {}
    vectors[50] = vectors[20] + 0.01 * rng.normal(size=40)
    assert alike(vectors, 60) == {50: 20}


def test_where_all_are_there_twice_copies_are_found_by_their_distance():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(30, 40)).repeat(2, 0) + 1e-3 * rng.normal(size=(60, 40))
    assert alike(vectors.astype(np.float32), 60) == {n + 1: n for n in range(0, 60, 2)}


def test_images_without_a_difference_and_none_are_not_compared():
    assert alike(np.ones((4, 3), np.float32), 2) == {}
    assert alike(np.ones((1, 3), np.float32), 1) == {}
