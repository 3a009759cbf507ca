"""Writes numbers and tables in Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; all columns but the first are right-aligned."""
    rule = ["---", *("---:" for _ in heads[1:])]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (heads, rule, *rows))


def number(value: float, digits: int = 4) -> str:
    """A number, or nothing for NaN."""
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def signed(value: float) -> str:
    """A number with its sign, or nothing for NaN."""
    return "" if math.isnan(value) else f"{value:+.4f}"


def percent(value: float) -> str:
    """A share in percent, or nothing for NaN."""
    return "" if math.isnan(value) else f"{value:.2%}"
