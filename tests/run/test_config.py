"""What was typed wrongly is a sentence that names it."""

from pathlib import Path

import pytest

import squad_lit
from squad_lit.run.config import check_overrides


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["quantizer=vqq"], r"^quantizer=vqq: no such choice; did you mean quantizer=vq\?; there are: fsq, none, vq$"),
        (["-m", "seed=0,1", "quantizer=fsq,vqq"], r"^quantizer=vqq: no such choice; did you mean quantizer=vq\?"),
        (["model.step=5"], r"^model\.step: no such option; did you mean model\.steps\?"),
        (["modell=hybrid"], r"^modell: no such option; did you mean model\?"),
        (["synthesis.kind.dent=0"], r"^synthesis\.kind\.dent: no such option; did you mean synthesis\.kinds\?"),
        (["~modell"], r"^modell: no such option; did you mean model\?"),
        (["model.fsq.levels=[8,6"], r"^model\.fsq\.levels=\[8,6: expected NAME=VALUE, with quotes for the shell"),
        (["model.steps"], r"^model\.steps: expected NAME=VALUE"),
        (["seed=0,1"], r"^seed=0,1: several values make a sweep, which needs -m; a list is 'seed=\[0,1\]'$"),
    ],
)
def test_what_cannot_be_is_named_with_what_was_meant(typed: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_overrides(typed)


@pytest.mark.parametrize(
    "typed",
    [
        ["-m", "seed=range(0,3)", "quantizer=fsq,vq", "model.fsq.levels=[8,5],[8,6]"],
        ["experiment=mpdd"],
        ["experiment=ablation/backbone"],
        ["+trainer.precision=bf16-mixed", "hydra.run.dir=/a b/c", "~callback.panels"],
        ["--config-dir", "nowhere", "quantizer=my_own"],
    ],
)
def test_what_can_be_passes(typed: list[str]) -> None:
    check_overrides(typed)


def test_fit_takes_the_data_of_an_experiment_and_refuses_its_sweep(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"^experiment=mpdd is a sweep over dataset\.category, and fit is one training"
    ):
        squad_lit.fit(overrides=["experiment=mpdd"], output=tmp_path)
    with pytest.raises(FileNotFoundError, match=f"mpdd: no folder {tmp_path / 'none'}"):
        squad_lit.fit(overrides=["experiment=mpdd", "dataset.category=tubes"], root=tmp_path / "none", output=tmp_path)
    with pytest.raises(TypeError, match=r"^overrides: expected a list of texts, .* got 'model\.steps=3'"):
        squad_lit.fit(overrides="model.steps=3")
