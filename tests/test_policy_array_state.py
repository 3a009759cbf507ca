"""States are arrays; what is none is JSON in one."""

from __future__ import annotations

import gc
import io
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.array_state import json_array, loaded
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


@pytest.fixture
def interrupted() -> Iterator[None]:
    """Other threads come in between at every object that is made, as they may at any."""
    thresholds, interval = gc.get_threshold(), sys.getswitchinterval()

    def pause(*_: object) -> None:
        """Gives the others their turn."""

    gc.callbacks.append(pause)
    gc.set_threshold(1)
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)
    gc.set_threshold(*thresholds)
    gc.callbacks.remove(pause)


@pytest.mark.usefixtures("interrupted")
def test_states_are_read_by_several_threads_at_once() -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **{str(number): np.full(3, number) for number in range(20)})
    state = buffer.getvalue()
    with ThreadPoolExecutor(4) as pool:
        for arrays in pool.map(loaded, [state] * 300):
            assert all((array == int(name)).all() for name, array in arrays.items())
    assert list(loaded(state, "3", "1")) == ["3", "1"]
