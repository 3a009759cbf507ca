"""Features of a query: the text's embedding, its structure, and what the caller adds."""

from __future__ import annotations

import math
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from policy.domain import (
    DEFAULT_EMBEDDING_DIMENSIONS,
    Features,
    FloatArray,
    InvalidFieldError,
)
from policy.quick import quick
from policy.words import WordVectors

FEATURE_VERSION = "wordllama256-structure16-hashed32-v1"
STRUCTURE = 16
HASHED = 32

_TEXT_HALF = 1000
_CHARACTERS_PER_TOKEN = 4.0
# A letter and its sign, at the beginning or after a space or bracket; the sign is rarer, and looked for first.
_CHOICE = re.compile(r"[.):](?<=[A-Ea-e].)(?<![^\s(]..)")
_CAPITALS = string.ascii_uppercase.encode()
# About where an everyday prompt lies, so that the intercept means an everyday prompt.
_STRUCTURE_CENTRE = np.array(
    [
        0.7,
        0.63,
        0.06,
        0.04,
        0.05,
        0.0,
        0.3,
        0.8,
        0.6,
        0.2,
        0.6,
        0.2,
        0.6,
        0.03,
        0.7,
        0.16,
    ]
)


STRUCTURE_NAMES = (
    "length",
    "words",
    "digits",
    "mathematical_signs",
    "code_signs",
    "other_scripts",
    "line_breaks",
    "several_lines",
    "question_mark",
    "question_at_end",
    "answer_choices",
    "capitals",
    "word_length",
    "code_words",
    "asks_for_answer",
    "commas",
)
"""What the values of the structure are, in their order."""


@quick
@dataclass(frozen=True, slots=True)
class QueryFeatures:
    """A query's features, and about how many tokens its prompt has.

    `vector` is [embedding | structure (16) | hashed caller features (32) | 1].
    """

    vector: Features
    prompt_tokens: float


class Featuriser:
    """Makes features. Loads the text embedding (WordLlama, from its own wheel) once; needs no network."""

    def __init__(self) -> None:
        self._words = WordVectors()

    def featurise(
        self,
        embedding_dimensions: int,
        prompt: str,
        embedding: Sequence[float] = (),
        numeric: Mapping[str, float] | None = None,
        categorical: Mapping[str, str] | None = None,
    ) -> QueryFeatures:
        """The features of one query.

        The caller's embedding stands for the text's where it is given. Raises InvalidFieldError if
        its length is not `embedding_dimensions`, if it is not finite, or if there is none and the
        text embedding has another length.
        """
        vector = np.zeros(embedding_dimensions + STRUCTURE + HASHED + 1, dtype=np.float32)
        text = _bounded(prompt)
        vector[:embedding_dimensions] = self._embedding(embedding_dimensions, text, embedding)
        after = embedding_dimensions + STRUCTURE
        if text:
            vector[embedding_dimensions:after] = _structure(text, len(prompt)) - _STRUCTURE_CENTRE
        if numeric or categorical:
            vector[after : after + HASHED] = _hashed(numeric or {}, categorical or {})
        vector[-1] = 1.0
        return QueryFeatures(vector, len(prompt) / _CHARACTERS_PER_TOKEN)

    def _embedding(self, size: int, text: str, given: Sequence[float]) -> FloatArray:
        if len(given):
            if len(given) != size:
                raise InvalidFieldError("embedding", f"must have {size} values, not {len(given)}")
            values = np.asarray(given, dtype=np.float64)
            if not np.isfinite(values).all():
                raise InvalidFieldError("embedding", "must have finite values only")
            return _unit(values)
        if size != DEFAULT_EMBEDDING_DIMENSIONS:
            raise InvalidFieldError(
                "embedding",
                f"must have {size} values: the router's features.embedding_dimensions is not the "
                f"text embedding's {DEFAULT_EMBEDDING_DIMENSIONS}",
            )
        # A sum: the mean's direction is all that is kept.
        return _unit(self._words.total(text).astype(np.float64)) if text else np.zeros(size)


def _bounded(prompt: str) -> str:
    """The beginning and the end: what a query asks stands in one of them, and time stays bounded."""
    if len(prompt) <= 2 * _TEXT_HALF:
        return prompt
    return prompt[:_TEXT_HALF] + "\n" + prompt[-_TEXT_HALF:]


def _unit(values: FloatArray) -> FloatArray:
    """The values scaled to length 1; in two steps, so that huge ones do not overflow."""
    largest = float(np.maximum.reduce(np.abs(values)))
    if largest == 0.0:
        return values
    scaled = values / largest
    return np.asarray(scaled / math.sqrt(scaled @ scaled))


def _structure(text: str, full_length: int) -> FloatArray:
    """Cheap signs of what kind of text it is, each about in [0, 1]: (STRUCTURE,)."""
    length = max(len(text), 1)
    words = len(text.split())
    lines = text.count("\n")
    data = text.encode("utf-8", "surrogatepass")
    if text.isascii():
        upper, foreign = _count(data, _CAPITALS), 0
    else:
        upper, foreign = sum(map(str.isupper, text)), sum(character > "ɏ" for character in text)
    return np.array(
        [
            math.log1p(full_length) / 8,
            math.log1p(words) / 6,
            min(1.0, 5 * _count(data, b"0123456789") / length),
            min(1.0, 10 * _count(data, b"+-*/=<>^\\$%") / length),
            min(1.0, 20 * _count(data, b"{}[];_#`|&") / length),
            foreign / length,
            min(1.0, 20 * lines / length),
            lines > 0,
            "?" in text,
            text.rstrip().endswith("?"),
            min(1.0, len(_CHOICE.findall(text)) / 5),
            min(1.0, 5 * upper / length),
            min(1.0, length / max(words, 1) / 10),
            "code" in text or "def " in text or "function" in text or "```" in text,
            "nswer" in text,
            min(1.0, 30 * text.count(",") / length),
        ],
        dtype=np.float64,
    )


def _count(data: bytes, characters: bytes) -> int:
    """How many of these ASCII characters are in a text in UTF-8.

    They are counted by leaving them out: a scan in C, whatever their number.
    """
    return len(data) - len(data.translate(None, characters))


def _hashed(numeric: Mapping[str, float], categorical: Mapping[str, str]) -> FloatArray:
    """The caller's features in a fixed number of slots, by signed hashing (Weinberger et al. 2009)."""
    slots = np.zeros(HASHED)
    for name, value in numeric.items():
        slot, sign = _slot(f"n\0{name}")
        slots[slot] += sign * math.copysign(math.log1p(abs(value)), value)
    for name, text in categorical.items():
        slot, sign = _slot(f"c\0{name}\0{text}")
        slots[slot] += sign
    return slots


def _slot(key: str) -> tuple[int, float]:
    digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=4, person=b"pointsman.slot").digest()
    number = int.from_bytes(digest, "big")
    return (number >> 1) % HASHED, 1.0 if number & 1 else -1.0
