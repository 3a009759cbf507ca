"""Saved states: arrays by name, those of a part under its prefix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

ArrayState = Mapping[str, npt.NDArray[Any]]
"""A saved state: arrays by name."""


def prefixed(prefix: str, state: ArrayState) -> dict[str, npt.NDArray[Any]]:
    """The state of a part as its whole has it, for `part_of` to find."""
    return {f"{prefix} {name}": array for name, array in state.items()}


def part_of(state: ArrayState, prefix: str) -> dict[str, npt.NDArray[Any]]:
    """What the whole has under names with this prefix."""
    start = f"{prefix} "
    return {name.removeprefix(start): array for name, array in state.items() if name.startswith(start)}
