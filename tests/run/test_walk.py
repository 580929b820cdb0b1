"""Every option that is no text with values that make no sense: a sentence that names it, or a value that it has."""

import pytest
from experiments.reliability.option import VALUES, bases, look

BASES = list(bases())


@pytest.mark.parametrize("base", range(len(BASES)))
def test_no_value_of_any_option_has_a_fault(base: int) -> None:
    """A quarter of the values, another one for each option; the program has all, and makes what they describe."""
    config, names = BASES[base]
    values = list(VALUES)
    trials = [
        look(config, name, value, build=False) for number, name in enumerate(names) for value in values[number % 4 :: 4]
    ]
    assert len(trials) > len(names)
    assert {trial.option for trial in trials if trial.value in ("nan", "inf") and not trial.said} == set()
    assert [trial for trial in trials if trial.fault] == []
