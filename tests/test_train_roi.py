"""``dataset.roi`` from the training to the line: what differs outside alone changes nothing that is said."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import squad_lit
from squad_lit.deploy.export import export
from squad_lit.training import checkpoint

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
SMALL = ["trainer=smoke", "dataset.category=bottle", "dataset.image_size=64", "logger=none", "callback.curves=null"]
SMALL += ["callback.progress=null", "callback.panels=null", "metric.bootstrap=10"]
MODEL = [
    "model.generator.width=16",
    "discriminator.segmentation.width=16",
    "model.memory.patches=50",
    "model.groups={low: [4], high: [8]}",
]


def train(root: Path, output: Path, *overrides: str) -> dict[str, Any]:
    return squad_lit.fit(
        "mvtec", root=root, output=output, overrides=[*SMALL, *overrides, *(() if "fit=false" in overrides else MODEL)]
    ).figures


@pytest.fixture(scope="module")
def trained(mvtec: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("roi")
    train(mvtec, root, "dataset.roi=[0,16,40,32]")
    return root


def test_the_model_keeps_its_region_and_so_does_its_export(trained: Path, mvtec: Path, tmp_path: Path) -> None:
    image = np.array(Image.open(mvtec / "bottle" / "test" / "good" / "000.png"))
    outside = image.copy()
    outside[50:, :] = 255
    export(trained / "last.ckpt", tmp_path / "part.onnx", "onnx")
    for file in (trained / "last.ckpt", tmp_path / "part.onnx"):
        predictor = squad_lit.load(file)
        result = predictor.predict(image)
        assert np.isnan(result.anomaly_map[40:]).all()
        assert np.isfinite(result.anomaly_map[:40, 16:48]).all()
        # The score of the graph is that of the region.
        graph = predictor.runtime.run(image[None])
        assert graph.anomaly_score[0] == pytest.approx(result.anomaly_score, rel=1e-4)
        highest = np.sort(graph.model_map[0, :40, 16:48].ravel())[-round(0.001 * 64 * 64) :]
        assert result.anomaly_score == pytest.approx(highest.mean(), rel=1e-4)
        assert predictor.predict(outside).anomaly_score < graph.model_map[0].max() + 100
    with pytest.raises(ValueError, match="lies outside of the region of interest that the model was trained"):
        squad_lit.load(trained / "last.ckpt", roi=np.arange(64)[:, None] * np.ones(64) > 50)
    state = checkpoint.load(trained / "last.ckpt").state
    predictor = squad_lit.load(trained / "last.ckpt")
    limits = [predictor.predict(mvtec / "bottle" / "train" / "good" / f"{i:03}.png") for i in range(8)]
    assert set(np.round(state.normal_scores, 3)) <= {round(one.anomaly_score, 3) for one in limits}
    assert set(np.round(state.normal_maxima, 2)) <= {round(float(np.nanmax(one.anomaly_map)), 2) for one in limits}


def test_figures_are_those_of_the_region(trained: Path, mvtec: Path, tmp_path: Path) -> None:
    """The third defect lies at its lower end, and in a region above it there is nothing to find."""
    root = tmp_path / "data"
    shutil.copytree(mvtec, root)
    truth = root / "bottle" / "ground_truth" / "broken" / "002_mask.png"
    mask = np.zeros((64, 64), np.uint8)
    mask[50:60, 20:40] = 255
    Image.fromarray(mask).save(truth)
    with pytest.warns(UserWarning, match="1 defective test images have their defect outside of dataset.roi"):
        found = train(root, tmp_path / "a", "fit=false", f"checkpoint={trained / 'last.ckpt'}")
    shutil.rmtree(root)
    shutil.copytree(mvtec, root)
    for part in ("test/broken/002.png", "ground_truth/broken/002_mask.png"):
        (root / "bottle" / part).unlink()
    expected = train(root, tmp_path / "b", "fit=false", f"checkpoint={trained / 'last.ckpt'}")
    for name in ("image_auroc", "pixel_auroc", "pixel_ap", "pixel_aupro"):
        assert found[name] == expected[name]
    with pytest.raises(ValueError, match=r"dataset.roi: the checkpoint has another region"):
        train(mvtec, tmp_path / "c", "fit=false", f"checkpoint={trained / 'last.ckpt'}", "dataset.roi=[0,0,40,32]")


def test_large_images_are_looked_at_in_the_region(mvtec: Path, tmp_path: Path) -> None:
    train(mvtec, tmp_path, "model.tile=32", "dataset.roi=[0,0,30,64]", "metric.resolution=original")
    result = squad_lit.load(tmp_path / "last.ckpt").predict(mvtec / "bottle" / "test" / "good" / "000.png")
    assert np.isnan(result.anomaly_map[30:]).all()
    assert np.isfinite(result.anomaly_map[:30]).all()
