"""What ``@checked`` refuses and lets pass; the sentences are written out by hand."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, runtime_checkable

import pytest
from pydantic import Field

from squad_lit.system.option import Count, Natural, Positive, Share, Weight, check_arguments, checked

if TYPE_CHECKING:
    from fractions import Fraction


class Opaque(Protocol):
    """Nothing can be compared with it at run time."""


@runtime_checkable
class Part(Protocol):
    """Something that is made elsewhere."""

    def run(self) -> int: ...


@dataclass
class Point:
    """Something that is made elsewhere, and that pydantic could make from a dictionary."""

    x: int


class Everything:
    @checked
    def __init__(
        self,
        positional: Any = None,
        *,
        count: Count = 1,
        natural: Natural = 0,
        share: Share = 0.5,
        weight: Weight = 1.0,
        positive: Positive = 1.0,
        fraction: Annotated[float, Field(gt=0, lt=1)] = 0.5,
        width: Annotated[int, Field(multiple_of=8)] = 8,
        flag: bool = False,
        text: str = "",
        bound: Literal["tanh", "ifsq"] = "tanh",
        maybe: Count | None = None,
        size: Count | Sequence[Count] = 1,
        category: str | Sequence[str] | None = None,
        levels: Sequence[Annotated[int, Field(ge=3)]] = (3,),
        limits: Annotated[Sequence[Share], Field(min_length=2, max_length=2)] = (0, 1),
        area: tuple[float, float] = (0.0, 1.0),
        kinds: Mapping[str, Weight] | None = None,
        groups: Mapping[str, Sequence[Count]] | None = None,
        folder: str | Path = "",
        part: Part | None = None,
        point: Point | None = None,
        opaque: Opaque | None = None,
        later: "Callable[..., Part] | None" = None,
        unknown: "Fraction | None" = None,
        missing: "NoSuchName" = None,  # type: ignore[name-defined]  # noqa: F821
        bare=None,  # type: ignore[no-untyped-def]
        **rest: int,
    ) -> None:
        self.given = {key: value for key, value in locals().items() if key not in ("self", "rest")} | rest
        if width == 64:
            raise ValueError("width: expected no more than the image")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        # Numbers.
        ({"count": 0}, "count: expected at least 1, got 0"),
        ({"count": 2.0}, "count: expected a whole number, got 2.0"),
        ({"count": 2.5}, "count: expected a whole number, got 2.5"),
        ({"count": "2"}, "count: expected a whole number, got '2'"),
        ({"count": True}, "count: expected a whole number, got true"),
        ({"count": None}, "count: expected a whole number, got null"),
        ({"count": [1]}, "count: expected a whole number, got [1]"),
        ({"natural": -1}, "natural: expected at least 0, got -1"),
        ({"share": 1.5}, "share: expected at most 1, got 1.5"),
        ({"share": -0.5}, "share: expected at least 0, got -0.5"),
        ({"share": "0.5"}, "share: expected a number, got '0.5'"),
        ({"share": False}, "share: expected a number, got false"),
        ({"weight": math.nan}, "weight: expected a finite number, got nan"),
        ({"weight": math.inf}, "weight: expected a finite number, got inf"),
        ({"positive": 0}, "positive: expected more than 0, got 0"),
        ({"fraction": 1}, "fraction: expected less than 1, got 1"),
        ({"width": 12}, "width: expected a multiple of 8, got 12"),
        # Texts and choices.
        ({"flag": 1}, "flag: expected true or false, got 1"),
        ({"flag": "yes"}, "flag: expected true or false, got 'yes'"),
        ({"text": 3}, "text: expected a text, got 3"),
        ({"bound": "x"}, "bound: expected tanh or ifsq, got 'x'"),
        # Alternatives.
        ({"maybe": 0}, "maybe: expected at least 1 or null, got 0"),
        ({"maybe": "x"}, "maybe: expected a whole number or null, got 'x'"),
        ({"size": "x"}, "size: expected a whole number or a list, got 'x'"),
        ({"size": [64, "x"]}, "size[1]: expected a whole number, got 'x'"),
        ({"size": [64, 0]}, "size[1]: expected at least 1, got 0"),
        ({"category": 1}, "category: expected a text or a list or null, got 1"),
        ({"category": ["a", None]}, "category[1]: expected a text, got null"),
        # Lists; also one that is written as a tuple.
        ({"levels": [8, 2]}, "levels[1]: expected at least 3, got 2"),
        ({"levels": (8, 2)}, "levels[1]: expected at least 3, got 2"),
        ({"levels": 8}, "levels: expected a list, got 8"),
        ({"levels": "88"}, "levels: expected a list, got '88'"),
        ({"levels": {"a": 8}}, "levels: expected a list, got {'a': 8}"),
        ({"limits": [0.5]}, "limits: expected at least 2 values, got [0.5]"),
        ({"limits": [0, 0.5, 1]}, "limits: expected at most 2 values, got [0, 0.5, 1]"),
        ({"area": (0.0, "x")}, "area[1]: expected a number, got 'x'"),
        ({"area": [0.0, "x"]}, "area[1]: expected a number, got 'x'"),
        ({"area": [0.5]}, "area: expected more values, got [0.5]"),
        ({"area": 1.0}, "area: expected a list, got 1.0"),
        # Dictionaries.
        ({"kinds": {"dent": -1}}, "kinds.dent: expected at least 0, got -1"),
        ({"kinds": {"dent": math.nan}}, "kinds.dent: expected a finite number, got nan"),
        ({"kinds": {1: 1.0}}, "kinds: expected texts as names, got 1"),
        ({"kinds": [1.0]}, "kinds: expected a dictionary or null, got [1.0]"),
        ({"groups": {"low": [4, 0]}}, "groups.low[1]: expected at least 1, got 0"),
        ({"groups": {"low": 4}}, "groups.low: expected a list, got 4"),
        ({"folder": 3}, "folder: expected a text or a path, got 3"),
        # What can only be made: by its class, which _target_ names.
        ({"part": 3}, "part: expected a dictionary with _target_ or null, got 3"),
        ({"point": 3}, "point: expected a dictionary with _target_ or null, got 3"),
        ({"point": {"x": 1}}, "point: expected a dictionary with _target_ or null, got {'x': 1}"),
        ({"later": "x"}, "later: expected a dictionary with _target_ or null, got 'x'"),
    ],
)
def test_what_does_not_fit_is_told_with_its_place(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Everything(**given)


@pytest.mark.parametrize(
    "given",
    [
        {"count": 1, "natural": 0, "share": 1, "weight": 0, "positive": 1e-9, "width": 16},  # whole numbers are numbers
        {"flag": True, "text": "", "bound": "ifsq", "maybe": None, "folder": Path("x")},
        {"size": [2, 3], "category": ["a"], "levels": [3, 4], "limits": (0, 1), "area": [0.0, 1.0]},
        {"size": 2, "category": "a", "levels": (), "area": (0.0, 1.0)},
        {"kinds": {}, "groups": {"low": [4], "high": (8, 16)}},
        {"part": object(), "point": Point(1), "later": print, "levels": range(3)},  # objects pass as they are
        {"unknown": "x", "opaque": "x", "missing": 3, "bare": "x", "other": "x"},  # nothing is known of what they take
    ],
)
def test_what_fits_passes_unchanged(given: dict[str, Any]) -> None:
    found = Everything("first", **given).given
    assert found["positional"] == "first"
    assert all(found[key] is value for key, value in given.items())


def test_defaults_are_the_class_s_own_affair() -> None:
    class Open:
        @checked
        def __init__(self, *, count: Count = 0) -> None:
            self.count = count

    assert Open().count == 0


def test_what_the_constructor_itself_finds_goes_through() -> None:
    with pytest.raises(ValueError, match=r"^width: expected no more than the image$"):
        Everything(width=64)


def test_missing_and_surplus_arguments_are_those_of_python() -> None:
    class Narrow:
        @checked
        def __init__(self, *, count: Count) -> None: ...

    with pytest.raises(TypeError, match="missing a required argument: 'count'"):
        Narrow()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        Narrow(count=1, colour="red")  # type: ignore[call-arg]


def test_a_constructor_keeps_its_name_and_its_documentation() -> None:
    class Documented:
        @checked
        def __init__(self) -> None:
            """Made of nothing."""

    assert Documented.__init__.__doc__ == "Made of nothing."


def test_arguments_of_any_function_can_be_compared_and_other_names_are_left_out() -> None:
    def measure(*, resolution: Literal["map", "original"], bootstrap: Natural = 0) -> None: ...

    check_arguments(measure, {"resolution": "map", "colour": 3})
    with pytest.raises(ValueError, match=r"^bootstrap: expected at least 0, got -1$"):
        check_arguments(measure, {"bootstrap": -1})
