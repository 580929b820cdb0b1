"""The truths: scenes whose object is known, masks recomputed pixel by pixel, textbook Perlin noise, levels counted."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from squad_lit.synthesis.defect import KINDS, Scene, perlin
from squad_lit.synthesis.image import Synthesis, changed_pixels, estimate_foreground

Array = NDArray[np.float32]
SETTING: dict[str, Any] = {
    "kinds": dict.fromkeys(KINDS, 1.0),
    "gross": 0.4,
    "gross_area": 0.3,
    "fine_area": [15, 0.04],
    "fine_count": 3,
    "opacity": [0.3, 1.0],
}


def make(**changed: Any) -> Synthesis:
    return Synthesis(**(SETTING | changed))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def draw_object(
    light: str = "plain", height: int = 128, width: int = 128, background: float = 0.75
) -> tuple[Array, NDArray[np.bool_]]:
    """A dark textured ellipse on a plain or unevenly lit background, and where it is."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    inside = (x / 0.6) ** 2 + ((y + 0.1) / 0.45) ** 2 <= 1
    ramp = {"plain": 0 * x, "gradient": 0.15 * x + 0.08 * y, "lamp": -0.2 * (x**2 + y**2) / 2}[light]
    image = np.repeat((background + ramp)[..., None], 3, 2) * [1.0, 0.97, 0.93]
    image[inside] = [0.35, 0.25, 0.2] + 0.08 * np.sin(20 * x + 9 * y)[inside, None]
    return np.clip(image + rng(7).normal(0, 0.008, image.shape), 0, 1).astype(np.float32), inside


def closed_by_hand(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Grown by one pixel (8 neighbours), then shrunk by one; what lies outside the image is not in the mask."""

    def neighbours(of: NDArray[np.bool_]) -> NDArray[np.bool_]:
        padded = np.pad(of, 1)
        h, w = of.shape
        return np.stack([padded[dy : dy + h, dx : dx + w] for dy in range(3) for dx in range(3)])

    return neighbours(neighbours(mask).any(0)).all(0)


def visible_by_hand(before: Array, after: Array) -> NDArray[np.bool_]:
    changed = np.zeros(before.shape[:2], bool)
    for y, x in np.ndindex(changed.shape):
        changed[y, x] = sum(abs(float(after[y, x, c]) - float(before[y, x, c])) for c in range(3)) / 3 > 0.025
    return changed | closed_by_hand(changed)


# Samples


@pytest.fixture(scope="module")
def synthesis() -> Synthesis:
    return make()


@pytest.mark.parametrize("seed", range(6))
def test_mask_is_what_changed_visibly(synthesis, draw_texture, seed):
    image = draw_object()[0] if seed % 2 else draw_texture(seed, 96)
    changed, mask = synthesis(image, [], rng(seed))
    assert mask.dtype == bool
    assert mask.any()
    assert np.array_equal(mask, visible_by_hand(image, changed))


def test_changed_pixels_by_hand():
    before = np.full((8, 8, 3), 0.5, np.float32)
    after = before.copy()
    after[2, 2:7] += 0.03  # visible
    after[2, 4] = 0.5  # a pinhole in it
    after[6, 1:4, 0] += 0.05  # visible in one channel, 0.017 on average
    after[6, 6] -= 0.02  # too weak
    expected = np.zeros((8, 8), bool)
    expected[2, 2:7] = True
    assert np.array_equal(changed_pixels(before, after), expected)


def test_changed_pixels_are_those_of_closing_the_whole_image():
    random = rng(0)
    for _ in range(50):
        before = random.random((20, 30, 3), np.float32)
        changed = np.zeros((20, 30), bool)
        y, x = random.integers(0, 20), random.integers(0, 30)
        changed[y : y + 7, x : x + 9] = random.random(changed[y : y + 7, x : x + 9].shape) < 0.5
        after = before + 0.2 * changed[..., None].astype(np.float32)
        assert np.array_equal(
            changed_pixels(before, after), changed | ndimage.binary_closing(changed, np.ones((3, 3), bool))
        )


def test_sample_depends_on_its_seed_alone(synthesis, draw_texture):
    image, others = draw_texture(0), [draw_texture(1), draw_texture(2)]
    first = [synthesis(image, others, rng(seed)) for seed in range(8)]
    second = [make()(image, others, rng(seed)) for seed in reversed(range(8))][::-1]
    for (changed, mask), (changed_again, mask_again) in zip(first, second, strict=True):
        assert np.array_equal(changed, changed_again)
        assert np.array_equal(mask, mask_again)
    for i in range(8):
        for j in range(i):
            assert not np.array_equal(first[i][0], first[j][0])


def test_image_and_others_are_left_alone(synthesis, draw_texture):
    image, other = draw_texture(0), draw_texture(1)
    before = image.copy(), other.copy()
    for seed in range(10):
        synthesis(image, [other], rng(seed))
    assert np.array_equal(image, before[0])
    assert np.array_equal(other, before[1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scene", ["object", "texture"])
def test_each_kind_alone(kind, scene, draw_texture):
    image = draw_object()[0] if scene == "object" else draw_texture(5, 128)
    synthesis = make(kinds={kind: 1.0}, gross=0.0, fine_count=1)
    for seed in range(6):
        changed, mask = synthesis(image, [draw_texture(6, 128)], rng(seed))
        assert changed.dtype == np.float32
        assert changed.shape == image.shape
        assert changed.min() >= 0
        assert changed.max() <= 1
        assert mask.any()
        assert mask.mean() < 0.3, "small"


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_changes_the_image_by_itself(kind, synthesis, draw_texture):
    # Without the second draws and the last resort of Synthesis.
    image, _ = draw_object()
    scene = Scene(image, *estimate_foreground(image), [draw_texture(6, 128)], synthesis.textures, rng(0))
    visible = [changed_pixels(image, KINDS[kind](scene, 150.0, 1.0)).any() for _ in range(10)]
    assert sum(visible) >= 8


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"warp", "scratch"}))
def test_small_defect_has_about_the_area_asked_for(kind, synthesis):
    image, _ = draw_object()
    scene = Scene(image, *estimate_foreground(image), [], synthesis.textures, rng(0))
    area = np.mean([(np.abs(KINDS[kind](scene, 300.0, 1.0) - image).mean(2) > 0.01).sum() for _ in range(30)])
    assert 100 < area < 900


def test_small_defects_lie_on_the_object():
    image, inside = draw_object()
    synthesis = make(kinds={"patch": 1.0, "tone": 1.0}, gross=0.0, fine_count=1, fine_area=[15, 0.002])
    on = [inside[synthesis(image, [], rng(seed))[1]].mean() for seed in range(20)]
    assert np.mean(on) > 0.8


def test_gross_defect_keeps_to_its_share_of_the_image(draw_texture):
    image = draw_texture(0, 96)
    synthesis = make(gross=1.0, gross_area=0.1, opacity=[1.0, 1.0])
    share = [synthesis(image, [], rng(seed))[1].mean() for seed in range(20)]
    assert max(share) < 0.11  # closed pinholes come on top
    assert np.mean(share) > 0.02


@pytest.mark.parametrize("gross_area", [0.0, 0.01])
def test_gross_area_may_be_as_small_as_one_likes(draw_texture, gross_area):
    _, mask = make(gross=1.0, gross_area=gross_area)(draw_texture(0), [], rng(0))
    assert mask.any()
    assert mask.mean() < 0.05


def test_small_defects_may_be_no_larger_than_the_smallest(draw_texture):
    _, mask = make(gross=0.0, fine_area=[15, 0.0], fine_count=1)(draw_texture(0), [], rng(0))
    assert mask.any()


@pytest.mark.parametrize("shape", [(64, 100), (100, 64), (65, 97)])
@pytest.mark.parametrize("gross", [0.0, 1.0])
def test_images_need_not_be_square(synthesis, draw_texture, shape, gross):
    synthesis = make(gross=gross)
    for seed in range(8):
        for image in (draw_texture(seed, *shape), draw_object(height=shape[0], width=shape[1])[0]):
            changed, mask = synthesis(image, [draw_texture(9, *shape)], rng(seed))
            assert changed.shape == image.shape
            assert mask.shape == shape
            assert mask.any()


@pytest.mark.parametrize("value", [0.0, 0.4, 0.6, 1.0])
@pytest.mark.parametrize("spot", [None, 0.0, 1.0])
def test_never_empty_even_where_the_defect_cannot_be_seen(value, spot):
    # A warp of a plain image changes nothing, so that the last resort is needed; it has to differ from what is there.
    image = np.full((96, 96, 3), value, np.float32)
    if spot is not None:
        image[24:72, 24:72] = spot
    for seed in range(3):
        changed, mask = make(kinds={"warp": 1.0}, gross=0.0, fine_area=[15, 0.0])(image, [], rng(seed))
        assert mask.any()
        assert changed.dtype == np.float32
        assert np.array_equal(mask, visible_by_hand(image, changed))


def test_opacity_limits_the_change(draw_texture):
    image = draw_texture(0)
    changed, _ = make(kinds={"patch": 1.0}, gross=0.5, opacity=[0.2, 0.2], fine_count=1)(image, [], rng(3))
    assert 0.025 < np.abs(changed - image).max() <= 0.2 + 1e-6  # colours differ by 1 at most


def test_kinds_are_drawn_by_their_weights(monkeypatch, draw_texture):
    drawn = []
    for name, kind in KINDS.items():
        monkeypatch.setitem(KINDS, name, lambda *args, name=name, kind=kind: drawn.append(name) or kind(*args))
    synthesis = make(kinds={"tone": 3.0, "dent": 1.0, "warp": 0.0}, gross=0.0, fine_count=1)
    for seed in range(200):
        synthesis(draw_texture(0, 32), [], rng(seed))
    assert "warp" not in drawn
    assert drawn.count("tone") / len(drawn) == pytest.approx(0.75, abs=0.12)


# Foreground


def overlap(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize("light", ["plain", "gradient", "lamp"])
@pytest.mark.parametrize("shape", [(256, 256), (224, 320), (301, 257)])
def test_foreground_of_an_object(light, shape):
    image, inside = draw_object(light, *shape)
    found, background = estimate_foreground(image)
    assert overlap(found, inside) > 0.9
    assert background.shape == image.shape
    # The background is known outside the object only; the noise drawn on it has a deviation of 0.008.
    assert np.abs(background - image)[~inside].mean() < 0.015


@pytest.mark.parametrize("shape", [(96, 96), (64, 100), (131, 97)])
def test_foreground_of_a_small_image_ends_a_few_pixels_outside_the_object(shape):
    image, inside = draw_object("gradient", *shape)
    found, _ = estimate_foreground(image)
    assert found[inside].mean() > 0.99
    # Found at half the resolution from 3x3 means, and grown by a cell: 5 px.
    assert ndimage.distance_transform_edt(~inside)[found].max() <= 5 + 1e-9


def test_a_soft_shadow_is_no_foreground():
    image, inside = draw_object(height=256, width=256)
    y, x = np.mgrid[-1:1:256j, -1:1:256j]
    shadow = 0.14 * np.exp(-((((x - 0.1) / 0.55) ** 2 + ((y - 0.15) / 0.5) ** 2) ** 2))
    shaded = np.where(inside[..., None], image, image - shadow[..., None]).astype(np.float32)
    found, _ = estimate_foreground(shaded)
    assert overlap(found, inside) > 0.85


def test_foreground_of_a_bright_object_on_black():
    image, inside = draw_object(height=256, width=256, background=0.9)
    assert overlap(estimate_foreground(1 - image)[0], inside) > 0.9


def test_foreground_of_an_object_that_crosses_the_border():
    image, inside = draw_object(height=256, width=256)
    image[:80, 120:140] = 0.3  # the hook that it hangs on
    inside[:80, 120:140] = True
    assert overlap(estimate_foreground(image)[0], inside) > 0.9


def test_holes_belong_to_the_foreground():
    image, inside = draw_object()
    image[50:60, 55:65] = [0.75, 0.75 * 0.97, 0.75 * 0.93]
    assert estimate_foreground(image)[0][50:60, 55:65].all()
    assert inside[50:60, 55:65].all()


@pytest.mark.parametrize("name", ["brick", "grass", "gravel"])
def test_foreground_of_a_texture_is_everything(name):
    image = skimage.transform.resize(getattr(skimage.data, name)(), (128, 128), anti_aliasing=True)
    found, _ = estimate_foreground(np.repeat(image[..., None], 3, 2).astype(np.float32))
    assert found.all()


def test_foreground_of_noise_and_of_nothing_is_everything(draw_texture):
    assert estimate_foreground(draw_texture(0, 128))[0].all()
    assert estimate_foreground(np.full((64, 64, 3), 0.5, np.float32))[0].all()


# Perlin noise


class Recorder:
    """A generator that remembers what it drew; its lattice offsets are given."""

    def __init__(self, offsets: list[float]) -> None:
        self.offsets, self.rng = list(offsets), np.random.default_rng(0)

    def random(self) -> float:
        return self.offsets.pop(0)

    def uniform(self, low: float, high: float, size: Any) -> NDArray[np.float64]:
        self.angle = self.rng.uniform(low, high, size)
        return self.angle


def textbook_perlin(angle: NDArray[np.float64], y: float, x: float) -> float:
    def fade(t: float) -> float:
        return 6 * t**5 - 15 * t**4 + 10 * t**3

    iy, ix = int(np.floor(y)), int(np.floor(x))
    total = 0.0
    for cy, weight_y in ((iy, 1 - fade(y - iy)), (iy + 1, fade(y - iy))):
        for cx, weight_x in ((ix, 1 - fade(x - ix)), (ix + 1, fade(x - ix))):
            total += weight_y * weight_x * (np.cos(angle[cy, cx]) * (x - cx) + np.sin(angle[cy, cx]) * (y - cy))
    return float(np.sqrt(2) * total)


@pytest.mark.parametrize("offsets", [[0.0, 0.0], [0.3, 0.85]])
def test_perlin_is_that_of_the_textbook(offsets):
    recorder = Recorder(offsets)
    noise = perlin((9, 14), (2.0, 3.5), recorder)
    ys, xs = np.linspace(0, 2.0, 9) + offsets[0], np.linspace(0, 3.5, 14) + offsets[1]
    expected = [[textbook_perlin(recorder.angle, y, x) for x in xs] for y in ys]
    np.testing.assert_allclose(noise, expected, atol=1e-5)
    assert noise.dtype == np.float32


def test_perlin_is_zero_on_its_lattice():
    noise = perlin((9, 13), (2, 3), Recorder([0.0, 0.0]))
    assert np.abs(noise[::4, ::4]).max() < 1e-6
    assert np.abs(noise).max() > 0.2


def test_perlin_range_and_spread():
    noise = np.stack([perlin((64, 48), 2.0 ** rng(seed).uniform(1, 5, 2), rng(seed)) for seed in range(50)])
    assert np.abs(noise).max() <= 1 + 1e-5  # unit gradients reach 1 / sqrt(2), scaled by sqrt(2)
    assert np.abs(noise).max() > 0.7
    assert abs(noise.mean()) < 0.02


@pytest.mark.parametrize("seed", range(3))
def test_perlin_is_continuous(seed):
    # Slope per cell: at most 1 of the ramps, and 1.875 of the fade times the difference of ramps of up to sqrt(2).
    noise = perlin((401, 301), (4, 3), rng(seed))
    limit = np.sqrt(2) * (1 + 1.875 * 2 * np.sqrt(2)) / 100
    assert np.abs(np.diff(noise, axis=0)).max() < limit
    assert np.abs(np.diff(noise, axis=1)).max() < limit


# What is refused, and where textures come from


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"kinds": {"patch": 1.0, "hole": 1.0}}, r"^kinds: unknown \['hole'\]; known: \['dent', "),
        ({"kinds": {}}, "positive sum"),
        ({"kinds": {"patch": 0.0}}, "positive sum"),
        ({"kinds": {"patch": 2.0, "own": -1.0}}, r"^kinds\.own: expected at least 0"),
        ({"gross": 1.5}, "^gross: expected at most 1, got 1.5"),
        ({"gross_area": -0.1}, "^gross_area: expected at least 0"),
        ({"fine_area": [15, 2]}, r"^fine_area: expected \[smallest in px"),
        ({"fine_area": [0, 0.1]}, r"^fine_area: expected \[smallest in px"),
        ({"fine_area": [15]}, "^fine_area: expected at least 2 values"),
        ({"fine_area": [15, 0.1, 0.2]}, "^fine_area: expected at most 2 values"),
        ({"fine_count": 0}, "^fine_count: expected at least 1, got 0"),
        ({"opacity": [0.0, 1.0]}, "^opacity: expected a range"),
        ({"opacity": [0.3]}, "^opacity: expected at least 2 values"),
        ({"opacity": [0.8, 0.3]}, "^opacity: expected a range"),
        ({"opacity": [0.5, 1.2]}, "^opacity: expected a range"),
    ],
)
def test_synthesis_refuses_in_words(wrong, words):
    with pytest.raises(ValueError, match=words):
        make(**wrong)


@pytest.mark.parametrize(
    ("name", "words"), [("missing", "there is no folder"), ("empty", r"no image \(\.png, .* under")]
)
def test_synthesis_needs_an_image_in_the_folder_of_textures(tmp_path, name, words):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=rf"texture_dir: {words} .*{name}"):
        make(texture_dir=str(tmp_path / name))
    with pytest.raises(FileNotFoundError, match="texture_dir: there is no folder ''"):  # not the current one
        make(texture_dir="")


def test_textures_of_a_folder(tmp_path: Path):
    (tmp_path / "deep").mkdir()
    Image.new("RGB", (100, 50), (255, 102, 0)).save(tmp_path / "deep" / "a.png")
    Image.new("L", (30, 60), 51).save(tmp_path / "b.PNG")
    Image.new("RGBA", (64, 64), (0, 255, 51, 128)).save(tmp_path / "c.png")
    Image.new("LA", (80, 80), (153, 128)).save(tmp_path / "d.tif")
    (tmp_path / "notes.txt").write_text("no image")
    found = {
        tuple(np.round(t.mean((0, 1), dtype=float), 3).tolist()): t.shape
        for t in make(texture_dir=str(tmp_path)).textures
    }
    colour = {(1.0, 0.4, 0.0): (256, 512, 3), (0.0, 1.0, 0.2): (256, 256, 3)}
    assert found == colour | {(0.2, 0.2, 0.2): (512, 256, 3), (0.6, 0.6, 0.6): (256, 256, 3)}


def test_a_damaged_texture_shows_before_the_training(tmp_path: Path):
    Image.new("L", (30, 60), 51).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"texture_dir: cannot read .*b\.png"):
        make(texture_dir=str(tmp_path))


def test_packaged_textures_are_images(synthesis):
    for texture in synthesis.textures:
        assert texture.dtype == np.float32
        assert min(texture.shape[:2]) == 256
        assert texture.shape[2] == 3
        assert texture.min() >= 0
        assert texture.max() <= 1
        assert texture.std() > 0.02
