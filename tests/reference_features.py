"""A text's structure and its embedding's direction in plain Python and NumPy, apart from what is compiled."""

from __future__ import annotations

import math
import re

import numpy as np

from policy.domain import FloatArray

# A letter and its sign, at the beginning or after a space or bracket.
_CHOICE = re.compile(r"[.):](?<=[A-Ea-e].)(?<![^\s(]..)")
# About where an everyday prompt lies.
_CENTRE = np.array([0.7, 0.63, 0.06, 0.04, 0.05, 0.0, 0.3, 0.8, 0.6, 0.2, 0.6, 0.2, 0.6, 0.03, 0.7, 0.16])


def structure(text: str, full_length: int) -> FloatArray:
    """The structure of a text that is not empty, less that of an everyday prompt: (16,)."""
    length = len(text)
    words = len(text.split())
    lines = text.count("\n")
    values = [
        math.log1p(full_length) / 8,
        math.log1p(words) / 6,
        min(1.0, 5 * _count(text, "0123456789") / length),
        min(1.0, 10 * _count(text, "+-*/=<>^\\$%") / length),
        min(1.0, 20 * _count(text, "{}[];_#`|&") / length),
        sum(character > "ɏ" for character in text) / length,
        min(1.0, 20 * lines / length),
        lines > 0,
        "?" in text,
        text.rstrip().endswith("?"),
        min(1.0, len(_CHOICE.findall(text)) / 5),
        min(1.0, 5 * sum(map(str.isupper, text)) / length),
        min(1.0, length / max(words, 1) / 10),
        "code" in text or "def " in text or "function" in text or "```" in text,
        "nswer" in text,
        min(1.0, 30 * text.count(",") / length),
    ]
    return np.array(values, dtype=np.float64) - _CENTRE


def _count(text: str, characters: str) -> int:
    return sum(text.count(each) for each in characters)


def direction(values: FloatArray) -> FloatArray:
    """The values scaled to length 1, zeros as they are; in two steps, so that huge ones do not overflow."""
    largest = np.abs(values).max()
    scaled = values / largest if largest else values
    return np.asarray(scaled / (np.linalg.norm(scaled) or 1.0))
