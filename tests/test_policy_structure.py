"""A text's structure as it is read once, against what Python's own methods find."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reference_features import structure

from policy.layout import STRUCTURE_NAMES
from policy.structure import StructureReader

READER = StructureReader()
_PLACE = 3
# Spaces of every kind, what looks like one, and what answer choices, code and questions are told by.
_PIECES = (
    *" \n\r\t\v\f\x1c\x1d\x1e\x1f\x85\xa0\u2003\u2028\u3000",
    *"\0\u200b\ufeff\ud800\udfff\u024f\u0250\u0416\u0436\u4e2d\u01c5\u2167\U0001f170\U0001d400\U0001f600",
    *"AbEFf.)(:?,7$_`Éé",
    *("A.", "(b)", " C: ", "xD)", "? ", "code", "def ", "function", "```", "Answer", "answer", "word"),
)


def read(text: str, full_length: int) -> np.ndarray:
    vector = np.zeros(_PLACE + len(STRUCTURE_NAMES) + 1, dtype=np.float32)
    READER.write(text, full_length, vector, _PLACE)
    assert not vector[:_PLACE].any()
    assert vector[-1] == 0.0
    return vector[_PLACE:-1]


@settings(max_examples=1000)
@given(
    st.one_of(
        st.text(st.characters(), min_size=1, max_size=300),
        st.text(st.characters(max_codepoint=127), min_size=1, max_size=300),
        st.lists(st.sampled_from(_PIECES), min_size=1, max_size=60).map("".join),
    ),
    st.integers(0, 1_000_000),
)
@example("word " * 100_000, 500_000)
@example("A. this B) that C: (d) e", 24)
def test_any_text_has_the_structure_that_pythons_methods_find(text: str, more: int) -> None:
    full_length = len(text) + more
    assert read(text, full_length) == pytest.approx(structure(text, full_length), rel=0, abs=1.2e-7)


def test_capitals_and_spaces_are_those_of_python_in_all_of_unicode() -> None:
    """Between two letters a space shows in the words; above `last` there is neither."""
    words, capitals = (STRUCTURE_NAMES.index(each) for each in ("words", "capitals"))
    plain, spaced, capital = read("xxx", 3), read("x x", 3), read("xXx", 3)
    last = 0x1FFFF
    for point in range(last + 2):
        character = chr(point)
        found = read(f"x{character}x", 3)
        assert found[words] == (spaced if character.isspace() else plain)[words], hex(point)
        assert found[capitals] == (capital if character.isupper() else plain)[capitals], hex(point)
    above = [chr(point) for point in range(last + 1, sys.maxunicode + 1)]
    assert not any(map(str.isspace, above))
    assert not any(map(str.isupper, above))
