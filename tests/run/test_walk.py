"""Every option that is no text with values that make no sense: a sentence that names it, or a value that it has."""

import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
WALK: dict[str, Any] = runpy.run_path(str(ROOT / "experiments" / "reliability" / "option.py"))
BASES = list(WALK["bases"]())


@pytest.mark.parametrize("base", range(len(BASES)))
def test_no_value_of_any_option_has_a_fault(base: int) -> None:
    """A quarter of the values, another one for each option; the program has all, and makes what they describe."""
    config, names = BASES[base]
    values = list(WALK["VALUES"])
    trials = [
        WALK["look"](config, name, value, build=False)
        for number, name in enumerate(names)
        for value in values[number % 4 :: 4]
    ]
    assert len(trials) > len(names)
    assert {trial.option for trial in trials if trial.value in ("nan", "inf") and not trial.said} == set()
    assert [trial for trial in trials if trial.fault] == []
