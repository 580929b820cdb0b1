"""A predictor whose model's map is the brightness of the image, so that every number is known by hand."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import squad_lit
from squad_lit.deploy.output_folder import overlay
from squad_lit.deploy.predictor import Predictor
from squad_lit.deploy.runtime import Output

SIDE = 32


class Brightness:
    """In the place of a model: its map is the mean of the colours; pixels have the model's size, or are tiles."""

    def __init__(self, size: tuple[int, int], tile: dict[str, Any] | None = None, top: float = 0.1) -> None:
        normal = {"normal_scores": [0.4, 0.5], "normal_maxima": [0.6, 0.7], "defective_scores": []}
        normal |= {"roi": "", "chosen_threshold": None}
        self.metadata = {"image_size": size, "tile": tile, "top": top, "false_alarm_rate": None, **normal}
        self.metadata["intensity_range"] = None
        self.device, self.batch = "cpu", 8
        self.batches: list[int] = []

    def run(self, image: np.ndarray) -> Output:
        self.batches.append(len(image))
        scale = 255 if image.dtype == np.uint8 else 1
        found = image.mean(-1, dtype=np.float32) / np.float32(scale)
        count = round(self.metadata["top"] * found[0].size)
        return Output(found, np.sort(found.reshape(len(found), -1))[:, -count:].mean(1), found)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (100, 130, 3), np.uint8)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.7])
def test_of_a_local_map_tiles_leave_no_trace(image: np.ndarray, overlap: float) -> None:
    whole, tiled = Brightness((100, 130)), Brightness((100, 130), {"side": SIDE, "overlap": overlap})
    expected, found = Predictor(whole).predict(image), Predictor(tiled).predict(image)
    np.testing.assert_allclose(found.anomaly_map, expected.anomaly_map, atol=1e-6)
    assert found.anomaly_score == pytest.approx(expected.anomaly_score, abs=1e-6)
    assert 1 < max(tiled.batches) <= 8
    assert (found.label, found.regions) == (expected.label, expected.regions)


def test_one_tile_that_covers_all_is_no_tiling() -> None:
    image = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    expected = Predictor(Brightness((SIDE, SIDE))).predict(image)
    found = Predictor(Brightness((SIDE, SIDE), {"side": SIDE, "overlap": 0.25})).predict(image)
    np.testing.assert_allclose(found.anomaly_map, expected.anomaly_map, atol=1e-7)
    assert found.anomaly_score == pytest.approx(expected.anomaly_score, abs=1e-7)


def test_the_map_of_a_tiled_image_has_the_images_own_size() -> None:
    ramp = np.linspace(0, 1, 400, dtype=np.float32)[None, :, None].repeat(200, 0).repeat(3, 2)
    found = Predictor(Brightness((50, 100), {"side": SIDE, "overlap": 0.25})).predict(ramp)
    assert found.anomaly_map.shape == (200, 400)
    np.testing.assert_allclose(found.anomaly_map[:, 8:-8], ramp[:, 8:-8, 0], atol=1e-5)  # a ramp stays a ramp


def test_a_region_never_raises_a_score(image: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    whole = Predictor(Brightness((100, 130))).predict(image).anomaly_score
    for _ in range(10):
        (top, left), size = rng.integers(0, 60, 2), rng.integers(35, 70, 2)
        roi = np.zeros((100, 130))
        roi[top : top + size[0], left : left + size[1]] = 1
        assert Predictor(Brightness((100, 130)), roi=roi).predict(image).anomaly_score <= whole


@pytest.mark.parametrize("tile", [None, {"side": SIDE, "overlap": 0.25}])
def test_a_region_of_everything_changes_nothing(image: np.ndarray, tile: Any) -> None:
    runtime = Brightness((100, 130), tile)
    expected, found = Predictor(runtime).predict(image), Predictor(runtime, roi=np.ones((7, 9))).predict(image)
    assert np.array_equal(found.anomaly_map, expected.anomaly_map)
    assert found.anomaly_score == pytest.approx(expected.anomaly_score, abs=1e-6)
    assert found.regions == expected.regions


def test_only_what_lies_in_the_region_counts() -> None:
    image = np.zeros((10, 20, 3), np.float32)
    image[2:4, 2:4] = 1.0  # outside of the region
    image[5, 15:17] = np.array([0.9, 0.8])[:, None]
    roi = np.zeros((10, 20), np.uint8)
    roi[:, 10:] = 7
    found = Predictor(Brightness((10, 20), top=0.01), roi=roi).predict(image)
    assert np.isnan(found.anomaly_map[:, :10]).all()
    assert np.array_equal(found.anomaly_map[:, 10:], image[:, 10:].mean(-1))
    assert found.anomaly_score == pytest.approx(0.85)  # the highest 2 pixels, as many as of the whole image
    assert found.label == 1
    assert found.regions == [(5, 15, 1, 2, 2)]
    good = Predictor(Brightness((10, 20), top=0.01), roi=roi[:, ::-1] * (image[..., 0] == 0)).predict(image)
    assert (good.anomaly_score, good.label, good.regions) == (0.0, 0, [])


def test_a_region_is_scaled_by_nearest_neighbour(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 255], [0, 0]], np.uint8)).save(tmp_path / "roi.png")
    found = Predictor(Brightness((10, 20)), roi=tmp_path / "roi.png").predict(np.zeros((10, 20, 3), np.float32))
    inside = np.zeros((10, 20), bool)
    inside[:5, 10:] = True
    assert np.array_equal(~np.isnan(found.anomaly_map), inside)


def test_a_region_thinner_than_a_pixel_of_the_model_has_a_score() -> None:
    class Small(Brightness):
        def run(self, image: np.ndarray) -> Output:
            found = super().run(image)
            return found._replace(model_map=found.anomaly_map[:, ::10, ::10])

    roi = np.zeros((100, 100))
    roi[31] = 1
    image = np.zeros((100, 100, 3), np.float32)
    image[30:40] = 0.5
    assert Predictor(Small((10, 10)), roi=roi).predict(image).anomaly_score == pytest.approx(0.5)
    roi = np.zeros((1000, 1000))
    roi[311, 777] = 1
    found = Predictor(Brightness((100, 100)), roi=roi).predict(image)
    assert np.argwhere(~np.isnan(found.anomaly_map)).tolist() == [[31, 77]]
    assert found.anomaly_score == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("roi", "words"),
    [
        (np.zeros((4, 4)), "roi: the region of interest is empty"),
        (np.ones((4, 4, 3)), r"got shape \(4, 4, 3\)"),
        (np.full((4, 4), np.nan), "roi has values that are NaN or infinite, 16"),
    ],
)
def test_a_region_that_cannot_be_is_refused_in_words(roi: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Predictor(Brightness((4, 4)), roi=roi)


def test_outside_of_the_region_the_overlay_is_dimmed() -> None:
    image = np.full((600, 4, 3), 200, np.uint8)
    roi = np.zeros((600, 4))
    roi[:300] = 1
    found = Predictor(Brightness((600, 4)), roi=roi).predict(np.zeros((600, 4, 3), np.float32))
    drawn = overlay(image, found, 1.0)
    assert (drawn[:300] == 200).all()
    assert (drawn[300:] == 70).all()


def test_the_memory_is_bounded() -> None:
    """Of 20 megapixels it is below 1 GB: 50 bytes a pixel, beside the image itself."""
    image = np.zeros((1500, 2000, 3), np.uint8)
    predictor = Predictor(Brightness((1500, 2000), {"side": 128, "overlap": 0.25}))
    tracemalloc.start()
    overlay(image, predictor.predict(image), 1.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50 * 1500 * 2000


@pytest.mark.parametrize("roi", [None, np.eye(20, 30)])
@pytest.mark.parametrize("tile", [None, {"side": SIDE, "overlap": 0.25}])
def test_several_images_give_what_each_gives(tmp_path: Path, tile: Any, roi: np.ndarray | None) -> None:
    rng = np.random.default_rng(0)
    images: list[Any] = [rng.integers(0, 256, (40, 50, 3), np.uint8) for _ in range(10)]
    images += [rng.random((40, 50, 3), np.float32), rng.integers(0, 256, (50, 40), np.uint8)]
    Image.fromarray(images[0]).save(tmp_path / "a.png")
    images += [tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(images[1])]
    runtime = Brightness((40, 50), tile)
    predictor = Predictor(runtime, roi=roi)
    expected = [predictor.predict(image) for image in images]
    runtime.batches.clear()
    for several in (images, tuple(images), iter(images)):
        found = predictor.predict(several)
        for one, other in zip(found, expected, strict=True):
            assert one[1:3] == other[1:3]
            assert one.regions == other.regions
            assert np.array_equal(one.anomaly_map, other.anomaly_map, equal_nan=True)
            assert np.array_equal(one.mask, other.mask)
    if tile is None:
        assert runtime.batches == 3 * [8, 2, 1, 1, 3]
    assert predictor.predict([]) == []
    stacked = predictor.predict(np.stack(images[:3]))
    assert [result[1:3] for result in stacked] == [result[1:3] for result in expected[:3]]
    first = torch.tensor(np.stack(images[:3])).permute(0, 3, 1, 2)
    assert [result[1:3] for result in predictor.predict(first)] == [result[1:3] for result in stacked]


def test_colours_may_come_in_the_order_of_opencv() -> None:
    class Red(Brightness):
        def run(self, image: np.ndarray) -> Output:
            return super().run(image[..., :1])

    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 204
    predictor = Predictor(Red((4, 4)))
    assert predictor.predict(red).anomaly_score == pytest.approx(0.8)
    assert predictor.predict(red[..., ::-1], channels="BGR").anomaly_score == pytest.approx(0.8)
    assert predictor.predict([red[..., ::-1]], channels="BGR")[0].anomaly_score == pytest.approx(0.8)
    with pytest.raises(ValueError, match=r"^channels: expected RGB or BGR, got 'bgr'"):
        predictor.predict(red, channels="bgr")


def test_large_images_do_not_go_through_the_model_together() -> None:
    runtime = Brightness((1500, 1000))
    Predictor(runtime).predict([np.zeros((1500, 1000), np.uint8)] * 2)
    assert runtime.batches == [1, 1]


@pytest.mark.parametrize("image", [b"png", None, {"image": 1}, {1, 2}, 3.5])
def test_a_kind_that_is_no_image_is_named(image: Any) -> None:
    predictor = Predictor(Brightness((4, 4)))
    with pytest.raises(TypeError, match=f"^image: expected a file name, .* got {type(image).__name__}"):
        predictor.predict(image)
    with pytest.raises(TypeError, match=rf"^images\[1\]: expected a file name, .* got {type(image).__name__}"):
        predictor.predict([np.zeros((4, 4)), image])


def test_a_score_that_is_no_number_is_an_error_and_no_label() -> None:
    class Damaged(Brightness):
        def run(self, image: np.ndarray) -> Output:
            return super().run(image)._replace(anomaly_score=np.full(len(image), np.nan, np.float32))

    with pytest.raises(ValueError, match=r"^the score of an image is nan: the file of the model is damaged"):
        Predictor(Damaged((4, 4))).predict(np.zeros((4, 4), np.uint8))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"path": None}, r"^path: expected the file of a model, got NoneType"),
        ({"path": "last.ckpt", "trust": "lab"}, r"^trust: expected a list of packages, .* got 'lab'"),
    ],
)
def test_kinds_of_arguments_are_named(given: dict[str, Any], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        squad_lit.load(**given)


def test_label_and_regions_agree_and_small_regions_can_be_left_out() -> None:
    part = np.zeros((20, 20, 3), np.float32)
    part[3:10, 3:10] = 0.55  # a score above 0.5, and no pixel above 0.7
    speck = np.zeros((20, 20, 3), np.float32)
    speck[0, 0] = 1.0  # a pixel above 0.7, and a score of 0.025
    runtime = Brightness((20, 20))
    found, passed = Predictor(runtime).predict([part, speck])
    assert (found.label, found.regions, int(found.mask.sum())) == (1, [(3, 3, 7, 7, 49)], 49)
    assert (passed.label, passed.regions, passed.mask.any()) == (0, [], False)
    assert Predictor(runtime, min_area=49).predict(part).label == 1
    small = Predictor(runtime, min_area=50).predict(part)
    assert (small.label, small.regions, small.mask.any()) == (0, [], False)
    assert small.anomaly_score == found.anomaly_score
    with pytest.raises(ValueError, match=r"^min_area: expected a whole number of pixels, at least 0, got -1"):
        Predictor(runtime, min_area=-1)


def test_a_stream_takes_no_image_before_its_turn() -> None:
    taken: list[int] = []

    def images() -> Iterator[np.ndarray]:
        for number in range(20):
            taken.append(number)
            yield np.full((8, 8), number, np.uint8)

    runtime = Brightness((8, 8))
    predictor = Predictor(runtime)
    assert taken == []
    results = predictor.stream(images())
    assert next(results).anomaly_score == 0
    assert len(taken) <= runtime.batch + 1
    assert [round(255 * result.anomaly_score) for result in results] == list(range(1, 20))
    assert runtime.batches == [8, 8, 4]
