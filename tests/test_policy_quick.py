"""Frozen dataclasses made quickly are what they would be otherwise."""

from __future__ import annotations

import inspect
import pickle
from dataclasses import FrozenInstanceError, asdict, dataclass, field, replace
from typing import Any

import pytest

from policy.choices import Candidate, Choice
from policy.log import DecisionRecord
from policy.quick import quick


@dataclass(frozen=True, slots=True)
class Plain:
    first: int
    second: str = "two"
    third: list[int] = field(default_factory=list)


@quick
@dataclass(frozen=True, slots=True)
class Quick:
    first: int
    second: str = "two"
    third: list[int] = field(default_factory=list)


@pytest.mark.parametrize(
    ("values", "named"),
    [((1,), {}), ((1, "b", [3]), {}), ((), {"third": [2], "first": 5}), ((7,), {"second": ""})],
)
def test_it_takes_what_a_dataclass_takes(values: tuple[Any, ...], named: dict[str, Any]) -> None:
    made, plain = Quick(*values, **named), Plain(*values, **named)
    assert asdict(made) == asdict(plain)
    assert repr(made).removeprefix("Quick") == repr(plain).removeprefix("Plain")
    assert made == Quick(*values, **named)
    assert replace(made, first=9) == Quick(9, made.second, made.third)
    assert pickle.loads(pickle.dumps(made)) == made


@pytest.mark.parametrize(
    ("values", "named"), [((), {}), ((1, 2, 3, 4), {}), ((1,), {"fourth": 4}), ((1,), {"first": 1})]
)
def test_it_refuses_what_a_dataclass_refuses(values: tuple[Any, ...], named: dict[str, Any]) -> None:
    for kind in (Plain, Quick):
        with pytest.raises(TypeError, match=f"{kind.__name__}.__init__"):
            kind(*values, **named)


def test_it_is_frozen_and_makes_a_default_anew_each_time() -> None:
    made = Quick(1)
    assert made.third is not Quick(1).third
    with pytest.raises(FrozenInstanceError):
        made.first = 2  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        del made.first  # type: ignore[misc]


@pytest.mark.parametrize("kind", [Candidate, Choice, DecisionRecord])
def test_what_decisions_are_made_of_is_made_so(kind: type[Any]) -> None:
    made = inspect.signature(kind.__init__)
    expected = inspect.signature(kind)
    assert [each for each in made.parameters if each != "self"] == list(expected.parameters)
    assert set(kind.__slots__) == set(expected.parameters)
