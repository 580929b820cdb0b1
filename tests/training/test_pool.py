"""The truths: a backbone that returns the pixels, so that a feature can be traced to its image; sets; recomputation."""

import os
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from squad_lit.image.tile import Grid
from squad_lit.network.backbone import Backbone
from squad_lit.synthesis.augmentation import Augmentation
from squad_lit.synthesis.image import Synthesis
from squad_lit.training.chunk import chunks_ahead
from squad_lit.training.pool import FeaturePool

SIDE = 64


class Textures(Dataset[dict[str, Any]]):
    """Images that differ from one another in every pixel, of two categories."""

    def __init__(self, draw: Any, count: int) -> None:
        self.images = [torch.from_numpy(draw(seed, SIDE)).permute(2, 0, 1) for seed in range(count)]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self.images[index], "category": "ab"[index % 2]}


class Pixels(nn.Module):
    """In the place of the backbone: the image itself, and its 8x8 means."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("image_mean", torch.zeros(1))
        self.seen = 0
        self.channels, self.stride = {"pixel": 3, "mean": 3}, {"pixel": 1, "mean": 8}

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        self.seen += len(image)
        return {"pixel": image, "mean": F.avg_pool2d(image, 8)}


def make(**changed: Any) -> FeaturePool:
    augmentation = Augmentation(flip=["horizontal"], rotation=10, shift=0.02, zoom=0.02, brightness=0.05)
    setting = {"views": 2, "clean_limit": 100, "synthetic": 6, "refresh_every": 4, "augmentation": augmentation}
    if "synthesis" not in changed:
        setting["synthesis"] = Synthesis(
            kinds={"patch": 1.0, "own": 1.0, "tone": 1.0},
            gross=0.5,
            gross_area=0.3,
            fine_area=[15, 0.1],
            fine_count=2,
            opacity=[0.5, 1.0],
        )
    return FeaturePool(**(setting | changed))


@pytest.fixture(scope="module")
def data(draw_texture) -> Textures:
    return Textures(draw_texture, 5)


def attached(
    data: Textures, seed: int = 0, backbone: nn.Module | None = None, grid: Grid | None = None, **changed: Any
) -> FeaturePool:
    pool = make(**changed)
    pool.attach(data, backbone or Pixels(), grid or Grid((SIDE, SIDE)), seed=seed)
    return pool


def take(pool: FeaturePool, step: int, clean: int = 3, synthetic: int = 2) -> dict[str, Any]:
    pool.advance(step)
    return pool.batch(step, clean=clean, synthetic=synthetic)


def equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
    flat_a, flat_b = (
        [t for value in batch.values() for t in (value.values() if isinstance(value, dict) else [value])]
        for batch in (a, b)
    )
    return all(torch.equal(x, y) for x, y in zip(flat_a, flat_b, strict=True))


# Batches are a function of the seed and the step


@pytest.mark.parametrize("clean_limit", [100, 7], ids=["all views fit", "views are drawn"])
def test_a_fresh_pool_continues_where_another_went_step_by_step(data, clean_limit):
    walked = attached(data, clean_limit=clean_limit)
    batches = [take(walked, step) for step in range(14)]
    for step in (13, 0, 6):
        assert equal(take(attached(data, clean_limit=clean_limit), step), batches[step]), step


def test_batches_of_other_steps_and_of_other_seeds_differ(data):
    pool = attached(data)
    batches = [take(pool, step) for step in range(9)]
    assert not any(equal(batches[i], batches[j]) for i in range(9) for j in range(i))
    assert not equal(take(attached(data, seed=1), 0), batches[0])


def test_a_batch_may_be_asked_for_twice(data):
    pool = attached(data)
    assert equal(take(pool, 2), take(pool, 2))


def test_anomalies_are_drawn_anew_at_a_refresh_and_clean_features_are_kept(data):
    backbone = Pixels()
    pool = attached(data, backbone=backbone)
    pool.advance(0)
    assert backbone.seen == 5 * 2 + 6
    first = pool.batch(0, clean=0, synthetic=6)["features"]["pixel"]
    pool.advance(3)
    assert backbone.seen == 5 * 2 + 6  # the same period
    pool.advance(4)
    assert backbone.seen == 5 * 2 + 6 + 6
    second = pool.batch(4, clean=0, synthetic=6)["features"]["pixel"]
    assert not any(torch.equal(new, old) for new in second for old in first)


def test_attaching_again_starts_anew(data, draw_texture):
    pool = attached(data)
    before = take(pool, 0)
    pool.attach(Textures(draw_texture, 3), Pixels(), Grid((SIDE, SIDE)), seed=0)
    assert not equal(take(pool, 0), before)
    pool.attach(data, Pixels(), Grid((SIDE, SIDE)), seed=0)
    assert equal(take(pool, 0), before)


def test_batches_go_on_across_refreshes_and_from_any_step(data):
    parts, pool = {"clean": 3, "synthetic": 2}, attached(data)
    batches = [*pool.batches(0, 5, **parts), *pool.batches(5, 11, **parts)]
    assert len(batches) == 11
    assert all(equal(batch, take(attached(data), step)) for step, batch in enumerate(batches))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("clean_limit", [100, 7], ids=["all views fit", "views are drawn"])
def test_processes_make_the_anomalies_that_threads_make(data, workers, clean_limit):
    ahead = attached(data, workers=workers, clean_limit=clean_limit, synthetic=37)
    for step in (0, 4, 8):  # three periods, each of more than one chunk
        assert equal(take(ahead, step), take(attached(data, clean_limit=clean_limit, synthetic=37), step)), step
    ahead.close()


def test_a_process_that_dies_is_named_with_what_to_do(data):
    pool = attached(data, workers=1, synthesis=lambda image, others, rng: os._exit(3))
    with pytest.raises(
        OSError, match=r"process .* ended: .*pid\(s\) \d+\) exited .* model\.pool\.workers=1 lower, or to 0"
    ):
        pool.advance(0)


def test_an_error_of_a_synthesis_in_a_process_is_its_own(data):
    def fail(image: Any, others: Any, rng: Any) -> Any:
        raise ValueError("no such texture")

    with pytest.raises(ValueError, match="no such texture"):
        attached(data, workers=1, synthesis=fail).advance(0)


def test_processes_share_the_anomalies(data):
    pool = attached(data, synthetic=5)
    pool.attach(data, Pixels(), Grid((SIDE, SIDE)), seed=0, processes=2)
    pool.advance(0)
    assert len(set(identity(pool.batch(0, clean=0, synthetic=12)["features"]["pixel"]))) == 3


# What is in a batch


def test_shapes(data):
    batch = take(attached(data), 1)
    for part in ("features", "target"):
        assert {group: tuple(f.shape) for group, f in batch[part].items()} == {
            "pixel": (5, 3, SIDE, SIDE),
            "mean": (5, 3, 8, 8),
        }
        assert all(f.dtype == torch.float32 for f in batch[part].values())
    assert batch["image"].shape == (5, 3, SIDE, SIDE)
    assert batch["shown"].tolist() == [0, 1, 2, 3, 4]
    assert batch["mask"].shape == (5, 1, SIDE, SIDE)
    assert batch["mask"].dtype == torch.float32
    assert set(batch["mask"].unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("every", "expected"),
    [
        (4, [[0], [1], [2], [3], [0]]),
        (2, [[0, 2], [1, 3]] * 2),
        (3, [[0], [1], [2], [3]]),  # as many in each step
        (7, [[0], [1], [2], [3]]),
        (8, [[], [0], [], [1], [], [2], [], [3], [], [0]]),  # one image in each second batch
    ],
)
def test_images_are_shown_in_turn_clean_and_corrupted_ones(data, every, expected):
    pool = attached(data)
    for step, shown in enumerate(expected):
        pool.advance(step)
        batch = pool.batch(step, clean=2, synthetic=2, image_every=every)
        assert batch["shown"].tolist() == shown
        assert torch.equal(batch["image"], pool.batch(step, clean=2, synthetic=2)["image"][shown])


@pytest.mark.parametrize(("clean", "synthetic"), [(4, 0), (0, 3)])
def test_a_batch_may_be_all_clean_or_all_synthetic(data, clean, synthetic):
    batch = take(attached(data), 0, clean, synthetic)
    assert len(batch["image"]) == len(batch["mask"]) == len(batch["features"]["pixel"]) == clean + synthetic
    assert batch["mask"].flatten(1).any(1).tolist() == [False] * clean + [True] * synthetic


def test_clean_slots_are_their_own_target_and_have_no_mask(data):
    pool = attached(data)
    for step in range(6):
        batch = take(pool, step)
        for group in ("pixel", "mean"):
            assert torch.equal(batch["features"][group][:3], batch["target"][group][:3])
        assert (batch["mask"][:3] == 0).all()


@pytest.mark.parametrize("clean_limit", [100, 7], ids=["all views fit", "views are drawn"])
def test_groups_beside_the_backbones_know_the_image_of_each_view_and_anomaly(data, clean_limit):
    pool = make(views=1, clean_limit=clean_limit)
    seen: list[int] = []

    def number(features: dict[str, Tensor], images: Tensor) -> dict[str, Tensor]:
        assert len(features["mean"]) == len(images)
        seen.extend(images.tolist())
        return {"number": images.view(-1, 1, 1, 1)}

    pool.attach(data, Pixels(), Grid((SIDE, SIDE)), seed=0, beside=number)
    for step in range(6):
        batch = take(pool, step)
        for part in ("target", "features"):
            assert batch[part]["number"].shape == (5, 1, 1, 1)
        for i, image in enumerate(batch["image"]):
            source = data.images[int(batch["features"]["number"][i])]
            assert (image - source).abs().max() < 0.003  # 8 bits
    assert set(seen) <= set(range(len(data)))


def test_image_and_target_belong_together(data):
    pool = attached(data)
    for step in range(6):
        batch = take(pool, step)
        # One is kept in 8 bits, the other in half precision.
        torch.testing.assert_close(batch["image"], batch["target"]["pixel"], atol=0.5 / 255 + 5e-4, rtol=0)
        torch.testing.assert_close(F.avg_pool2d(batch["image"], 8), batch["target"]["mean"], atol=3e-3, rtol=0)


def test_masks_belong_to_their_anomalies(data):
    pool = attached(data, synthetic=12)
    for step in range(8):
        batch = take(pool, step, clean=2, synthetic=3)
        visible = (batch["features"]["pixel"] - batch["image"]).abs().mean(1)[2:].numpy() > 0.025
        expected = np.stack([v | ndimage.binary_closing(v, np.ones((3, 3))) for v in visible])
        mask = batch["mask"][2:, 0].numpy() > 0
        assert (mask == expected).mean() > 0.99  # half precision turns a pixel here and there
        assert (np.roll(mask, 1, 0) == expected).mean() < 0.99


def test_mean_features_of_an_anomaly_are_those_of_its_pixels(data):
    batch = take(attached(data), 0, clean=0, synthetic=6)
    torch.testing.assert_close(
        F.avg_pool2d(batch["features"]["pixel"], 8), batch["features"]["mean"], atol=1e-3, rtol=0
    )


def test_anomalies_take_parts_from_their_own_category_only(data):
    same: list[bool] = []

    def spy(image: Any, others: list[Any], rng: np.random.Generator) -> tuple[Any, Any]:
        own = [i for i, known in enumerate(data.images) if np.abs(known.permute(1, 2, 0).numpy() - image).max() < 0.01]
        kin = [
            i
            for other in others
            for i, known in enumerate(data.images)
            if np.abs(known.permute(1, 2, 0).numpy() - other).max() < 0.01
        ]
        assert len(own) == 1
        assert len(kin) == len(others) > 0
        same.extend(k % 2 == own[0] % 2 for k in kin)
        return image, np.ones(image.shape[:2], bool)

    pool = attached(data, synthesis=spy, views=1, synthetic=20)
    pool.advance(0)
    assert all(same)
    assert len(same) >= 20


@pytest.mark.parametrize(("device", "sizes"), [("cpu", [4] * 9 + [1]), ("cuda", [16, 16, 5])])
def test_more_images_than_pass_at_once_keep_their_order(device, sizes):
    images = torch.rand(37, 3, 2, 2)
    chunks = list(chunks_ahead(lambda i: images[i], 37, torch.device(device)))
    assert [len(chunk) for chunk in chunks] == sizes
    assert torch.equal(torch.cat(chunks), images)


def test_an_image_that_cannot_be_read_ahead_is_an_error_of_the_caller():
    def read(index: int) -> Tensor:
        if index == 20:
            raise OSError("cannot read image 20")
        return torch.zeros(3, 2, 2)

    with pytest.raises(OSError, match="cannot read image 20"):
        list(chunks_ahead(read, 37, torch.device("cpu")))


@pytest.mark.parametrize("views", [1, 4])
def test_targets_are_the_backbones_features_of_the_views(data, views):
    torch.manual_seed(0)
    backbone = Backbone("tf_efficientnet_lite0", {"low": [4, 8], "high": [16]}, weights=None)
    backbone.fit(image[None] for image in data.images)
    made = list(data.images)

    def turn(image: Tensor, rng: np.random.Generator, window: Any) -> Tensor:
        turned = torch.rot90(image, int(rng.integers(1, 4)), (1, 2)).mul(rng.uniform(0.9, 1))
        made.append(turned)
        return turned

    pool = attached(data, backbone=backbone, views=views, augmentation=turn)
    batch = take(pool, 0, clean=5 * views, synthetic=4)
    assert len(made) == 5 * views
    for i, image in enumerate(batch["image"]):
        (view,) = [known for known in made if (known - image).abs().max() < 0.003]  # 8 bits
        for group, f in backbone(view[None]).items():
            # Half precision: 11 bits. The features of one image differ a little with the size of its chunk.
            torch.testing.assert_close(batch["target"][group][i], f[0], rtol=2**-10, atol=2e-4)


def test_the_first_view_is_the_plain_image_and_the_others_differ(data):
    pool = attached(data, views=3)
    batch = take(pool, 0, clean=15, synthetic=1)
    plain = [sum(float((known - view).abs().max()) < 0.003 for known in data.images) for view in batch["image"][:15]]
    assert sorted(plain) == [0] * 10 + [1] * 5
    assert len(batch["image"][:15].flatten(1).unique(dim=0)) == 15


def test_plain_features_are_those_of_the_images_each_once(data):
    pool = attached(data, views=3)
    pool.advance(0)
    found = torch.cat([chunk["pixel"] for chunk in pool.plain_features()])
    torch.testing.assert_close(found, torch.stack(data.images), atol=5e-4, rtol=0)


def test_a_pool_that_was_interrupted_while_it_was_filled_has_no_features_to_show(data):
    """So that Ctrl-C then, in a run that is continued, ends in its checkpoint and not in an error."""

    def interrupt(image, rng, window):
        raise KeyboardInterrupt

    pool = attached(data, views=3)
    pool.augmentation = interrupt
    with pytest.raises(KeyboardInterrupt):
        pool.advance(0)
    assert list(pool.plain_features()) == []


# Sampling


def identity(images: Tensor) -> list[tuple[float, ...]]:
    """What tells views and anomalies apart: a few of their pixels."""
    return [tuple(image[:, ::16, ::16].flatten().tolist()) for image in images]


def test_clean_views_are_drawn_without_replacement_within_a_pass(data):
    pool = attached(data, refresh_every=100)  # 10 views, 4 a step: a pass ends within a batch
    drawn = [view for step in range(10) for view in identity(take(pool, step, clean=4, synthetic=1)["image"][:4])]
    passes = [drawn[start : start + 10] for start in range(0, 40, 10)]
    for one in passes:
        assert len(set(one)) == 10
        assert set(one) == set(passes[0])
    assert passes[0] != passes[1], "each pass has an order of its own"


def test_anomalies_are_drawn_without_replacement_within_a_pass(data):
    pool = attached(data, refresh_every=100)
    drawn = [
        view for step in range(9) for view in identity(take(pool, step, clean=1, synthetic=4)["features"]["pixel"][1:])
    ]
    for start in range(0, 36, 6):
        assert len(set(drawn[start : start + 6])) == 6


def test_a_larger_batch_than_the_pool_repeats_it(data):
    batch = take(attached(data), 0, clean=25, synthetic=1)
    counts = [identity(batch["image"][:25]).count(view) for view in set(identity(batch["image"][:25]))]
    assert sorted(counts) == [2] * 5 + [3] * 5


def test_anomalies_of_a_first_period_come_from_different_views(data):
    pool = attached(data, synthetic=10)
    batch = take(pool, 0, clean=0, synthetic=10)
    assert len(set(identity(batch["image"]))) == 10


def test_no_more_views_are_held_than_allowed_and_all_have_their_turn(data):
    backbone = Pixels()
    pool = attached(data, backbone=backbone, clean_limit=4, synthetic=1)
    held = set()
    for period in range(12):
        batch = take(pool, 4 * period, clean=4, synthetic=0)
        assert len(set(identity(batch["image"]))) == 4
        held |= set(identity(batch["image"]))
    assert backbone.seen == 12 * (4 + 1)
    assert len(held) == 10


# Tiles

TILES = Grid((SIDE, SIDE), 32, 0.25)


def whole_of(view: Tensor, data: Textures) -> list[int]:
    """The images that a view is a window of."""
    patches = [i.unfold(1, 32, 1).unfold(2, 32, 1) for i in data.images]
    return [n for n, p in enumerate(patches) if ((p - view[:, None, None]).abs() < 0.003).all(-1).all(-1).all(0).any()]


def test_views_of_a_tiled_image_are_its_tiles_and_random_windows(data):
    still = Augmentation(flip=[], rotation=0, shift=0, zoom=0, brightness=0)
    pool = attached(data, grid=TILES, augmentation=still)
    assert len(TILES) == 9
    batch = take(pool, 0, clean=2 * 5 * 9, synthetic=6)
    assert batch["image"].shape == (96, 3, 32, 32)
    assert sorted(n for view in batch["image"][:90] for n in whole_of(view, data)) == sorted([*range(5)] * 18)
    plain = torch.cat([chunk["pixel"] for chunk in pool.plain_features()])
    expected = torch.stack([image[:, rows, columns] for rows, columns in TILES.windows for image in data.images])
    torch.testing.assert_close(plain, expected, atol=5e-4, rtol=0)
    assert len(batch["image"][:90].flatten(1).unique(dim=0)) > 80  # the others lie anywhere
    torch.testing.assert_close(batch["image"], batch["target"]["pixel"], atol=0.5 / 255 + 5e-4, rtol=0)


def test_batches_of_tiles_are_a_function_of_the_step(data):
    setting = {"grid": TILES, "clean_limit": 7}
    walked = attached(data, **setting)
    batches = [take(walked, step) for step in range(9)]
    assert equal(take(attached(data, **setting), 8), batches[8])


@pytest.mark.parametrize("name", ["views", "clean_limit", "synthetic", "refresh_every"])
def test_pool_refuses_in_words(name):
    with pytest.raises(ValueError, match=f"^{name}: expected at least 1, got 0"):
        make(**{name: 0})
