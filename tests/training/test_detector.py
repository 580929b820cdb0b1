"""The truths: scikit-learn and NumPy on maps that are known."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor, nn

from squad_lit.network.anomaly import Anomaly
from squad_lit.training.detector import Detector
from squad_lit.training.forward import ForwardOutput

SIDE = 16


class Brightness(Detector):
    """Its map is the image's brightness."""

    def forward_tile(self, image: Tensor) -> ForwardOutput:
        return ForwardOutput({"residual_a": image.mean(1), "residual_b": 2 * image[:, 0] - 1}, {"a": image})


def paint(image: np.ndarray, others: Any, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Make a random half of the pixels brighter."""
    mask = rng.random(image.shape[:2]) < 0.5
    return (image + 0.3 * mask[..., None]).astype(np.float32), mask


def make(images: Tensor, synthesis: Any = paint, kind: type[Brightness] = Brightness, **tiles: Any) -> Brightness:
    class Backbone(nn.Module):
        groups, stride = {"a": [1]}, {"a": 1}

    model = kind(
        backbone=lambda groups: Backbone(),
        groups={"a": [1]},
        anomaly=lambda names: Anomaly(names, sigma=0.0, top=0.1, weight={"residual": 1.0}),
        maps=["residual_a", "residual_b"],
        synthesis=synthesis,
        steps=1,
        seed=0,
        **tiles,
    )
    return model


def validate(model: Brightness, images: Tensor, size: int = 7, category: str | None = None) -> None:
    batches = [
        {"image": images[i], "index": i, "category": list(category or "x" * len(images))[i[0] : i[-1] + 1]}
        for i in torch.arange(len(images)).split(size)
    ]
    data = SimpleNamespace(val_set=images, val_dataloader=lambda: batches)
    model._trainer = SimpleNamespace(datamodule=data, world_size=1)
    model.on_validation_epoch_start()
    for batch in batches:
        model.validation_step(batch, 0)
    model.finish_validation()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(20, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def test_maps_are_standardised_on_all_validation_pixels(images):
    model = make(images)
    validate(model, images)
    raw = [images.mean(1).double().numpy(), (2 * images[:, 0] - 1).double().numpy()]
    np.testing.assert_allclose(model.anomaly.mean, [m.mean() for m in raw], rtol=1e-5)
    np.testing.assert_allclose(model.anomaly.std, [m.std() for m in raw], rtol=1e-5)


def test_label_free_measures_are_those_of_scikit_learn(images):
    model = make(images)
    validate(model, images)
    made = [  # two on each of 20 images make at least 32
        paint(image.permute(1, 2, 0).numpy(), [], np.random.default_rng([0, 8, number, copy]))
        for copy in range(2)
        for number, image in enumerate(images)
    ]
    corrupted = torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image, _ in made])
    (plain_map, plain_score), (bad_map, bad_score) = model.predict(images), model.predict(corrupted)
    mask = np.stack([mask for _, mask in made])
    score, label = np.r_[plain_score, bad_score], np.r_[np.zeros(20), np.ones(40)]
    assert model.measured["synthetic_ap"] == pytest.approx(
        average_precision_score(mask.ravel(), bad_map.ravel()), abs=1e-6
    )
    assert model.measured["synthetic_auroc"] == pytest.approx(roc_auc_score(label, score))
    assert model.measured["normal_score"] == pytest.approx(float(plain_score.mean()), abs=1e-5)
    np.testing.assert_allclose(model.normal["score"], plain_score, rtol=1e-5)
    np.testing.assert_allclose(model.normal["maximum"], plain_map.flatten(1).max(1).values, rtol=1e-5)


def test_the_measures_do_not_depend_on_the_batches(images):
    one, other = make(images), make(images)
    validate(one, images, size=20)
    validate(other, images, size=3)
    assert one.measured == pytest.approx(other.measured)


def test_of_many_validation_images_a_spread_of_64_is_corrupted():
    images = torch.rand(130, 3, 4, 4)
    seen: list[float] = []

    def note(image: np.ndarray, others: Any, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        seen.append(float(image[0, 0, 0]))
        return paint(image, others, rng)

    validate(make(images, note), images)
    assert seen == images[::3, 0, 0, 0].tolist()


def test_parts_of_another_category_are_not_pasted(images):
    shown: list[int] = []

    def note(image: np.ndarray, others: Any, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        shown.append(len(others))
        return paint(image, others, rng)

    validate(make(images[:5], note), images[:5], category="aabaa")
    assert shown == [4, 4, 1, 4, 4] * 7  # at least 32 in all


class Listening(Brightness):
    """Notes what a model that measures more is given."""

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        self.heard: list[tuple[Tensor, Tensor, Tensor]] = []

    def compare(self, corrupted: ForwardOutput, clean: dict[str, Tensor], mask: Tensor) -> None:
        self.heard.append((corrupted.features["a"], clean["a"], mask))


def test_a_local_model_measures_the_same_in_tiles(images):
    whole, tiled = make(images), make(images, tile=8, tile_overlap=0.25, kind=Listening)
    validate(whole, images)
    validate(tiled, images)
    assert tiled.measured == pytest.approx(whole.measured, abs=1e-5)
    np.testing.assert_allclose(tiled.normal["maximum"], whole.normal["maximum"], rtol=1e-4)
    assert sum(len(mask) for _, _, mask in tiled.heard) == 2 * 20 * 9
    for corrupted, clean, mask in tiled.heard:
        assert clean.shape[1:] == (3, 8, 8)
        assert torch.equal(((corrupted - clean).abs() > 0).any(1, keepdim=True), mask > 0)  # each with its own


def test_maps_of_tiles_are_blended_and_their_features_kept_image_by_image(images):
    model = make(images, tile=8, tile_overlap=0.25)
    output, expected = model(images), model.forward_tile(images)
    torch.testing.assert_close(output.maps, expected.maps, atol=1e-6, rtol=0)
    assert output.features["a"].shape == (20 * 9, 3, 8, 8)
    assert torch.equal(output.features["a"][9], images[1, :, :8, :8])


@pytest.mark.parametrize(
    ("tiles", "words"),
    [
        ({"tile": 0}, r"model\.tile: expected null or a multiple of 1 px"),
        ({"tile": 8.5}, r"model\.tile: expected null or a multiple of 1 px .*got 8\.5"),
        ({"tile": 8, "tile_overlap": 1.0}, r"model\.tile_overlap: expected a share in \[0, 0\.9\], got 1\.0"),
    ],
)
def test_tiles_that_cannot_be_are_refused_in_words(images, tiles, words):
    with pytest.raises(ValueError, match=words):
        make(images, **tiles)


def test_a_tile_larger_than_the_image_is_refused_in_words(images):
    model = make(images, tile=32)
    model.check_data(["x"], [32, 48])
    with pytest.raises(ValueError, match=r"model\.tile: expected at most .*image_size=\[16, 48\], got 32"):
        model.check_data(["x"], [16, 48])
