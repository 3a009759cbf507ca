"""The structure of a text: cheap signs of what kind of text it is."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from policy.compiled import compiled
from policy.domain import Features

# About where an everyday prompt lies, so that the intercept means an everyday prompt.
_CENTRE = np.array([0.7, 0.63, 0.06, 0.04, 0.05, 0.0, 0.3, 0.8, 0.6, 0.2, 0.6, 0.2, 0.6, 0.03, 0.7, 0.16])
_LATIN_LAST = ord("ɏ")
# From here on there is no capital and no space.
_NAMED_MAX = 0x20000

(
    _OTHER,
    _DIGIT,
    _MATHEMATICAL,
    _CODE,
    _COMMA,
    _QUESTION,
    _BRACKET,
    _CHOICE_SIGN,
    _CHOICE_LETTER,
    _CHOICE_CAPITAL,
    _CAPITAL,
    _SPACE,
    _LINE_BREAK,
) = range(13)
_KINDS = (
    (_DIGIT, "0123456789"),
    (_MATHEMATICAL, "+-*/=<>^\\$%"),
    (_CODE, "{}[];_#`|&"),
    (_COMMA, ","),
    (_QUESTION, "?"),
    (_BRACKET, "("),
    (_CHOICE_SIGN, ".):"),
    (_CHOICE_LETTER, "abcde"),
    (_CHOICE_CAPITAL, "ABCDE"),
    (_LINE_BREAK, "\n"),
)

_Kinds = npt.NDArray[np.int8]
_Characters = npt.NDArray[np.uint32]


class StructureReader:
    """Reads a text once, character by character. Knows what kind of character each one is."""

    def __init__(self) -> None:
        self._kinds = _kinds()

    def write(self, text: str, full_length: int, vector: Features, place: int) -> None:
        """Writes the structure of a text of so many characters in full into the vector, from `place` on.

        Each value is about in [0, 1], less that of an everyday prompt.
        """
        characters = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        code = "code" in text or "def " in text or "function" in text or "```" in text
        _write(characters, self._kinds, full_length, code, "nswer" in text, vector, place)


def _kinds() -> _Kinds:
    characters = np.arange(_NAMED_MAX, dtype=np.uint32).view("U1")
    kinds = np.full(_NAMED_MAX, _OTHER, dtype=np.int8)
    kinds[np.strings.isupper(characters)] = _CAPITAL
    kinds[np.strings.isspace(characters)] = _SPACE
    for kind, members in _KINDS:
        kinds[[ord(each) for each in members]] = kind
    return kinds


@compiled("void(Array(u4, 1, 'C', True), i1[::1], i8, b1, b1, f4[::1], i8)")
def _write(
    characters: _Characters,
    kinds: _Kinds,
    full_length: int,
    code_words: bool,
    asks_for_answer: bool,
    vector: Features,
    place: int,
) -> None:
    length = len(characters)
    counts = np.zeros(_LINE_BREAK + 1, dtype=np.int64)
    words = foreign = choices = 0
    last = before = previous = _SPACE  # The last that is no space; the two before the one that is read.
    for index in range(length):
        character = characters[index]
        kind = int(kinds[character]) if character < len(kinds) else _OTHER
        counts[kind] += 1
        foreign += character > _LATIN_LAST
        if kind < _SPACE:
            last = kind
            words += previous >= _SPACE
            if kind == _CHOICE_SIGN and previous in (_CHOICE_LETTER, _CHOICE_CAPITAL):
                choices += before >= _SPACE or before == _BRACKET
        before, previous = previous, kind
    values = (
        math.log1p(full_length) / 8,
        math.log1p(words) / 6,
        min(1.0, 5 * counts[_DIGIT] / length),
        min(1.0, 10 * counts[_MATHEMATICAL] / length),
        min(1.0, 20 * counts[_CODE] / length),
        foreign / length,
        min(1.0, 20 * counts[_LINE_BREAK] / length),
        1.0 if counts[_LINE_BREAK] else 0.0,
        1.0 if counts[_QUESTION] else 0.0,
        1.0 if last == _QUESTION else 0.0,
        min(1.0, choices / 5),
        min(1.0, 5 * (counts[_CAPITAL] + counts[_CHOICE_CAPITAL]) / length),
        min(1.0, length / max(words, 1) / 10),
        1.0 if code_words else 0.0,
        1.0 if asks_for_answer else 0.0,
        min(1.0, 30 * counts[_COMMA] / length),
    )
    for index, value in enumerate(values):
        vector[place + index] = value - _CENTRE[index]
