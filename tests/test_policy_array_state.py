"""States are arrays; what is none is JSON in one."""

from __future__ import annotations

import json
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from policy.array_state import json_array
from policy.evidence import Metric

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(Metric),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=30,
)


@given(plain)
def test_the_text_is_what_json_gives_in_one_call(value: object) -> None:
    assert json_array(value).tobytes().decode() == json.dumps(value)


def test_many_elements_leave_time_for_others_in_between() -> None:
    rests: list[int] = []
    made: list[int] = []

    def values() -> Iterator[int]:
        for number in range(120):
            made.append(number)
            yield number

    text = json_array({"few": [1, 2], "many": values()}, lambda: rests.append(len(made))).tobytes()
    assert json.loads(text) == {"few": [1, 2], "many": list(range(120))}
    assert rests == [50, 100]
