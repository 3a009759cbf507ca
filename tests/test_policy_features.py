"""Features: the embedding, the text's structure, and what the caller adds."""

from __future__ import annotations

import math
import socket

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference_features import direction, structure

from policy.domain import InvalidFieldError
from policy.features import Featuriser
from policy.layout import HASHED, STRUCTURE, STRUCTURE_NAMES
from policy.words import WordVectors

SIZE = 256
FEATURISER = Featuriser()
WORDS = WordVectors()
STRUCTURE_OF = slice(SIZE, SIZE + STRUCTURE)
HASHED_OF = slice(SIZE + STRUCTURE, SIZE + STRUCTURE + HASHED)


def embedding(text: str) -> np.ndarray:
    return FEATURISER.featurise(SIZE, text).vector[:SIZE]


def test_features_are_the_embedding_the_structure_the_callers_and_an_intercept() -> None:
    vector = FEATURISER.featurise(SIZE, "What is the capital of France?").vector
    assert vector.shape == (SIZE + STRUCTURE + HASHED + 1,)
    assert vector.dtype == np.float32
    assert vector[-1] == 1.0


def test_the_same_query_has_the_same_features_to_the_bit_from_another_featuriser_too() -> None:
    once = FEATURISER.featurise(SIZE, "Sort a list", (), {"n": 3.0}, {"tier": "gold"}).vector
    again = Featuriser().featurise(SIZE, "Sort a list", (), {"n": 3.0}, {"tier": "gold"}).vector
    assert once.tobytes() == again.tobytes()


def test_loading_the_embedding_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert Featuriser().featurise(SIZE, "offline").vector[:SIZE].any()


def test_texts_of_one_matter_lie_nearer_than_texts_of_another() -> None:
    bread, loaf, code = map(
        embedding, ("How do I bake bread?", "A recipe for a loaf", "Fix this Python TypeError in my loop")
    )
    assert bread @ loaf > bread @ code


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=3000))
def test_any_text_has_finite_features_and_an_embedding_of_length_1_or_0(text: str) -> None:
    found = FEATURISER.featurise(SIZE, text)
    assert np.isfinite(found.vector).all()
    length = float(np.linalg.norm(found.vector[:SIZE]))
    assert length == 0.0 or length == pytest.approx(1.0, abs=1e-5)
    assert np.abs(found.vector[STRUCTURE_OF]).max() < 3.0


@given(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=2500))
def test_a_texts_features_are_those_of_the_reference(text: str) -> None:
    found = FEATURISER.featurise(SIZE, text).vector
    read = text if len(text) <= 2000 else text[:1000] + "\n" + text[-1000:]
    total = WORDS.vectors[WORDS.ids(read)].sum(axis=0, dtype=np.float64)
    assert found[:SIZE] == pytest.approx(direction(total), abs=2e-6)
    assert found[STRUCTURE_OF] == pytest.approx(structure(read, len(text)), rel=0, abs=1.2e-7)


@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=300))
def test_a_callers_embedding_is_scaled_as_by_the_reference(values: list[float]) -> None:
    found = FEATURISER.featurise(len(values), "", values).vector[: len(values)]
    assert found == pytest.approx(direction(np.array(values)), abs=1e-6)


def test_an_empty_prompt_has_an_intercept_and_nothing_else() -> None:
    found = FEATURISER.featurise(SIZE, "")
    assert np.flatnonzero(found.vector).tolist() == [len(found.vector) - 1]
    assert found.prompt_tokens == 0.0


def test_a_longer_prompt_is_estimated_to_have_more_tokens() -> None:
    short, long = (FEATURISER.featurise(SIZE, "word " * count).prompt_tokens for count in (10, 1000))
    assert 5 < short < 30
    assert long == pytest.approx(100 * short)


def test_the_middle_of_a_very_long_prompt_is_not_read_but_both_ends_are() -> None:
    def found(start: str, middle: str, end: str) -> bytes:
        text = start + "x " * 3000 + middle + "y " * 3000 + end
        return FEATURISER.featurise(SIZE, text).vector.tobytes()

    plain = found("abc", "mmm", "xyz")
    assert found("abc", "MMM", "xyz") == plain
    assert found("def", "mmm", "xyz") != plain
    assert found("abc", "mmm", "uvw") != plain


@pytest.mark.parametrize(
    ("one", "other"),
    [("plain words here", "pl41n w0rds h3r3"), ("a question", "a question?"), ("text", "текст"), ("a b", "a\nb")],
)
def test_digits_questions_scripts_and_lines_show_in_the_structure(one: str, other: str) -> None:
    first, second = (FEATURISER.featurise(SIZE, text).vector[STRUCTURE_OF] for text in (one, other))
    assert not np.array_equal(first, second)


def test_the_callers_own_embedding_stands_for_the_texts_and_is_made_of_length_1() -> None:
    vector = FEATURISER.featurise(3, "some text", (3.0, 0.0, -4.0)).vector
    assert vector[:3] == pytest.approx([0.6, 0.0, -0.8])
    with_text = FEATURISER.featurise(SIZE, "some text").vector
    assert np.array_equal(vector[3:], with_text[SIZE:])


@pytest.mark.parametrize(
    ("name", "without", "having"),
    [
        ("length", "word", "a longer word"),
        ("words", "abcdefg", "ab cd e"),
        ("digits", "abc", "a1c"),
        ("mathematical_signs", "a b", "a=b"),
        ("code_signs", "a b", "a;b"),
        ("other_scripts", "word", "слово"),
        ("line_breaks", "a b", "a\nb"),
        ("several_lines", "a b", "a\nb"),
        ("question_mark", "so", "so? yes"),
        ("question_at_end", "so? yes", "yes, so?"),
        ("answer_choices", "this or that", "A. this B. that"),
        ("capitals", "word", "WORD"),
        ("word_length", "a b c d", "abcdefg"),
        ("code_words", "a word", "a function"),
        ("asks_for_answer", "a reply", "an answer"),
        ("commas", "a b", "a, b"),
    ],
)
def test_each_structure_feature_is_what_its_name_says(name: str, without: str, having: str) -> None:
    place = SIZE + STRUCTURE_NAMES.index(name)
    assert FEATURISER.featurise(SIZE, having).vector[place] > FEATURISER.featurise(SIZE, without).vector[place]


def test_every_structure_feature_has_a_name() -> None:
    assert len(set(STRUCTURE_NAMES)) == STRUCTURE


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
def test_an_embedding_of_any_magnitude_keeps_its_direction(scale: float) -> None:
    vector = FEATURISER.featurise(2, "", (3 * scale, 4 * scale)).vector
    assert vector[:2] == pytest.approx([0.6, 0.8])


def test_an_embedding_of_zeros_stays_zeros() -> None:
    assert not FEATURISER.featurise(2, "", (0.0, 0.0)).vector[:2].any()


@pytest.mark.parametrize("given_embedding", [(1.0,), (1.0, 2.0, 3.0), (1.0, math.nan), (math.inf, 1.0)])
def test_an_embedding_of_another_length_or_not_finite_is_refused(given_embedding: tuple[float, ...]) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        FEATURISER.featurise(2, "text", given_embedding)
    assert caught.value.field == "embedding"


def test_a_router_with_dimensions_of_its_own_needs_the_callers_embedding() -> None:
    with pytest.raises(InvalidFieldError, match="must have 2 values"):
        FEATURISER.featurise(2, "text")


def hashed(numeric: dict[str, float] | None = None, categorical: dict[str, str] | None = None) -> np.ndarray:
    return FEATURISER.featurise(1, "", (1.0,), numeric, categorical).vector[1 + STRUCTURE : -1]


def test_a_numeric_feature_tells_its_sign_and_size() -> None:
    small, large, minus = (hashed({"age": value}) for value in (1.0, 1000.0, -1.0))
    assert np.array_equal(minus, -small)
    assert np.flatnonzero(large).tolist() == np.flatnonzero(small).tolist()
    assert np.abs(large).sum() > np.abs(small).sum()


def test_categories_of_one_name_differ_and_no_feature_depends_on_the_order_told() -> None:
    assert not np.array_equal(hashed(None, {"tier": "gold"}), hashed(None, {"tier": "free"}))
    one = hashed({"x": 1.0, "y": 2.0}, {"p": "q", "r": "s"})
    other = hashed({"y": 2.0, "x": 1.0}, {"r": "s", "p": "q"})
    assert one == pytest.approx(other)


def test_two_features_add_what_each_gives_alone() -> None:
    both = hashed({"x": 3.0}, {"tier": "gold"})
    assert both == pytest.approx(hashed({"x": 3.0}) + hashed(None, {"tier": "gold"}))
