"""The stand-ins of the benchmark of the gateway, and the part of a file that it plays."""

from __future__ import annotations

import json
from typing import Any

import httpx
import numpy as np
import pytest

from policy.simulation import Outcome
from scripts.gateway.command import _part
from scripts.gateway.providers import JUDGE, Providers
from server.gateway.plan import Answer
from server.gateway.rubric import judge_messages, read_score, shown_answer
from server.replay.file import ReplayFile, ReplayRow


def a_file(rows: int) -> ReplayFile:
    def outcome(quality: float) -> Outcome:
        return Outcome(quality, cost_usd=0.001, input_tokens=10, output_tokens=20)

    content = [
        ReplayRow(f"question {row}", None, {"a/small": outcome(row / rows), "b/large": outcome(0.9)})
        for row in range(rows)
    ]
    return ReplayFile(("a/small", "b/large"), content)


async def say(client: httpx.AsyncClient, model: str, messages: list[dict[str, str]]) -> Any:
    answer = await client.post("/v1/chat/completions", json={"model": model, "messages": messages})
    return answer.json()


@pytest.mark.parametrize("noise", [0.0, 0.2])
async def test_the_judge_says_the_true_quality_of_the_answer_that_it_is_shown_and_its_noise(noise: float) -> None:
    file = a_file(100)
    transport = httpx.ASGITransport(app=Providers(file, noise, seed=3).app())
    async with httpx.AsyncClient(transport=transport, base_url="http://providers") as client:
        errors = []
        for row in range(40, 60):
            answer = await say(client, "a/small", [{"role": "user", "content": f"question {row}"}])
            assert answer["usage"]["cost"] == 0.001
            shown = shown_answer(Answer(answer["choices"][0]["message"]["content"]), 1000)
            verdict = await say(client, JUDGE, judge_messages("Is it right?", f"user: question {row}", shown, "m"))
            score = read_score(verdict["choices"][0]["message"]["content"])
            assert score is not None
            errors.append(score - row / 100)
    if noise:
        assert 0.1 < float(np.std(errors)) < 0.35, json.dumps(errors)
    else:
        assert max(map(abs, errors)) < 1e-9


def test_a_part_is_spread_over_the_file_and_has_no_prompt_twice() -> None:
    file = a_file(100)
    twice = ReplayFile(file.models, [*file.rows, *file.rows])
    assert [row.prompt for row in _part(twice, None).rows] == [row.prompt for row in file.rows]
    assert [row.prompt for row in _part(twice, 4).rows] == [f"question {row}" for row in (0, 25, 50, 75)]
