"""Features of a query: the text's embedding, its structure, and what the caller adds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from policy.compiled import compiled, part_of_compiled
from policy.domain import (
    DEFAULT_EMBEDDING_DIMENSIONS,
    Features,
    FloatArray,
    InvalidFieldError,
)
from policy.layout import HASHED, STRUCTURE
from policy.quick import quick
from policy.structure import StructureReader
from policy.words import Ids, WordVectors

_TEXT_HALF = 1000
_CHARACTERS_PER_TOKEN = 4.0


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
        self._structure = StructureReader()

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
        self._write_embedding(embedding_dimensions, text, embedding, vector)
        if text:
            self._structure.write(text, len(prompt), vector, embedding_dimensions)
        if numeric or categorical:
            after = embedding_dimensions + STRUCTURE
            vector[after : after + HASHED] = _hashed(numeric or {}, categorical or {})
        vector[-1] = 1.0
        return QueryFeatures(vector, len(prompt) / _CHARACTERS_PER_TOKEN)

    def _write_embedding(self, size: int, text: str, given: Sequence[float], vector: Features) -> None:
        if len(given):
            if len(given) != size:
                raise InvalidFieldError("embedding", f"must have {size} values, not {len(given)}")
            if not _write_direction(np.array(given, dtype=np.float64), vector):
                raise InvalidFieldError("embedding", "must have finite values only")
        elif size == DEFAULT_EMBEDDING_DIMENSIONS:
            _write_direction_of_sum(self._words.vectors, self._words.ids(text), vector)
        else:
            raise InvalidFieldError(
                "embedding",
                f"must have {size} values: the router's features.embedding_dimensions is not the "
                f"text embedding's {DEFAULT_EMBEDDING_DIMENSIONS}",
            )


def _bounded(prompt: str) -> str:
    """The beginning and the end: what a query asks stands in one of them, and time stays bounded."""
    if len(prompt) <= 2 * _TEXT_HALF:
        return prompt
    return prompt[:_TEXT_HALF] + "\n" + prompt[-_TEXT_HALF:]


@part_of_compiled()
def _write_scaled(values: FloatArray, vector: Features) -> None:
    largest = 0.0
    for value in values:
        largest = max(largest, abs(value))
    if largest > 0.0:
        # In two steps, so that huge ones do not overflow.
        square = 0.0
        for value in values:
            square += (value / largest) ** 2
        length = math.sqrt(square)
        for place, value in enumerate(values):
            vector[place] = value / largest / length


@compiled("b1(f8[::1], f4[::1])")
def _write_direction(values: FloatArray, vector: Features) -> bool:
    """Writes the values, scaled to length 1, to where the vector begins. False, of any that are not finite."""
    if not np.isfinite(values).all():
        return False
    _write_scaled(values, vector)
    return True


@compiled("void(f4[:, ::1], Array(i8, 1, 'C', True), f4[::1])")
def _write_direction_of_sum(rows: Features, chosen: Ids, vector: Features) -> None:
    """As `_write_direction`, of the sum of those rows: the mean's direction is all that is kept."""
    total = np.zeros(rows.shape[1], dtype=np.float32)
    for row in chosen:
        for place in range(len(total)):
            total[place] += rows[row, place]
    _write_scaled(total.astype(np.float64), vector)


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
