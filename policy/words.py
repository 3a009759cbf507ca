"""The text embedding: WordLlama's token vectors, looked up word by word."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]

_SPACE = "▁"  # How the tokenizer writes a space.
# No token goes on over a space into the next word, or has a line break in it: a text can be taken apart there.
_WORD = re.compile(f"{_SPACE}*[^{_SPACE}\n]+|{_SPACE}+|\n")
_MARKS = ("<s>", "</s>", "<unk>")
_KNOWN_MAX = 1 << 15
_KNOWN_LENGTH_MAX = 32
_ID = np.int64


class _Known(dict[str, bytes]):
    """What `find` has given for the pieces that came up so far: the short ones, and only so many."""

    def __init__(self, find: Callable[[str], bytes]) -> None:
        self._find = find

    def __missing__(self, piece: str) -> bytes:
        found = self._find(piece)
        if len(piece) <= _KNOWN_LENGTH_MAX:
            if len(self) >= _KNOWN_MAX:
                self.clear()
            self[piece] = found
        return found


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
        self.vectors: npt.NDArray[np.float32] = model.embedding
        """(tokens, 256)"""
        self._of_word = _Known(self._tokenized)
        self._of_piece = _Known(self._tokenized_piece)

    def ids(self, text: str) -> Ids:
        """The ids of the text's tokens: (tokens,)."""
        return np.frombuffer(self._packed(text), dtype=_ID)

    def _packed(self, text: str) -> bytes:
        """The ids as numpy reads them, one after another: so there is no number of Python's to be made of each."""
        if not text:
            return b""
        if "<" in text and any(mark in text for mark in _MARKS):
            return _pack(self.ids_of_whole(text))
        if "  " in text or text[0] == " " or _SPACE in text:
            words = _WORD.findall(_SPACE + text.replace(" ", _SPACE))
            return b"".join(map(self._of_word.__getitem__, words))
        # Between single spaces every piece stands for itself, which is found twice as fast.
        pieces = text.replace("\n", " \n").split(" ")
        return b"".join(map(self._of_piece.__getitem__, pieces))

    def ids_of_whole(self, text: str) -> list[int]:
        """As `ids`, but taken as a whole: marks that have a token of their own are found only so."""
        found: list[int] = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids
        return found

    def _tokenized_piece(self, piece: str) -> bytes:
        """Of what stands after a space, or at the beginning of a line with the line break before it."""
        words = _WORD.findall(piece if piece[:1] == "\n" else _SPACE + piece)
        return b"".join(map(self._tokenized, words))

    def _tokenized(self, word: str) -> bytes:
        return _pack([token.id for token in self._word_model.tokenize(word)])


def _pack(ids: list[int]) -> bytes:
    return np.array(ids, dtype=_ID).tobytes()


def _wordllama() -> Any:
    """The package, imported so that it leaves the root logger alone, which is the program's to set up."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    package = import_module("wordllama")
    root.setLevel(level)
    root.handlers[:] = handlers
    return package
