"""The text embedding word by word."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from policy.words import WordVectors

WORDS = WordVectors()
_PIECES = (
    "the",
    "internationally",
    " ",
    "  ",
    "\n",
    "\t",
    "▁",
    "<s>",
    "</s>",
    "<",
    "é",
    "中文",
    "😀",
    "def f(x):",
    "x" * 40,
)


@settings(max_examples=400)
@given(
    st.one_of(
        st.lists(st.sampled_from(_PIECES), max_size=30).map("".join),
        st.text(st.characters(exclude_categories=("Cs",)), max_size=300),
    )
)
def test_a_text_taken_word_by_word_has_the_tokens_that_it_has_as_a_whole(text: str) -> None:
    assert WORDS.ids(text).tolist() == (WORDS.ids_of_whole(text) if text else [])


def test_a_word_that_was_seen_before_has_the_same_tokens_again() -> None:
    once = WORDS.ids("Which model answers this?").tolist()
    assert WORDS.ids("Which model answers this?").tolist() == once
