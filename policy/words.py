"""The text embedding: WordLlama's token vectors, looked up word by word."""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_SPACE = "▁"  # How the tokenizer writes a space.
# No token goes on over a space into the next word, or has a line break in it: a text can be taken apart there.
_WORD = re.compile(f"{_SPACE}*[^{_SPACE}\n]+|{_SPACE}+|\n")
_MARKS = ("<s>", "</s>", "<unk>")
_CACHED_WORDS = 1 << 15
_CACHED_LENGTH_MAX = 32


class WordVectors:
    """The vectors of a text's tokens. Loads WordLlama from its own wheel; needs no network.

    The tokenizer takes a text for one long word, and its time grows with it: most of what a decision took. Each
    word by itself gives the same tokens, and the words of everyday texts were seen before.
    """

    def __init__(self) -> None:
        wordllama = _wordllama()
        folder = Path(wordllama.__file__).parent
        model = wordllama.WordLlama.load(cache_dir=folder, disable_download=True)
        model.tokenizer.no_truncation()
        model.tokenizer.no_padding()
        self._tokenizer = model.tokenizer
        self._word_model = model.tokenizer.model
        self._vectors: npt.NDArray[np.float32] = model.embedding  # (tokens, 256)
        self._ids_of_short_word = lru_cache(_CACHED_WORDS)(self._tokenized)
        self._ids_of_short = lru_cache(_CACHED_WORDS)(self._ids_of_parts)

    def total(self, text: str) -> npt.NDArray[np.float32]:
        """The sum of the vectors of the text's tokens: (256,)."""
        tokens = self.ids(text)
        # As a product it is the quickest there is.
        return np.ones(len(tokens), dtype=np.float32) @ self._vectors.take(tokens, axis=0)

    def ids(self, text: str) -> list[int]:
        """The ids of the text's tokens."""
        if not text:
            return []
        if "<" in text and any(mark in text for mark in _MARKS):
            return self.ids_of_whole(text)
        if "  " in text or text[0] == " " or _SPACE in text:
            words = _WORD.findall(_SPACE + text.replace(" ", _SPACE))
            return list(chain.from_iterable(map(self._ids_of_word, words)))
        # Between single spaces every piece stands for itself, which is found twice as fast.
        pieces = text.replace("\n", " \n").split(" ")
        short = max(map(len, pieces)) <= _CACHED_LENGTH_MAX
        return list(chain.from_iterable(map(self._ids_of_short if short else self._ids_of_piece, pieces)))

    def ids_of_whole(self, text: str) -> list[int]:
        """As `ids`, but taken as a whole: marks that have a token of their own are found only so."""
        found: list[int] = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids
        return found

    def _ids_of_piece(self, piece: str) -> tuple[int, ...]:
        """Of what stands after a space, or at the beginning of a line with the line break before it."""
        return self._ids_of_short(piece) if len(piece) <= _CACHED_LENGTH_MAX else self._ids_of_parts(piece)

    def _ids_of_parts(self, piece: str) -> tuple[int, ...]:
        words = _WORD.findall(piece if piece[:1] == "\n" else _SPACE + piece)
        return tuple(chain.from_iterable(map(self._tokenized, words)))

    def _ids_of_word(self, word: str) -> tuple[int, ...]:
        return self._ids_of_short_word(word) if len(word) <= _CACHED_LENGTH_MAX else self._tokenized(word)

    def _tokenized(self, word: str) -> tuple[int, ...]:
        return tuple(token.id for token in self._word_model.tokenize(word))


def _wordllama() -> Any:
    """The package, imported so that it leaves the root logger alone, which is the program's to set up."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    package = import_module("wordllama")
    root.setLevel(level)
    root.handlers[:] = handlers
    return package
