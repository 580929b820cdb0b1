"""The truths: scikit-learn and NumPy on maps that are known."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor, nn

from squad_lit.network.anomaly import Anomaly
from squad_lit.training.calibration import Calibration, Measure, calibrate
from squad_lit.training.detector import Detector
from squad_lit.training.forward import ForwardOutput

SIDE = 16


class Pixels(nn.Module):
    groups, stride = {"a": [1]}, {"a": 1}


class Brightness(Detector):
    """Its maps are the image's brightness, and its features the image."""

    def __init__(self, **tiles: Any) -> None:
        super().__init__(
            backbone=lambda groups: Pixels(),
            groups={"a": [1]},
            anomaly=lambda names: Anomaly(names, sigma=0.0, top=0.1, weight={"residual": 1.0}),
            maps=["residual_a", "residual_b"],
            synthesis=paint,
            steps=1,
            seed=0,
            **tiles,
        )
        self.passes = 0

    def forward_tile(self, image: Tensor) -> ForwardOutput:
        self.passes += len(image)
        return ForwardOutput({"residual_a": image.mean(1), "residual_b": 2 * image[:, 0] - 1}, {"a": image})


class Listening(Brightness):
    """Collects what a model that measures more is given."""

    def measure(self) -> Measure:
        self.heard = Heard()
        return self.heard


class Heard(Measure):
    def __init__(self) -> None:
        self.normal: list[ForwardOutput] = []
        self.pairs: list[tuple[Tensor, Tensor, Tensor]] = []

    def observe(self, output: ForwardOutput) -> None:
        self.normal.append(output)

    def compare(self, corrupted: ForwardOutput, clean: Mapping[str, Tensor], mask: Tensor) -> None:
        self.pairs.append((corrupted.features["a"], clean["a"], mask))

    def compute(self) -> dict[str, Any]:
        return {"heard": len(self.pairs)}


def paint(image: np.ndarray, others: Any, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Make a random half of the pixels brighter."""
    mask = rng.random(image.shape[:2]) < 0.5
    return (image + 0.3 * mask[..., None]).astype(np.float32), mask


def run(
    model: Brightness, images: Tensor, synthesis: Any = paint, size: int = 7, category: str | None = None
) -> Calibration:
    batches = [
        {"image": images[i], "index": i, "category": list(category or "x" * len(images))[i[0] : i[-1] + 1]}
        for i in torch.arange(len(images)).split(size)
    ]
    model.synthesis = synthesis
    return calibrate(model, iter(batches), count=len(images))


def raw_maps(images: Tensor) -> list[np.ndarray]:
    return [images.mean(1).double().numpy(), (2 * images[:, 0] - 1).double().numpy()]


def score(images: Tensor, found: Calibration) -> tuple[np.ndarray, np.ndarray]:
    """Map: the mean of both z-scores. Score: the mean of a tenth of its pixels."""
    z = [(m - mean) / std for m, mean, std in zip(raw_maps(images), found.mean.numpy(), found.std.numpy(), strict=True)]
    fused = np.mean(z, 0)
    highest = np.sort(fused.reshape(len(fused), -1), 1)[:, -round(0.1 * SIDE**2) :]
    return fused, highest.mean(1)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(20, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def test_the_scale_is_that_of_all_pixels_of_the_normal_images(images):
    found = run(Brightness(), images)
    np.testing.assert_allclose(found.mean, [m.mean() for m in raw_maps(images)], rtol=1e-6)
    np.testing.assert_allclose(found.std, [m.std() for m in raw_maps(images)], rtol=1e-6)


def test_label_free_measures_are_those_of_scikit_learn(images):
    found = run(Brightness(), images)
    made = [  # two on each of 20 images make at least 32
        paint(image.permute(1, 2, 0).numpy(), [], np.random.default_rng([0, 8, number, copy]))
        for copy in range(2)
        for number, image in enumerate(images)
    ]
    corrupted = torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image, _ in made])
    (plain_map, plain_score), (bad_map, bad_score) = score(images, found), score(corrupted, found)
    mask = np.stack([mask for _, mask in made])
    scores, label = np.r_[plain_score, bad_score], np.r_[np.zeros(20), np.ones(40)]
    assert found.measured["synthetic_ap"] == pytest.approx(
        average_precision_score(mask.ravel(), bad_map.ravel()), abs=1e-6
    )
    assert found.measured["synthetic_auroc"] == pytest.approx(roc_auc_score(label, scores))
    assert found.measured["normal_score"] == pytest.approx(float(plain_score.mean()), abs=1e-5)
    np.testing.assert_allclose(found.scores, plain_score, rtol=1e-5)
    np.testing.assert_allclose(found.maxima, plain_map.reshape(20, -1).max(1), rtol=1e-5)


def test_the_measures_do_not_depend_on_the_batches(images):
    one, other = run(Brightness(), images, size=20), run(Brightness(), images, size=3)
    assert one.measured == pytest.approx(other.measured)
    assert one.scores == pytest.approx(other.scores)


def test_each_image_passes_the_model_once_and_the_model_stays_as_it_is(images):
    model = Brightness().train()
    run(model, images)
    assert model.passes == 20 + 2 * 20
    assert model.training
    assert not model.anomaly.standardised
    assert model.state.measured == {}


def test_an_image_that_cannot_be_read_leaves_the_model_in_its_mode(images):
    def break_off(*_: Any) -> Any:
        raise OSError("cannot read image 3")

    model = Brightness().train()
    with pytest.raises(OSError, match="image 3"):
        run(model, images, break_off)
    assert model.training


def test_of_many_images_a_spread_of_64_is_corrupted():
    images = torch.rand(130, 3, 4, 4)
    corrupted: list[float] = []

    def note(image: np.ndarray, others: Any, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        corrupted.append(float(image[0, 0, 0]))
        return paint(image, others, rng)

    run(Brightness(), images, note)
    assert corrupted == images[::3, 0, 0, 0].tolist()


def test_parts_of_another_category_are_not_pasted(images):
    shown: list[int] = []

    def note(image: np.ndarray, others: Any, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        shown.append(len(others))
        return paint(image, others, rng)

    run(Brightness(), images[:5], note, category="aabaa")
    assert shown == [4, 4, 1, 4, 4] * 7  # at least 32 in all


def test_a_model_that_measures_more_is_given_all_images_and_all_pairs(images):
    model = Listening()
    found = run(model, images)
    assert torch.equal(torch.cat([output.features["a"] for output in model.heard.normal]), images)
    assert sum(len(mask) for _, _, mask in model.heard.pairs) == 2 * 20
    assert found.measured["heard"] == 6  # three batches, twice


def test_a_local_model_measures_the_same_in_tiles(images):
    tiled = Listening(tile=8, tile_overlap=0.25)
    whole, found = run(Brightness(), images), run(tiled, images)
    assert {key: found.measured[key] for key in whole.measured} == pytest.approx(whole.measured, abs=1e-5)
    np.testing.assert_allclose(found.maxima, whole.maxima, rtol=1e-4)
    assert sum(len(mask) for _, _, mask in tiled.heard.pairs) == 2 * 20 * 9
    for corrupted, clean, mask in tiled.heard.pairs:
        assert clean.shape[1:] == (3, 8, 8)
        assert torch.equal(((corrupted - clean).abs() > 0).any(1, keepdim=True), mask > 0)  # each with its own
