"""Saved states: arrays by name, those of a part under its prefix."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

_BETWEEN_RESTS = 50
_READS = threading.Lock()

ArrayState = Mapping[str, npt.NDArray[Any]]
"""A saved state: arrays by name."""


def loaded(state: bytes, *names: str) -> dict[str, npt.NDArray[Any]]:
    """The arrays of what `numpy.savez` gave, all unless some are named. Raises ValueError, KeyError or OSError.

    One at a time, whatever the thread: NumPy has Python parse the head of each, and of two that are parsed at once
    releases of Python 3.11 may fail one with a SystemError (https://github.com/python/cpython/issues/106905).
    """
    arrays = {}
    with np.load(io.BytesIO(state), allow_pickle=False) as archive:
        for name in names or archive.files:
            with _READS:
                arrays[name] = archive[name]
    return arrays


def prefixed(prefix: str, state: ArrayState) -> dict[str, npt.NDArray[Any]]:
    """The state of a part as its whole has it, for `part_of` to find."""
    return {f"{prefix} {name}": array for name, array in state.items()}


def part_of(state: ArrayState, prefix: str) -> dict[str, npt.NDArray[Any]]:
    """What the whole has under names with this prefix."""
    start = f"{prefix} "
    return {name.removeprefix(start): array for name, array in state.items() if name.startswith(start)}


def json_array(value: Any, rest: Callable[[], object] = lambda: None) -> npt.NDArray[np.uint8]:
    """What JSON takes, as an array of the bytes of its text; an iterator is taken as a list.

    The elements of a list are encoded one by one: one call for tens of thousands of decisions would keep the
    interpreter from all other threads for half a second. `rest` is called after some of them, again and again.
    """
    return np.frombuffer("".join(_texts(value, rest)).encode(), dtype=np.uint8)


def _texts(value: Any, rest: Callable[[], object]) -> Iterator[str]:
    """The parts of what `json.dumps` gives."""
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        separator = ""
        yield "{"
        for name, each in value.items():
            yield f"{separator}{json.dumps(name)}: "
            yield from _texts(each, rest)
            separator = ", "
        yield "}"
    elif isinstance(value, list | Iterator):
        texts = []
        for each in value:
            texts.append(json.dumps(each))
            if len(texts) % _BETWEEN_RESTS == 0:
                rest()
        yield f"[{', '.join(texts)}]"
    else:
        yield json.dumps(value)
