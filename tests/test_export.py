"""Exported files against the checkpoint that they were made of, and predict in an environment without torch."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import squad_lit
from squad_lit.deploy.export import OPSET, SUFFIXES, Exported
from squad_lit.deploy.int8 import choose_images, quantize
from squad_lit.deploy.metadata import KEY
from squad_lit.deploy.pixel_model import shrink
from squad_lit.deploy.predictor import Predictor
from squad_lit.deploy.runtime import Onnx, Runtime, open_runtime
from squad_lit.deploy.seal import seal
from squad_lit.export import main
from squad_lit.image.file import resize_pixels, to_uint8
from squad_lit.predict import main as predict
from squad_lit.run.config import CONF
from squad_lit.run.model import make_module
from squad_lit.training import checkpoint

SIDE = 64
MODELS = {
    "hybrid": [
        "model=hybrid",
        "model.memory.patches=50",
        "model.generator.width=16",
        "discriminator.segmentation.width=16",
    ],
    "memory": ["model=memory", "model.memory.patches=50"],
    "tiled": ["model=memory", "model.memory.patches=50", "model.tile=32"],
}
# An export takes seconds, so that what the formats share is seen with one of the models.
FILES = [("hybrid", form) for form in SUFFIXES] + [("memory", "onnx"), ("memory", "openvino")]
TILED = [("tiled", "onnx"), ("tiled", "openvino")]


@pytest.fixture(scope="module")
def images(draw_texture: Any) -> list[np.ndarray]:
    """Of several sizes: smaller and larger than the model's, and just that."""
    sizes = [(50, 90), (SIDE, SIDE), (200, 130), (150, 170)]
    return [(255 * draw_texture(i, *size)).round().astype(np.uint8) for i, size in enumerate(sizes)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, images: list[np.ndarray]) -> dict[str, Path]:
    """Checkpoints with random weights, standardised on noise: what is computed is tested, not how well it works."""
    folder = tmp_path_factory.mktemp("models")
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        for name, overrides in MODELS.items():
            torch.manual_seed(0)
            small = ["backbone.name=test_efficientnet", "backbone.weights=null", "model.groups={low: [4], high: [8]}"]
            module: Any = make_module(hydra.compose("train", [*overrides, *small, f"dataset.image_size={SIDE}"]))
            state = module.state
            state.categories, state.image_size, state.step = ["cap"], [SIDE, SIDE], 1
            noise = torch.rand(8, 3, SIDE, SIDE)
            module.backbone.fit([noise])
            module.memory.fill([module.backbone(noise)], len(noise), seed=0)
            maps = module.eval()(noise).maps
            module.anomaly.standardise(
                *torch.stack([torch.stack([m.mean(), m.std()]) for m in maps.values()], 1).detach()
            )
            with torch.no_grad():
                anomaly_map, score = module.predict(noise)
            state.normal_scores = score.tolist()
            state.normal_maxima = anomaly_map.flatten(1).max(1).values.tolist()
            content: dict[str, Any] = {"state_dict": module.state_dict()}
            module.on_save_checkpoint(content)
            torch.save(content, folder / f"{name}.ckpt")
    return {name: folder / f"{name}.ckpt" for name in MODELS}


@pytest.fixture(scope="module")
def exported(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """By model and format."""
    folder = tmp_path_factory.mktemp("exported")
    made = {}
    for name, form in FILES + TILED:
        made[name, form] = folder / "new" / f"{name}{SUFFIXES[form]}"
        command = ["--checkpoint", str(models[name]), "--format", form, "--output", str(made[name, form])]
        assert main([*command, "--false-alarm-rate", "0.25"]) == 0
    return made


@cache
def opened(path: Path) -> Runtime:
    """Opened once: a ``.pt2`` takes seconds."""
    return open_runtime(path)


@pytest.mark.parametrize(("name", "form"), FILES)
def test_files_give_what_the_checkpoint_gives(models, exported, images, name, form):
    truth, found = opened(models[name]), opened(exported[name, form])
    for image in [*(image[None] for image in images), np.stack([images[2], images[2][::-1], images[2][:, ::-1]])]:
        expected, (anomaly_map, score, model_map) = truth.run(image), found.run(image)
        assert anomaly_map.shape == image.shape[:3]
        assert anomaly_map.dtype == score.dtype == np.float32
        np.testing.assert_allclose(score, expected.anomaly_score, atol=1e-4)  # deviations from normal
        np.testing.assert_allclose(anomaly_map, expected.anomaly_map, atol=1e-3)
        assert model_map.shape == (len(image), SIDE, SIDE)
        np.testing.assert_allclose(model_map, expected.model_map, atol=1e-3)


@pytest.mark.parametrize("form", ["checkpoint", "torch"])
def test_a_model_is_moved_to_the_device_that_is_asked_for(models, exported, images, monkeypatch, form):
    """The truth: torch's device ``meta``, which has no values, and refuses an operation with a tensor of the CPU."""
    monkeypatch.setattr("squad_lit.deploy.runtime.torch_device", lambda name: torch.device("meta"))
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # meta knows none
    runtime: Any = open_runtime(models["hybrid"] if form == "checkpoint" else exported["hybrid", form], device="cuda")
    assert runtime.device == "meta"
    with torch.inference_mode():
        found = runtime._model(torch.tensor(images[0][None], device="meta"))
    assert {t.device.type for t in found} == {"meta"}
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        runtime.run(images[0][None])


@pytest.mark.parametrize(("name", "form"), [("tiled", "checkpoint"), *TILED])
def test_a_tiled_model_sees_the_same_in_each_runtime(models, exported, images, name, form):
    """The truth: the model itself, which cuts and blends in torch."""
    detector = checkpoint.load(models[name])
    predictor = Predictor(opened(models[name] if form == "checkpoint" else exported[name, form]))
    region = np.zeros((SIDE, SIDE))
    region[:20, 30:] = 1
    for image in [*images, images[2] / np.float32(255)]:
        with torch.inference_mode():
            expected, score = detector.predict(shrink(torch.tensor(image[None]), [SIDE, SIDE]))
        found = predictor.predict(image)
        assert found.anomaly_map.shape == image.shape[:2]
        assert found.anomaly_score == pytest.approx(float(score), abs=1e-4)
        resized = F.interpolate(expected[:, None], image.shape[:2], mode="bilinear", antialias=True)[0, 0]
        np.testing.assert_allclose(found.anomaly_map, resized, atol=1e-4)
        inside = Predictor(predictor.runtime, roi=region).predict(image).anomaly_score
        values = expected[0][torch.from_numpy(region) > 0]
        highest = values.topk(round(detector.anomaly.top * SIDE**2)).values
        assert inside == pytest.approx(float(highest.mean()), abs=1e-4)


def test_each_file_says_what_it_is(models, exported):
    for (name, form), path in exported.items():
        about = opened(path).metadata
        assert about["categories"] == ["cap"]
        assert about["image_size"] == [SIDE, SIDE]
        assert about["format_of_file"] == form
        assert about["false_alarm_rate"] == 0.25
        scores = about["normal_scores"]
        assert about["threshold"] == sorted(scores)[-2]  # 2 of 9 places are at most a quarter
        assert about["config_hash"] == opened(models[name]).metadata["config_hash"]
        assert about["tile"] == ({"side": 32, "overlap": 0.25} if name == "tiled" else None)
        assert about["input"]["type"] == ("float32" if name == "tiled" else "uint8")
    assert len({opened(path).metadata["config_hash"] for path in exported.values()}) == 3


def test_the_onnx_file_is_a_valid_one_of_the_stated_opset(exported, images):
    import onnxruntime

    model = onnx.load(exported["hybrid", "onnx"])
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", OPSET)]
    about = json.loads({p.key: p.value for p in model.metadata_props}[KEY])
    ports = {p.name: p.type.tensor_type for p in [*model.graph.input, *model.graph.output]}
    shapes = {name: [d.dim_param or d.dim_value for d in port.shape.dim] for name, port in ports.items()}
    assert shapes == {"image": about["input"]["shape"]} | {n: o["shape"] for n, o in about["outputs"].items()}
    assert str(Path(squad_lit.__file__).parent) not in exported["hybrid", "onnx"].read_bytes().decode(errors="ignore")
    session = onnxruntime.InferenceSession(exported["hybrid", "onnx"])
    for image in images:
        _, score, label, _ = session.run(None, {"image": image[None]})
        assert label.tolist() == (score > about["threshold"]).astype(int).tolist()


def rows(output: Path) -> list[dict[str, str]]:
    with (output / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def parts(tmp_path: Path, images: list[np.ndarray]) -> Path:
    (tmp_path / "parts").mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "parts" / f"{i}.png")
    return tmp_path / "parts"


@pytest.mark.parametrize("form", SUFFIXES)
def test_predict_writes_the_same_with_each_runtime(models, exported, parts, tmp_path, form):
    for path, place in ((models["hybrid"], "a"), (exported["hybrid", form], "b")):
        command = ["--checkpoint", str(path), "--output", str(tmp_path / place), "--false-alarm-rate", "0.3"]
        assert predict([*command, str(parts)]) == 0
    for expected, found in zip(rows(tmp_path / "a"), rows(tmp_path / "b"), strict=True):
        assert float(found.pop("anomaly_score")) == pytest.approx(float(expected.pop("anomaly_score")), abs=1e-4)
        assert found | {"model": expected["model"]} == expected  # of another file
    for i in range(4):
        for kind in ("mask", "overlay"):
            pair = [np.asarray(Image.open(tmp_path / p / kind / f"{i}.png.png")).astype(int) for p in "ab"]
            assert np.abs(pair[0] - pair[1]).max() <= (0 if kind == "mask" else 1)


def test_the_rate_of_the_export_is_the_default(exported):
    path = exported["memory", "onnx"]
    assert squad_lit.load(path).threshold.false_alarm_rate == pytest.approx(2 / 9)
    assert squad_lit.load(path, false_alarm_rate=0.5).threshold.false_alarm_rate == pytest.approx(4 / 9)


# A command where there is nothing but NumPy, Pillow and a runtime.
LEAN = """
import runpy, sys
package, module, *sys.argv[1:] = sys.argv[1:]
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in {"numpy", "PIL", "squad_lit", package, *sys.stdlib_module_names}:
            raise ModuleNotFoundError(f"no module named {name!r}", name=name)
sys.meta_path.insert(0, Nothing())
try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
finally:
    found = {"torch", "lightning", "hydra", "timm", "skimage", "scipy", "matplotlib"} & set(sys.modules)
    print(sorted(found), file=sys.stderr)
"""


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_threads_may_share_a_model(exported: dict[tuple[str, str], Path], form: str) -> None:
    runtime = open_runtime(exported["memory", form])
    images = list(np.random.default_rng(0).integers(60, 200, (8, 1, 64, 64, 3), np.uint8))
    alone = [runtime.run(image).anomaly_map for image in images]
    with ThreadPoolExecutor(8) as threads:
        together = threads.map(lambda image: runtime.run(image).anomaly_map, images * 20)
        for found, expected in zip(together, alone * 20, strict=True):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_predict_and_watch_run_where_there_is_no_torch(exported, parts, tmp_path, form):
    package, checkpoint = {"onnx": "onnxruntime", "openvino": "openvino"}[form], str(exported["hybrid", form])
    lean = [sys.executable, "-c", LEAN, package]
    command = ["squad_lit.predict", "--checkpoint", checkpoint, "--output", str(tmp_path / "out"), str(parts)]
    done = subprocess.run([*lean, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "[]"
    expected = {row["image_path"]: float(row["anomaly_score"]) for row in rows(tmp_path / "out")}
    assert len(expected) == 4
    command = ["squad_lit.watch", "--checkpoint", checkpoint, "--output", str(tmp_path / "watched"), str(parts)]
    with subprocess.Popen([*lean, *command], stdout=-1, stderr=-1, text=True) as process:
        lines = [json.loads(process.stdout.readline()) for _ in range(4)]
        process.terminate()
        assert process.wait(30) == 0
        assert process.stderr.read().splitlines()[-1] == "[]"
    # Alone or in a batch, a score is equal up to rounding, and a code may be another one.
    assert {line["image_path"]: line["anomaly_score"] for line in lines} == pytest.approx(expected, rel=1e-3)


def test_int8_quantises_the_backbone_and_says_so(exported, parts, images, tmp_path):
    path = Path(shutil.copy(exported["hybrid", "onnx"], tmp_path / "int8.onnx"))
    quantize(path, choose_images(parts), opened(exported["hybrid", "onnx"]).metadata)
    assert open_runtime(path).metadata["precision"] == "int8 backbone"
    model = onnx.load(path)
    makers = {name: node for node in model.graph.node for name in node.output}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    eight_bits = [n for n in convolutions if n.input[1] in makers and makers[n.input[1]].op_type == "DequantizeLinear"]
    weights = {w.name: w.dims for w in onnx.load(exported["hybrid", "onnx"]).graph.initializer}
    dense = [name for name, dims in weights.items() if "backbone" in name and len(dims) == 4 and dims[1] > 3]
    assert len(eight_bits) == len(dense) > 3
    assert len(convolutions) > len(eight_bits)
    truth, found = (
        runtime.run(images[2][None])[0] for runtime in (opened(exported["hybrid", "onnx"]), open_runtime(path))
    )
    assert 0.9 < np.corrcoef(found.ravel(), truth.ravel())[0, 1] < 0.999999  # near, and not the same


@pytest.mark.parametrize(("slowed", "is_warned"), [("int8.onnx", True), ("float32.onnx", False)])
def test_that_int8_is_no_faster_is_said_when_it_is_written(
    models, parts, tmp_path, capsys, monkeypatch, slowed, is_warned
):
    run = Onnx.run

    def slow(self, image):  # one of the two files, which are told apart by what is written into them
        name = "int8.onnx" if self.metadata["precision"] == "int8 backbone" else "float32.onnx"
        time.sleep(0.2 * (name == slowed))
        return run(self, image)

    monkeypatch.setattr(Onnx, "run", slow)
    command = ["--checkpoint", str(models["memory"]), "--format", "onnx", "--output", str(tmp_path / "int8.onnx")]
    assert main([*command, "--int8", str(parts)]) == 0
    said = capsys.readouterr()
    found = re.search(r"int8 takes ([\d.]+) ms per image on this machine, and float32 ([\d.]+) ms", said.out)
    assert found is not None
    slow_one, fast_one = map(float, found.groups() if is_warned else found.groups()[::-1])
    assert slow_one > 200 > fast_one
    assert ("warning: int8 is no faster here" in said.err) == is_warned
    assert [path.name for path in tmp_path.glob("*.onnx*")] == ["int8.onnx"]


def test_how_far_the_scores_in_8_bits_are_from_the_threshold_is_said(models, parts, tmp_path, capsys):
    path = tmp_path / "int8.onnx"
    command = ["--checkpoint", str(models["memory"]), "--format", "onnx", "--output", str(path), "--int8", str(parts)]
    assert main(command) == 0
    paths = choose_images(parts)[:8]
    truth, found = ([r.anomaly_score for r in squad_lit.load(p).predict(paths)] for p in (models["memory"], path))
    apart = 100 * (np.array(found) / truth - 1)
    assert np.abs(apart).max() > 1
    said = f"{apart.min():+.0f} to {apart.max():+.0f} % apart, {np.median(apart):+.0f} % in the middle"
    assert f"warning: the threshold {squad_lit.load(path).threshold.value:.3g} comes from scores of the checkpoint" in (
        err := capsys.readouterr().err
    )
    assert said in err
    assert not Exported(1.0, [0.004, -0.009], None).shift


def test_a_file_for_one_size_resizes_nothing_and_takes_images_of_any(models, exported, images, tmp_path):
    """The truth: the file for any size, given the image that ``resize_pixels`` makes."""
    for form in ("onnx", "openvino"):
        path = tmp_path / f"a{SUFFIXES[form]}"
        command = ["--checkpoint", str(models["hybrid"]), "--format", form, "--output", str(path)]
        assert main([*command, "--static", f"3,{SIDE},{SIDE}", "--false-alarm-rate", "0.25"]) == 0
        found, expected = open_runtime(path), opened(exported["hybrid", form])
        assert found.metadata["input"]["shape"] == [3, SIDE, SIDE, 3]
        assert found.batch == 3
        small = np.stack([to_uint8(resize_pixels(images[number], [SIDE, SIDE])) for number in range(4)])
        for part, truth in zip(found.run(small), expected.run(small), strict=True):  # 4 images, in 2 passes
            np.testing.assert_allclose(part, truth, atol=1e-3)
        alone = found.run(images[2][None])
        assert alone.anomaly_map.shape == (1, *images[2].shape[:2])
        assert alone.anomaly_score[0] == pytest.approx(expected.run(small[2:3]).anomaly_score[0], abs=1e-3)
        assert len(Predictor(found).predict(images)) == len(images)
    model = onnx.load(tmp_path / "a.onnx")
    antialiased = [n for n in model.graph.node for a in n.attribute if (a.name, a.i) == ("antialias", 1)]
    assert not antialiased
    assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [3, SIDE, SIDE, 3]
    readers = [node.op_type for node in model.graph.node if "image" in node.input]
    assert readers == ["Cast"]  # all that TensorRT does with uint8


def test_a_tiled_model_is_fixed_to_its_tiles(models, exported, images, tmp_path, capsys):
    command = ["--checkpoint", str(models["tiled"]), "--format", "onnx", "--output", str(tmp_path / "a.onnx")]
    assert main([*command, "--static", "2,64,64"]) == 1
    assert "--static 2,64,64: the model looks at tiles, so it takes N,32,32" in capsys.readouterr().err
    assert main([*command, "--static", "2,32,32"]) == 0
    found, expected = Predictor(open_runtime(tmp_path / "a.onnx")), Predictor(opened(exported["tiled", "onnx"]))
    for image in images:
        assert found.predict(image).anomaly_score == pytest.approx(expected.predict(image).anomaly_score, abs=1e-4)


def test_fp16_computes_the_networks_in_16_bits(models, exported, images, tmp_path):
    path = tmp_path / "half.onnx"
    command = ["--checkpoint", str(models["hybrid"]), "--format", "onnx", "--output", str(path), "--fp16"]
    assert main([*command, "--false-alarm-rate", "0.25"]) == 0
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    kinds = {w.name: w.data_type for w in model.graph.initializer}
    kernels = {n.input[1] for n in model.graph.node if n.op_type in ("Conv", "ConvTranspose")}
    assert {kinds[name] for name in kernels} == {onnx.TensorProto.FLOAT16}
    assert path.stat().st_size < 0.7 * exported["hybrid", "onnx"].stat().st_size
    found, truth = open_runtime(path), opened(exported["hybrid", "onnx"])
    assert found.metadata["precision"] == "float16"
    for image in images:
        near, exact = found.run(image[None]), truth.run(image[None])
        assert near.anomaly_map.dtype == np.float32
        assert np.corrcoef(near.anomaly_map.ravel(), exact.anomaly_map.ravel())[0, 1] > 0.98
        assert near.anomaly_score[0] == pytest.approx(exact.anomaly_score[0], rel=0.1)
        assert near.anomaly_score[0] != exact.anomaly_score[0]


EXAMPLES = Path(__file__).parents[1] / "docs" / "example"


def test_the_examples_name_what_the_file_has(exported):
    import onnxruntime

    session = onnxruntime.InferenceSession(exported["hybrid", "onnx"])
    kinds = {port.name: port.type for port in [*session.get_inputs(), *session.get_outputs()]}
    by_language = {
        "cpp": {"uint8_t": "uint8", "int64_t": "int64", "float": "float"},
        "cs": {"byte": "uint8", "long": "int64", "float": "float"},
    }
    read = {"cpp": r"found\[(\d)\]\.GetTensorData<(\w+)>", "cs": r'Name == "(\w+)"\)\.AsTensor<(\w+)>'}
    for language, names in by_language.items():
        text = (EXAMPLES / f"predict.{language}").read_text()
        outputs = re.findall(r'"(\w+)"', re.search(r"\{ ?(\"anomaly_score.*?)\}", text)[1])
        assert '"image"' in text
        assert re.search(r"\{ ?1, height, width, 3 ?\}", text)
        assert {names[kind] for kind in re.findall(r"(?:CreateTensor|DenseTensor)<(\w+)>", text)} == {"uint8"}
        assert kinds["image"] == "tensor(uint8)"
        for output, kind in re.findall(read[language], text):
            assert kinds[outputs[int(output)] if output.isdecimal() else output] == f"tensor({names[kind]})"
        assert len(re.findall(read[language], text)) == 3
        assert len(text.splitlines()) <= 32


@pytest.mark.slow
def test_the_example_in_cpp_gives_the_same(exported, images, tmp_path):
    flags = ["-std=c++17", *os.environ.get("ONNXRUNTIME_FLAGS", "-lonnxruntime").split()]
    command = ["g++", str(EXAMPLES / "predict.cpp"), *flags, "-o", str(tmp_path / "predict")]
    if shutil.which("g++") is None:
        pytest.skip("there is no g++")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "onnxruntime_cxx_api.h: No such file" in done.stderr or "cannot find -lonnxruntime" in done.stderr:
        pytest.skip("ONNX Runtime for C++ is not installed; ONNXRUNTIME_FLAGS says where it is")
    assert done.returncode == 0, done.stderr
    for image in images:
        (tmp_path / "image.rgb").write_bytes(image.tobytes())
        sides = [str(side) for side in image.shape[1::-1]]
        call = [str(tmp_path / "predict"), str(exported["hybrid", "onnx"]), str(tmp_path / "image.rgb"), *sides]
        shown = subprocess.run(call, capture_output=True, text=True, check=True).stdout.split()
        expected = opened(exported["hybrid", "onnx"]).run(image[None])
        assert float(shown[1]) == pytest.approx(expected.anomaly_score[0], rel=1e-3)
        place = np.unravel_index(expected.anomaly_map[0].argmax(), image.shape[:2])
        assert [int(shown[5]), int(shown[7])] == list(place)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--format", "onnx", "--output", "DIR/a.xml"], "a file for onnx ends in .onnx, got a.xml"),
        (["--format", "openvino", "--output", "DIR/a.bin"], "a file for openvino ends in .xml, got a.bin"),
        (["--format", "torch", "--output", "DIR/file/a.pt2"], "File exists; give a folder, or a place for a new one"),
        (["--format", "torch", "--output", "DIR/a.pt2", "--checkpoint", "DIR/file"], "is not a readable checkpoint"),
        (["--format", "torch", "--output", "DIR/a.pt2", "--checkpoint", "DIR/none"], "no checkpoint"),
        (["--format", "torch", "--output", "DIR/a.pt2", "--false-alarm-rate", "2"], "expected a share in (0, 1)"),
        (["--format", "onnx", "--output", "DIR/a.onnx", "--int8", "DIR/empty"], "no image in"),
    ],
)
def test_mistakes_are_told_in_words_and_leave_nothing(models, tmp_path, capsys, given, words):
    (tmp_path / "file").write_bytes(b"no checkpoint")
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    command = [text.replace("DIR", str(tmp_path)) for text in ["--checkpoint", str(models["memory"]), *given]]
    assert main(command) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert words in error
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("form", "package", "runtime"), [("onnx", "onnxscript", "onnxruntime"), ("openvino", "openvino", "openvino")]
)
def test_a_missing_package_is_named_with_its_command(
    models, exported, tmp_path, capsys, monkeypatch, form, package, runtime
):
    monkeypatch.setitem(sys.modules, package, None)
    output = tmp_path / f"a{SUFFIXES[form]}"
    assert main(["--checkpoint", str(models["memory"]), "--format", form, "--output", str(output)]) == 1
    assert f"this needs the package {package}: pip install 'squad_lit[" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, runtime, None)
    with pytest.raises(ImportError, match=f"this needs the package {runtime}: pip install"):
        open_runtime(exported["memory", form])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--format", "onnx", "--static", "1,256"], "expected number, height and width, such as 1,256,256"),
        (["--format", "onnx", "--static", "0,256,256"], "expected number, height and width"),
        (["--format", "torch", "--fp16"], "--fp16 is for --format onnx and openvino"),
        (["--format", "onnx", "--fp16", "--int8", "x"], "--int8 goes with neither --fp16 nor --static"),
    ],
)
def test_options_that_do_not_fit(capsys, given, words):
    with pytest.raises(SystemExit, match="2"):
        main(["--checkpoint", "a", "--output", "a", *given])
    assert words in capsys.readouterr().err


def test_int8_is_for_onnx(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--checkpoint", "a", "--format", "openvino", "--output", "a.xml", "--int8", "x"])
    assert "--int8 is for --format onnx" in capsys.readouterr().err


def test_a_runtime_refuses_what_it_cannot_run(models, exported, tmp_path):
    with pytest.raises(ValueError, match=r"^runtime onnx cannot run hybrid\.ckpt, which is for torch"):
        open_runtime(models["hybrid"], "onnx")
    with pytest.raises(ValueError, match=r"^runtime torch cannot run hybrid\.onnx, which is for onnx"):
        open_runtime(exported["hybrid", "onnx"], "torch")
    with pytest.raises(FileNotFoundError, match="no exported model"):
        open_runtime(tmp_path / "a.onnx")
    for form, suffix in SUFFIXES.items():
        broken = tmp_path / f"broken{suffix}"
        broken.write_bytes(b"nothing of the kind")
        broken.with_suffix(".bin").write_bytes(b"")
        with pytest.raises(ValueError, match="is not a readable"):
            open_runtime(broken, form)
    alone = tmp_path / "alone.xml"
    alone.write_bytes(exported["memory", "openvino"].read_bytes())
    with pytest.raises(FileNotFoundError, match="needs its weights beside it"):
        open_runtime(alone)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: None, "was not written by squad_lit"),
        (lambda text: text.replace('"format": 4', '"format": 5'), "newer"),
        (lambda text: text.replace('"format": 4', '"format": 3'), "older than this one: export the checkpoint again"),
        (lambda text: text.replace('"normal_scores"', '"others"'), "its metadata 'squad_lit' is not whole"),
        (lambda text: text.replace('"format": 4', '"format": "4"'), "is not whole"),
        (lambda text: "[]", "is not whole"),
        (lambda text: text[:20], "is not whole"),
    ],
)
def test_foreign_and_newer_files_are_refused(exported, tmp_path, change, words):
    model = onnx.load(exported["memory", "onnx"])
    text = change(model.metadata_props[0].value)
    onnx.helper.set_model_props(model, {} if text is None else {KEY: text})
    onnx.save(model, tmp_path / "a.onnx")
    with suppress(ValueError):  # there is no place for a digest
        seal(tmp_path / "a.onnx")
    with pytest.raises(ValueError, match=words):
        open_runtime(tmp_path / "a.onnx")


@pytest.mark.parametrize(
    ("form", "part"), [("onnx", ".onnx"), ("openvino", ".xml"), ("openvino", ".bin"), ("torch", ".pt2")]
)
def test_damage_anywhere_in_a_file_is_found_before_it_is_used(exported, tmp_path, form, part):
    source = exported["hybrid", form]
    for file in source.parent.glob(f"{source.stem}.*"):
        shutil.copy(file, tmp_path)
    path = tmp_path / source.name
    open_runtime(path)
    whole = path.with_suffix(part).read_bytes()
    rng = np.random.default_rng(0)
    for start in [0, len(whole) - 64, *rng.integers(0, len(whole) - 64, 10)]:
        damaged = bytearray(whole)
        damaged[start : start + 64] = bytes(b ^ 0x55 for b in damaged[start : start + 64])
        path.with_suffix(part).write_bytes(damaged)
        with pytest.raises(ValueError, match=r"damaged|not a readable"):
            open_runtime(path)
    path.with_suffix(part).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"damaged|not a readable"):
        open_runtime(path)
