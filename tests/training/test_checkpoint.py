"""What a configuration may name and what it may not, and which files are ours."""

import functools
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from squad_lit.network.anomaly import Anomaly
from squad_lit.network.generator import Generator
from squad_lit.network.quantizer import FSQ
from squad_lit.synthesis.augmentation import Augmentation
from squad_lit.training.checkpoint import KEY, VERSION, State, build, read

# Building


@pytest.mark.parametrize("plain", [1, 2.5, "text", None, True, [], {}, {"a": [1, {"b": "c"}], "d": None}])
def test_plain_values_are_left_as_they_are(plain):
    assert build(plain) == plain


def test_a_target_becomes_an_object_with_its_arguments():
    fsq = build({"_target_": "squad_lit.network.quantizer.FSQ", "levels": [8, 6, 5], "bound": "ifsq"})
    assert type(fsq) is FSQ
    assert fsq.levels == [8, 6, 5]
    assert fsq.slope == 0.8


def test_a_partial_is_called_later_with_the_rest():
    made = build(
        {
            "_target_": "squad_lit.network.anomaly.Anomaly",
            "_partial_": True,
            "sigma": 2.0,
            "top": 0.5,
            "weight": {"residual": 0.5},
        }
    )
    assert isinstance(made, functools.partial)
    anomaly = made(names=["residual_g"])
    assert type(anomaly) is Anomaly
    assert anomaly.sigma == 2.0
    optimizer = build({"_target_": "torch.optim.AdamW", "_partial_": True, "lr": 0.125})(
        [torch.zeros(1, requires_grad=True)]
    )
    assert type(optimizer) is torch.optim.AdamW
    assert optimizer.param_groups[0]["lr"] == 0.125
    scheduler = build({"_target_": "torch.optim.lr_scheduler.OneCycleLR", "_partial_": True, "max_lr": 1.0})(
        optimizer, total_steps=9
    )
    assert type(scheduler) is torch.optim.lr_scheduler.OneCycleLR


def test_partial_false_is_no_partial():
    assert type(build({"_target_": "squad_lit.network.quantizer.FSQ", "_partial_": False, "levels": [3]})) is FSQ


def test_targets_within_targets_and_lists():
    quantizer = {"_target_": "squad_lit.network.quantizer.FSQ", "_partial_": True, "levels": [3, 3]}
    config = {
        "_target_": "squad_lit.network.generator.Generator",
        "_partial_": True,
        "quantizer": quantizer,
        "width": 8,
        "image_width": 8,
    }
    generator = build({"parts": [config]})["parts"][0](channels={"a": 2, "b": 3}, strides={"a": 4, "b": 8})
    assert type(generator) is Generator
    assert [type(q) for q in generator.quantizer.values()] == [FSQ, FSQ]
    assert generator.quantizer["a"] is not generator.quantizer["b"]


def test_the_configuration_itself_is_left_alone():
    config = {
        "_target_": "squad_lit.synthesis.augmentation.Augmentation",
        "flip": [],
        "rotation": 0,
        "shift": 0,
        "zoom": 0,
        "brightness": 0,
    }
    before = dict(config)
    assert type(build(config)) is Augmentation
    assert config == before


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "builtins.exec",
        "subprocess.Popen",
        "torch.load",
        "torch.nn.Linear",
        "torch.hub.load",
        "timm.create_model",
        "pathlib.Path",
        "squad_lit.training.checkpoint.load",
        "squad_lit.train.main",
        "squad_lit.dataset.mvtec.MVTec",
        "squad_lit.network.quantizer.torch.load",  # through an allowed module
        "squad_lit.network.quantizer.",
        "eval",
        "",
        ".",
        "..quantizer.FSQ",
        None,
        ["squad_lit.network.quantizer.FSQ"],
    ],
)
@pytest.mark.parametrize("partial", [False, True])
def test_what_is_not_on_the_list_is_refused(target, partial):
    with pytest.raises(ValueError, match=f"the configuration names {re.escape(repr(target))}"):
        build({"_target_": target, "_partial_": partial, "args": "echo"})


@pytest.mark.parametrize(
    "target",
    [
        "squad_lit.network.quantizer.codebook_statistics",  # a function
        "squad_lit.synthesis.image.perlin",
        "squad_lit.network.quantizer.math",  # a module
        "squad_lit.synthesis.image.KINDS",  # a value
        "squad_lit.network.quantizer.Nothing",  # not there
        "squad_lit.network.backbone.Path",  # classes that a module has imported
        "squad_lit.training.pool.tqdm",
        "torch.optim.lr_scheduler.partial",
        "torch.optim.lr_scheduler.Counter",
        "squad_lit.training.squad.Tensor",
    ],
)
@pytest.mark.parametrize("partial", [False, True])
def test_what_is_no_class_of_a_listed_module_is_refused(target, partial):
    with pytest.raises(ValueError, match=f"names '{re.escape(target)}', which is no class of that module"):
        build({"_target_": target, "_partial_": partial})


@pytest.mark.parametrize(
    "bury",
    [
        lambda bad: [bad],
        lambda bad: {"a": {"b": [bad]}},
        lambda bad: {"_target_": "squad_lit.network.quantizer.FSQ", "levels": bad},
    ],
)
def test_a_refused_target_is_found_at_any_depth(bury):
    with pytest.raises(ValueError, match=r"'os\.system'"):
        build(bury({"_target_": "os.system", "command": "echo"}))


def test_arguments_that_a_class_does_not_take():
    with pytest.raises(TypeError, match="colour"):
        build({"_target_": "squad_lit.network.quantizer.FSQ", "levels": [3], "colour": "red"})


# Reading


def write(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def test_a_checkpoint_of_ours_is_read(tmp_path):
    content: dict[str, Any] = {"state_dict": {"w": torch.arange(3)}}
    state = State(config={"a": [1]}, categories=["b"], step=7, normal_scores=[0.5], false_alarm_rate=0.25)
    state.save(content)
    state.normal_scores.append(1.0)  # afterwards
    found = read(write(tmp_path / "last.ckpt", content))
    expected = State(config={"a": [1]}, categories=["b"], step=7, normal_scores=[0.5], false_alarm_rate=0.25)
    assert State.load(found) == expected
    assert torch.equal(found["state_dict"]["w"], torch.arange(3))


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*nowhere\.ckpt"):
        read(tmp_path / "nowhere.ckpt")


@pytest.mark.parametrize("content", [{"state_dict": {}}, {KEY: None}, {KEY: {"version": "a"}}, [1, 2], torch.zeros(2)])
def test_foreign_file_is_refused(tmp_path, content):
    with pytest.raises(ValueError, match=r"foreign\.ckpt is not a checkpoint of squad_lit"):
        read(write(tmp_path / "foreign.ckpt", content))


@pytest.mark.parametrize(
    ("version", "todo"), [(VERSION + 1, "update squad_lit"), (VERSION - 1, "train the model anew")]
)
def test_another_version_is_refused(tmp_path, version, todo):
    with pytest.raises(ValueError, match=rf"has checkpoint version {version}; this squad_lit reads {VERSION}: {todo}"):
        read(write(tmp_path / "new.ckpt", {KEY: {"version": version}}))


def test_a_state_with_a_part_missing_is_refused(tmp_path):
    content: dict[str, Any] = {}
    State().save(content)
    del content[KEY]["normal_maxima"]
    with pytest.raises(ValueError, match=r"part\.ckpt does not fit this squad_lit: .*'normal_maxima'"):
        read(write(tmp_path / "part.ckpt", content))


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"no checkpoint at all"])
def test_damaged_file_is_refused(tmp_path, damage):
    path = write(tmp_path / "last.ckpt", {KEY: {"version": VERSION}, "state_dict": {"w": torch.zeros(1000)}})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"last\.ckpt is not a readable checkpoint"):
        read(path)


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_reading_runs_no_code(tmp_path):
    path = write(tmp_path / "trap.ckpt", {KEY: {"version": VERSION, "config": Trap(tmp_path / "sprung")}})
    with pytest.raises(ValueError, match="is not a readable checkpoint"):
        read(path)
    assert not (tmp_path / "sprung").exists()
    torch.load(path, weights_only=False)  # the trap is a real one
    assert (tmp_path / "sprung").exists()
