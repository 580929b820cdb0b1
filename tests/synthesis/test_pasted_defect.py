"""Pasted defects: where the truth is a square of one colour."""

import numpy as np

from squad_lit.synthesis.known import KnownDefect, paste


def known(side: int = 64) -> KnownDefect:
    image, mask = np.full((side, side, 3), 0.5, np.float32), np.zeros((side, side), bool)
    mask[20:30, 24:36] = True
    image[mask] = (0.9, 0.1, 0.1)
    return KnownDefect(image, mask)


def test_the_defect_is_pasted_on_another_image_and_its_mask_says_where() -> None:
    normal = np.full((64, 64, 3), 0.3, np.float32)
    places = []
    for seed in range(20):
        found = paste(normal, known(), np.random.default_rng(seed))
        assert found is not None
        changed, mask = found
        assert changed.dtype == np.float32
        assert 0 <= changed.min() <= changed.max() <= 1
        differs = np.abs(changed - normal).mean(-1)
        assert differs[~mask].max() < 0.1  # a soft edge
        assert differs[mask].mean() > 0.1
        assert 0.2 * 120 < mask.sum() < 2.5 * 120
        red = changed[mask].mean(0)
        assert red[0] > red[1] + 0.3
        places.append(tuple(np.argwhere(mask).mean(0).round(1)))
    assert len(set(places)) == 20
    near = [np.hypot(y - 24.5, x - 29.5) < 8 for y, x in places]
    assert 4 <= sum(near) <= 16  # about half stay where they were


def test_the_same_seed_gives_the_same_and_brightness_follows_the_new_place() -> None:
    dark, light = (np.full((64, 64, 3), grey, np.float32) for grey in (0.2, 0.6))
    one, two = (paste(dark, known(), np.random.default_rng(3)) for _ in range(2))
    other = paste(light, known(), np.random.default_rng(3))
    assert one is not None
    assert two is not None
    assert other is not None
    assert np.array_equal(one[0], two[0])
    both = one[1] & other[1]
    assert np.median(other[0][both][:, 1] - one[0][both][:, 1]) > 0.1


def test_a_defect_that_changes_nothing_is_no_anomaly() -> None:
    nothing = known()._replace(image=np.full((64, 64, 3), 0.5, np.float32))
    normal = np.full((64, 64, 3), 0.5, np.float32)
    found = [paste(normal, nothing, np.random.default_rng(seed)) for seed in range(20)]
    assert any(one is None for one in found)
