"""The gateway when something fails: a model, a stream, the client, or Pointsman itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest
from openai_calls import QUESTION, chosen, speaking, standing_gateway
from pointsman.v1 import router_service_pb2 as pb
from servers import Running, eventually
from standins import LITELLM_SILENCED, Gate, running_gateway, running_standin

pytestmark = LITELLM_SILENCED


@pytest.fixture
async def gate(server: Running, tmp_path: Path) -> AsyncIterator[Gate]:
    async with standing_gateway(server, tmp_path) as found:
        yield found


@pytest.fixture
async def client(gate: Gate) -> AsyncIterator[openai.AsyncOpenAI]:
    async with speaking(gate) as found:
        yield found


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("mode", "error"), [("500", "UNAVAILABLE"), ("429", "RATE_LIMITED"), ("401", "UNAVAILABLE")]
)
async def test_a_fallback_answers_and_the_failure_is_the_failing_models(
    gate: Gate, client: openai.AsyncOpenAI, mode: str, error: str, stream: bool
) -> None:
    gate.provider.modes["small"] = mode
    allowed = {"x-pointsman-allowed-models": "small,large"}
    headers = await chosen(gate, client, "small", stream, allowed)

    assert headers["x-pointsman-model"] == "large"
    assert headers["x-pointsman-attempts"] == "2"
    decision = await gate.decision(headers["x-pointsman-decision-id"], reports=2)
    first, second = decision.reports
    assert (first.model, pb.ModelError.Name(first.report.error)) == ("small", f"MODEL_ERROR_{error}")
    assert not first.report.HasField("usage")
    assert (second.model, second.report.error, second.report.usage.output_tokens) == ("large", 0, 7)


async def test_a_model_that_does_not_answer_in_time_is_left_for_the_next(
    gate: Gate, client: openai.AsyncOpenAI
) -> None:
    gate.provider.modes["small"] = "stall"
    headers = await chosen(gate, client, "small", False, {"x-pointsman-max-latency": "3s"})

    assert headers["x-pointsman-model"] == "large"
    decision = await gate.decision(headers["x-pointsman-decision-id"], reports=2)
    assert decision.reports[0].report.error == pb.MODEL_ERROR_TIMEOUT
    assert gate.provider.hung_up >= 1


async def test_past_the_deadline_the_client_is_told_so(gate: Gate, client: openai.AsyncOpenAI) -> None:
    gate.provider.modes.update(small="stall", large="stall")
    with pytest.raises(openai.InternalServerError, match=r"no answer within|deadline") as caught:
        await client.chat.completions.create(
            model="pointsman", messages=QUESTION, extra_headers={"x-pointsman-max-latency": "0.2"}
        )
    assert caught.value.status_code == 504
    decision = await gate.decision(caught.value.response.headers["x-pointsman-decision-id"])
    assert not decision.reports, "so short a time says nothing of the models"


async def test_a_stream_that_breaks_before_it_has_said_anything_goes_on_with_another_model(
    gate: Gate, client: openai.AsyncOpenAI
) -> None:
    gate.provider.modes["small"] = "break_begin"
    headers = await chosen(gate, client, "small", True, {})

    assert headers["x-pointsman-model"] == "large"


async def test_a_stream_that_breaks_in_the_middle_ends_with_an_error_and_what_it_used(
    gate: Gate, client: openai.AsyncOpenAI
) -> None:
    gate.provider.modes["small"] = "break_middle"
    raw = await client.chat.completions.with_raw_response.create(
        model="pointsman", messages=QUESTION, stream=True, extra_headers={"x-pointsman-allowed-models": "small"}
    )
    stream = raw.parse()
    said = [(await anext(stream)).choices[0].delta.content for _ in range(3)]
    assert said == ["", "All ", "is "]
    with pytest.raises(openai.APIError, match="small: the answer broke off"):
        await anext(stream)

    decision = await gate.decision(raw.headers["x-pointsman-decision-id"], reports=1)
    (report,) = decision.reports
    assert report.report.error == pb.MODEL_ERROR_UNAVAILABLE
    assert report.report.usage.output_tokens == 2


async def test_a_client_that_hangs_up_has_the_call_ended_and_the_tokens_so_far_reported(
    gate: Gate, client: openai.AsyncOpenAI
) -> None:
    gate.provider.modes.update(small="stall_middle", large="stall_middle")
    raw = await client.chat.completions.with_raw_response.create(model="pointsman", messages=QUESTION, stream=True)
    stream = raw.parse()
    async for chunk in stream:
        if chunk.choices[0].delta.content == "is ":
            break
    await stream.close()

    decision = await gate.decision(raw.headers["x-pointsman-decision-id"], reports=1)
    (report,) = decision.reports
    assert report.report.error == pb.MODEL_ERROR_UNSPECIFIED
    assert report.report.usage.output_tokens == 2
    assert not report.report.HasField("latency")

    async def ended() -> bool:
        return gate.provider.hung_up == 1 and gate.gateway._door.inside == 0

    await eventually(ended)
    assert gate.gateway._door.bytes_held == 0


async def test_a_bad_request_is_the_clients_and_not_the_models(gate: Gate, client: openai.AsyncOpenAI) -> None:
    gate.provider.modes.update(small="400", large="400")
    with pytest.raises(openai.BadRequestError, match="the provider says 400") as caught:
        await client.chat.completions.create(model="pointsman", messages=QUESTION)

    decision = await gate.decision(caught.value.response.headers["x-pointsman-decision-id"])
    assert not decision.reports
    assert len(gate.provider.calls) == 1


async def test_without_pointsman_the_default_model_serves_and_says_so(server: Running, tmp_path: Path) -> None:
    async with (
        running_standin() as provider,
        running_gateway(server, provider, tmp_path, target="127.0.0.1:1") as gate,
        openai.AsyncOpenAI(base_url=f"{gate.url}/v1", api_key="unused", max_retries=0) as client,
    ):
        raw = await client.chat.completions.with_raw_response.create(model="pointsman", messages=QUESTION)
        assert (raw.parse().model, raw.headers["x-pointsman-away"]) == ("large", "UNAVAILABLE")
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(
                model="pointsman", messages=QUESTION, metadata={"denied_models": "large"}
            )
        assert caught.value.code == "pointsman_away"
