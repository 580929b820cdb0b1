"""What a configuration may name and what it may not."""

import functools
import re
from typing import Any

import pytest
import torch

from squad_lit.network.anomaly import Anomaly
from squad_lit.network.generator import Generator
from squad_lit.network.quantizer import FSQ
from squad_lit.synthesis.augmentation import Augmentation
from squad_lit.training import build as module
from squad_lit.training.build import build, rebuild


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
    with pytest.raises(ValueError, match=f"the file names {re.escape(repr(str(target)))}|cannot import|has no"):
        rebuild({"_target_": target, "_partial_": partial, "args": "echo"})


@pytest.mark.parametrize(
    "target",
    [
        "squad_lit.network.quantizer.codebook_statistics",  # a function
        "squad_lit.synthesis.image.perlin",
        "squad_lit.network.quantizer.math",  # a module
        "squad_lit.synthesis.image.KINDS",  # a value
        "squad_lit.network.quantizer.Nothing",  # not there
        "squad_lit.network.backbone.Path",  # classes that a module has imported
        "squad_lit.training.pool.DataLoader",
        "torch.optim.lr_scheduler.partial",
        "torch.optim.lr_scheduler.Counter",
        "squad_lit.training.squad.Tensor",
    ],
)
@pytest.mark.parametrize("partial", [False, True])
def test_what_is_no_class_of_a_listed_module_is_refused(target, partial):
    with pytest.raises(
        ValueError, match=f"names '{re.escape(target)}', which is no class of that module|has no 'Nothing'"
    ):
        rebuild({"_target_": target, "_partial_": partial})


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
        rebuild(bury({"_target_": "os.system", "command": "echo"}))


def test_arguments_that_a_class_does_not_take():
    with pytest.raises(ValueError, match="FSQ: got an unexpected keyword argument 'colour'"):
        build({"_target_": "squad_lit.network.quantizer.FSQ", "levels": [3], "colour": "red"})


FSQ_AT = {"_target_": "squad_lit.network.quantizer.FSQ", "_partial_": True}


def typed(place: str) -> str:
    """The quantiser is typed as model.fsq, everything else where it is."""
    return f"model.{place}".replace("model.generator.quantizer", "model.fsq").rstrip(".")


@pytest.mark.parametrize(
    ("quantizer", "width", "message"),
    [
        ({"levels": [8, 2]}, 8, r"^model\.fsq\.levels\[1\]: expected at least 3, got 2$"),
        ({"levels": [2**10, 2**11]}, 8, r"^model\.fsq\.levels: \[1024, 2048\] make 2097152 codes"),
        ({"levels": [3]}, 12, r"^model\.generator\.width: expected a multiple of 8, got 12$"),
        ({}, 8, r"^model\.fsq: missing a required argument: 'levels'$"),
    ],
)
def test_what_an_object_refuses_is_named_as_it_was_typed(quantizer: dict[str, Any], width: int, message: str) -> None:
    generator = {"_target_": "squad_lit.network.generator.Generator", "width": width, "image_width": 8}
    config = {"generator": generator | {"channels": {"a": 2}, "strides": {"a": 4}, "quantizer": FSQ_AT | quantizer}}
    with pytest.raises(ValueError, match=message):
        build(config, name=typed)


def test_a_file_names_other_packages_only_if_they_are_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"_target_": "fractions.Fraction", "numerator": 1, "denominator": 2}
    with pytest.raises(ValueError, match=r"'fractions\.Fraction'.*trust=\[fractions\]"):
        rebuild(config)
    assert float(rebuild(config, ["fractions"])) == 0.5
    with pytest.raises(ValueError, match="no class of that module"):  # what it has imported stays refused
        rebuild({"_target_": "fractions.Decimal"}, ["fractions"])
    with pytest.raises(ValueError, match="'fractions"):  # a prefix is no package
        rebuild(config, ["frac"])

    class Point:
        value = "fractions"

    monkeypatch.setattr(module, "entry_points", lambda group: [Point] if group == "squad_lit.trust" else [])
    assert float(rebuild(config)) == 0.5
