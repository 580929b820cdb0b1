"""The truths: scikit-learn, the metric functions on all images at once, and pixels that are known."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor, nn
from torch.utils.data import DataLoader

from squad_lit.metric import image_curves, pixel_curves
from squad_lit.network.anomaly import Anomaly
from squad_lit.report.callback import Curves, LevelHistograms, Panels
from squad_lit.training.detector import Detector
from squad_lit.training.evaluation import Evaluation
from squad_lit.training.forward import ForwardOutput

SIDE = 96  # wider than a caption
# Brightness of the images, and of their defects; the map is the brightness, and the score that of the brightest.
GOOD, BAD = [0.1, 0.4, 0.2, 0.3], [0.8, 0.35, 0.6, 0.9]


class Pixels(nn.Module):
    groups, stride = {"a": [1]}, {"a": 1}


class Brightness(Detector):
    def __init__(self) -> None:
        super().__init__(
            backbone=lambda groups: Pixels(),
            groups={"a": [1]},
            anomaly=lambda names: Anomaly(names, sigma=0.0, top=1 / SIDE**2, weight={"residual": 1.0}),
            maps=["residual"],
            synthesis=object(),  # type: ignore[arg-type]
            steps=1,
            seed=0,
        )

    def forward_tile(self, image: Tensor) -> ForwardOutput:
        return ForwardOutput({"residual": image.mean(1)}, {"a": image})

    def image_recon(self, output: ForwardOutput) -> Tensor:
        return output.features["a"] / 2


class Logger(L.pytorch.loggers.logger.DummyLogger):
    """Collects what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: dict[str, Any] = {}

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.shown |= {**metrics, "step": step}

    def show_panels(self, panels: Any, step: int) -> None:
        self.shown["panels"] = [p.name for p in panels], step

    def show_curves(self, curves: Any, step: int) -> None:
        self.shown["curves"] = list(curves), step

    def show_levels(self, levels: Any, step: int) -> None:
        self.shown["levels"] = levels, step


def items() -> list[dict[str, Any]]:
    made = []
    for i, (value, kind) in enumerate([*((v, "good") for v in GOOD), *((v, "cut") for v in BAD)]):
        image, mask = torch.full((3, SIDE, SIDE), 0.05 if kind == "cut" else value), torch.zeros(1, SIDE, SIDE)
        if kind == "cut":
            mask[:, 4:8, 4:8] = 1
            image[:, 4:8, 4:8] = value
        words = {"image_path": f"{kind}/{i}.png", "mask_path": f"{i}_mask.png" if kind == "cut" else ""}
        about = {"index": i, "category": "x", "defect": kind, "label": int(kind == "cut")}
        made.append({"image": image, "mask": mask, **about, **words})
    return made


@pytest.fixture(scope="module")
def tested(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Logger, Evaluation]:
    """A test in batches of three."""
    folder, logger, evaluation = tmp_path_factory.mktemp("tested"), Logger(), Evaluation(fpr_limit=0.3)
    module = Brightness()
    module.state.step, module.state.measured = 7, {"synthetic_ap": 0.25, "level_histogram/low": [[1.0]]}
    callbacks = [evaluation, Curves(folder=str(folder)), Panels(folder=str(folder), per_defect=1, worst=1, scale=0.4)]
    options: Any = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = L.Trainer(accelerator="cpu", logger=logger, callbacks=callbacks, **options)
    trainer.test(module, DataLoader(items(), batch_size=3), verbose=False)  # type: ignore[arg-type]
    return folder, logger, evaluation


def test_the_test_is_measured_as_by_scikit_learn_and_logged(tested):
    _, logger, evaluation = tested
    label, score = [0] * 4 + [1] * 4, GOOD + BAD
    mask = np.stack([item["mask"].numpy() for item in items()]).ravel() > 0
    maps = np.stack([item["image"].mean(0).numpy() for item in items()]).ravel()
    figures = evaluation.figures
    assert figures["image_auroc"] == pytest.approx(roc_auc_score(label, score))
    assert figures["pixel_ap"] == pytest.approx(average_precision_score(mask, maps))
    # The reconstruction has half of the brightness: -20 log10(v / 2), over the normal images.
    assert figures["psnr"] == pytest.approx(np.mean([-20 * np.log10(v / 2) for v in GOOD]), abs=1e-4)
    expected = {f"test/{key}": value for key, value in figures.items() if isinstance(value, float)}
    expected |= {"test/synthetic_ap": 0.25, "step": 7}
    assert {key: logger.shown[key] for key in expected} == pytest.approx(expected, nan_ok=True)


def test_curves_are_those_of_the_metric_functions(tested):
    folder, logger, _ = tested
    found = json.loads((folder / "curves.json").read_text())["x"]
    label, score = torch.tensor([0] * 4 + [1] * 4), torch.tensor(GOOD + BAD)
    # Three defects, then a false alarm, then the last defect.
    assert found["image_roc"] == {
        "false_positive_rate": [0, 0, 0, 0, 0.25, 0.25, 1],
        "true_positive_rate": [0, 0.25, 0.5, 0.75, 0.75, 1, 1],
    }
    maps = torch.stack([item["image"].mean(0) for item in items()])
    masks = torch.stack([item["mask"][0] for item in items()])
    for name, curve in (image_curves(score, label) | pixel_curves(maps, masks.bool(), fpr_limit=0.3)).items():
        x, y = found[name].values()
        np.testing.assert_allclose(x, curve.x, atol=1e-12)
        np.testing.assert_allclose(y, curve.y, atol=1e-12)
    assert logger.shown["curves"] == (["x"], 7)
    with Image.open(folder / "curves.png") as picture:
        assert picture.width > 100


def test_panels_are_the_first_ones_the_worst_false_alarm_and_the_worst_miss(tested):
    folder, logger, _ = tested
    with (folder / "panels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["panel"]: row["choice"] for row in rows} == {
        "x_good_0.png": "first",
        "x_good_1.png": "highest normal",  # 0.4, the brightest
        "x_cut_4.png": "first",
        "x_cut_5.png": "lowest anomalous",  # 0.35, the darkest
    }
    assert [float(row["anomaly_score"]) for row in rows] == pytest.approx([0.1, 0.4, 0.8, 0.35])
    assert {path.name for path in (folder / "panels").iterdir()} == {row["panel"] for row in rows}
    assert logger.shown["panels"] == ([row["panel"] for row in rows], 7)


def test_a_panel_shows_image_mask_maps_and_reconstruction_side_by_side(tested):
    folder, _, _ = tested
    with Image.open(folder / "panels" / "x_good_1.png") as picture:
        drawn = np.asarray(picture)
    width = SIDE + 2
    assert drawn.shape == (SIDE + 14, 5 * width - 2, 3)
    image, mask, residual, fused, recon = (drawn[-SIDE:, i * width : i * width + SIDE] for i in range(5))
    assert (image == round(0.4 * 255)).all()
    assert (mask == 0).all()
    assert (residual == [252, 255, 164]).all()  # at the end of the scale
    assert (fused == residual).all()
    assert (recon == round(0.2 * 255)).all()
    with Image.open(folder / "panels" / "x_cut_4.png") as picture:
        drawn = np.asarray(picture)
    fused = drawn[-SIDE:, 3 * width : 3 * width + SIDE]
    assert (fused[4:8, 4:8] == [252, 255, 164]).all()
    assert (fused[3, 4:8] == 255).all()  # the outline of the mask
    assert (fused[20:, 20:] == fused[50, 50]).all()


def test_level_histograms_go_to_the_loggers_that_show_them():
    logger, module = Logger(), Brightness()
    module.state.step = 3
    trainer: Any = SimpleNamespace(loggers=[L.pytorch.loggers.logger.DummyLogger(), logger])
    LevelHistograms().on_validation_end(trainer, module)
    assert logger.shown == {}  # a model without levels
    module.state.measured = {"level_histogram/low": [[0.5, 0.5]], "level_histogram/high": [[1.0]], "perplexity/low": 2}
    LevelHistograms().on_validation_end(trainer, module)
    assert logger.shown == {"levels": ({"low": [[0.5, 0.5]], "high": [[1.0]]}, 3)}


def test_without_an_evaluation_there_are_no_curves(tmp_path):
    trainer: Any = SimpleNamespace(callbacks=[], is_global_zero=True, loggers=[])
    Curves(folder=str(tmp_path)).on_test_end(trainer, Brightness())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [{"per_defect": -1}, {"worst": -1}, {"scale": 0}])
def test_panels_refuse_numbers_out_of_range(tmp_path, wrong):
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))}: expected"):
        Panels(**{"folder": str(tmp_path), "per_defect": 1, "worst": 1, "scale": 1.0} | wrong)
