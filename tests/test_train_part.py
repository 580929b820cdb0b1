"""Every part that is shipped: trained for a few steps, tested, and loaded again."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import squad_lit
from squad_lit.run import fit
from squad_lit.run.config import CONF, compose
from squad_lit.run.option import check, make
from squad_lit.training import checkpoint

# The categories below are no MVTec categories, and are told so.
pytestmark = pytest.mark.filterwarnings("ignore:.*officially")

SMALL = ["trainer=smoke", "dataset.image_size=64", "logger=none", "callback.progress=null", "dataset.batch_size=4"]
NO_PANELS = "callback.panels=null"


def run(folder: Path, mvtec: Path, *overrides: str, curves: bool = False) -> dict[str, Any]:
    """Train and test; Matplotlib takes as long for the curves as a short training."""
    folder.mkdir(parents=True, exist_ok=True)
    base = [*SMALL, "dataset=mvtec", f"dataset.root={mvtec}", "dataset.category=bottle"]
    base += [] if curves else ["callback.curves=null"]
    return fit.run(compose([*base, *overrides], output=folder), folder).figures


def test_joint_model_has_metrics_per_category_and_their_mean(tmp_path: Path, mvtec: Path) -> None:
    run(tmp_path, mvtec, "dataset.category=[bottle,screw]", "model.steps=2")
    figures = json.loads((tmp_path / "metrics.json").read_text())
    each = figures["per_category"]
    assert list(each) == ["bottle", "screw"]
    assert figures["pixel_ap"] == pytest.approx((each["bottle"]["pixel_ap"] + each["screw"]["pixel_ap"]) / 2)


# FSQ with segmentation is the default, and FSQ with both is trained in test_train.py.
PAIRS = ["vq segmentation", "vq none", "vq both", "none patch", "none segmentation", "fsq none"]


@pytest.mark.parametrize("pair", PAIRS)
def test_quantizers_and_discriminators_combine(tmp_path: Path, mvtec: Path, pair: str) -> None:
    quantizer, discriminator = pair.split()
    options = [f"quantizer={quantizer}", f"discriminator={discriminator}"]
    options += ["model.steps=2", "model.adversarial_start=0", NO_PANELS]
    figures = run(tmp_path, mvtec, *options)
    assert ("codebook_usage/low" in figures) == (quantizer != "none")
    names = checkpoint.load(tmp_path / "last.ckpt").anomaly.names
    assert ("discriminator" in names) == (discriminator in ("segmentation", "both"))


@pytest.mark.parametrize("selection", ["random", "coreset"])
def test_memory_is_filled_tested_and_reloaded(tmp_path: Path, mvtec: Path, selection: str) -> None:
    options = ["model.memory.patches=40", f"model.memory.selection={selection}"]
    figures = run(tmp_path / "a", mvtec, "model=memory", *options)
    assert figures["pixel_auroc"] > 0.7  # bright squares on grey noise
    assert figures["synthetic_ap"] > 0
    assert checkpoint.load(tmp_path / "a" / "last.ckpt").memory.rows.shape[0] == 40
    again = run(tmp_path / "b", mvtec, "fit=false", f"checkpoint={tmp_path / 'a' / 'last.ckpt'}")
    assert again["pixel_ap"] == figures["pixel_ap"]
    assert list((tmp_path / "a" / "panels").glob("*.png"))


def test_a_training_exports_its_model(tmp_path: Path, mvtec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["model=memory", "model.memory.patches=40", "export=onnx", NO_PANELS]
    run(tmp_path, mvtec, *options, "threshold.false_alarm_rate=0.4")
    image = mvtec / "bottle" / "test" / "broken" / "000.png"
    exported = squad_lit.load(tmp_path / "model.onnx")
    trained = squad_lit.load(tmp_path / "last.ckpt", false_alarm_rate=0.4)
    assert exported.runtime.metadata["format_of_file"] == "onnx"
    assert exported.threshold == trained.threshold
    assert exported.predict(image).anomaly_score == pytest.approx(trained.predict(image).anomaly_score, abs=1e-3)
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # told before the training
    with pytest.raises(ImportError, match="onnxscript"):
        run(tmp_path, mvtec, *options)
    monkeypatch.undo()
    assert (tmp_path / "model.onnx").exists()
    with pytest.raises(ValueError, match=r"export=onnx exports last\.ckpt, which callback\.checkpoint=null"):
        run(tmp_path, mvtec, *options, "callback.checkpoint=null")
    with pytest.raises(ValueError, match="export: expected onnx, openvino or torch or null, got 'tflite'"):
        run(tmp_path, mvtec, *options, "export=tflite")
    run(tmp_path, mvtec, *options, "export=null")  # what an earlier training exported is of another model
    assert not (tmp_path / "model.onnx").exists()


def test_a_hybrid_is_squad_with_one_more_map(tmp_path: Path, mvtec: Path) -> None:
    options = ["model.steps=3", "model.groups={low: [4], high: [8]}"]
    run(tmp_path / "squad", mvtec, "model=squad", *options)
    figures = run(tmp_path / "hybrid", mvtec, "model.memory.patches=40", *options)
    squad, hybrid = (checkpoint.load(tmp_path / name / "last.ckpt") for name in ("squad", "hybrid"))
    assert hybrid.memory.rows.shape[0] == 40
    trained = hybrid.state_dict()
    assert [k for k, v in squad.generator.state_dict().items() if not torch.equal(v, trained[f"generator.{k}"])] == []
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        both, one = hybrid(image).maps, squad(image).maps
    assert set(both) - set(one) == {"memory"}
    # The discriminator sees the memory, too.
    assert [name for name in one if not torch.equal(both[name], one[name])] == ["discriminator"]
    again = run(tmp_path / "b", mvtec, "fit=false", f"checkpoint={tmp_path / 'hybrid' / 'last.ckpt'}")
    assert again["pixel_ap"] == figures["pixel_ap"]


@pytest.mark.parametrize("options", [["discriminator=both"], ["model=memory", "model.memory.patches=40"]])
def test_large_images_are_trained_and_tested_in_tiles(tmp_path: Path, mvtec: Path, options: list[str]) -> None:
    tiles = ["dataset.image_size=[96,128]", "model.tile=64"]
    figures = run(tmp_path / "a", mvtec, *options, *tiles)
    assert 0 <= figures["pixel_aupro"] <= 1
    assert ("psnr" in figures) == ("copy_ratio/low" in figures) == ("model=memory" not in options)
    again = run(tmp_path / "b", mvtec, "fit=false", *tiles[:1], f"checkpoint={tmp_path / 'a' / 'last.ckpt'}")
    assert again["pixel_ap"] == figures["pixel_ap"]
    with Image.open(next((tmp_path / "a" / "panels").glob("*.png"))) as panel:
        assert panel.height == 96 + 14  # the whole image, and its caption


def groups() -> list[str]:
    return sorted(
        f"{folder.name}={file.stem}"
        for folder in CONF.iterdir()
        if folder.is_dir()
        for file in folder.glob("*.yaml")
        if file.stem != "default" or folder.name == "callback"
    )


@pytest.mark.parametrize("choice", groups())
def test_every_yaml_composes_and_its_model_builds(tmp_path: Path, choice: str) -> None:
    config = compose([choice, "backbone.weights=null"], output=tmp_path)
    if choice == "experiment=robustness":
        with pytest.raises(ValueError, match="fit=false needs checkpoint=PATH"):
            check(config)
        config.checkpoint = "last.ckpt"
    if choice != "dataset=default":
        check(config)
    assert make(config, "model").steps >= 1
    for node in (config.callback, config.logger):
        for part in node.values():
            assert part._target_
    assert config.trainer._target_ == "lightning.Trainer"


def test_each_loggers_files(tmp_path: Path, mvtec: Path) -> None:
    run(tmp_path, mvtec, "logger=[csv,tensorboard]", "model.steps=1")
    assert (tmp_path / "csv" / "metrics.csv").exists()
    assert list(tmp_path.glob("tensorboard/events.*"))


def test_wandb_works_offline(
    tmp_path: Path, mvtec: Path, monkeypatch: pytest.MonkeyPatch, read_wandb: Callable[[Path], list[Any]]
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    run(tmp_path / "a", mvtec, "logger=wandb", "model.steps=2", curves=True)
    monkeypatch.setattr("lightning.Trainer.test", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(tmp_path / "b", mvtec, "logger=wandb", "model.steps=1")
    first, second = (next(tmp_path.glob(f"{name}/wandb/offline-run-*/run-*.wandb")) for name in "ab")
    content = first.read_bytes()
    for key in (b"losses/feature_low", b"codes/levels_high_3", b"training/images_per_second", b"metrics/pixel_pro"):
        assert key in content
    codes = [r.exit.exit_code for file in (first, second) for r in read_wandb(file) if r.HasField("exit")]
    assert codes == [0, 1]


def test_override_of_an_absent_quantizer_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fsq"):
        compose(["quantizer=vq", "model.fsq.levels=[8,5,5,5]"], output=tmp_path)


@pytest.mark.parametrize("model", ["memory", "hybrid"])
def test_a_memory_is_of_all_training_images(tmp_path: Path, mvtec: Path, model: str) -> None:
    options = ["model.memory.selection=random", "model.memory.patches=100000", "callback.panels=null"]
    run(tmp_path, mvtec, f"model={model}", *options)
    module = checkpoint.load(tmp_path / "last.ckpt")
    assert len(module.memory.rows) == 7 * 8 * 8  # one of 8 images is held out; 64 px, stride 8
