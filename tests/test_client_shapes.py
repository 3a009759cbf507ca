"""What the Python client makes of answers and exceptions by their shape alone."""

from __future__ import annotations

from typing import Any

import pytest
from callers import RateLimitError
from pointsman.client import ModelFailure, Usage, model_failure
from pointsman.client.usage import StreamUsage, is_refusal, usage_from


@pytest.mark.parametrize(
    ("response", "usage"),
    [
        ({"usage": {"prompt_tokens": 5, "completion_tokens": 2}}, Usage(5, 2)),
        ({"usage": {"input_tokens": 5, "output_tokens": 2, "cache_read_input_tokens": 100}}, Usage(105, 2, 100)),
        (
            {"usage": {"input_tokens": 5, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 4}}},
            Usage(5, 2, 4),
        ),
        ({"usage": {"total_tokens": 5}}, None),
        ({"usage": None}, None),
        ({"usage": {"prompt_tokens": "five"}}, None),
        ("Paris", None),
        (None, None),
    ],
)
def test_usage_is_told_by_its_shape(response: Any, usage: Usage | None) -> None:
    assert usage_from(response) == usage


def test_the_usage_of_a_stream_is_what_its_parts_said_last() -> None:
    stream = StreamUsage()
    for part in (
        {"message": {"usage": {"input_tokens": 5, "output_tokens": 1, "cache_read_input_tokens": 100}}},
        {"delta": {"text": "Paris"}},
        {"delta": {"stop_reason": "refusal"}, "usage": {"output_tokens": 12, "cache_read_input_tokens": 100}},
    ):
        stream.see(part)
    assert stream.usage == Usage(105, 12, 100)
    assert stream.refused


@pytest.mark.parametrize(
    ("response", "refused"),
    [
        ({"stop_reason": "refusal"}, True),
        ({"choices": [{"finish_reason": "content_filter"}]}, True),
        ({"choices": [{"finish_reason": "stop", "message": {"refusal": "I cannot help with that."}}]}, True),
        ({"choices": [{"finish_reason": "stop", "message": {"refusal": None}}]}, False),
        ({"stop_reason": "end_turn"}, False),
    ],
)
def test_a_refusal_is_told_by_its_shape(response: Any, refused: bool) -> None:
    assert is_refusal(response) is refused


def with_status(status: int, **fields: Any) -> Exception:
    """An exception as the providers' SDKs make them of an HTTP answer."""
    error = Exception()
    vars(error).update(status_code=status, **fields)
    return error


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (with_status(429), "RATE_LIMITED"),
        (with_status(529), "UNAVAILABLE"),
        (with_status(504), "TIMEOUT"),
        (with_status(401), "UNAVAILABLE"),
        (with_status(400), None),
        (with_status(400, code="content_filter"), "REFUSED"),
        (with_status(400, code="context_length_exceeded"), "REFUSED"),
        (ValueError(), None),
        (KeyboardInterrupt(), None),
    ],
)
def test_a_failure_is_told_by_its_shape(error: BaseException, failure: ModelFailure | None) -> None:
    assert model_failure(error) == failure


def test_a_failure_is_found_behind_the_exception_that_was_raised_from_it() -> None:
    wrapped = RuntimeError("the answer did not come")
    wrapped.__cause__ = RateLimitError()
    assert model_failure(wrapped) == "RATE_LIMITED"
