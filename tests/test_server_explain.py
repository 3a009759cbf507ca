"""Why this model, of real servers: the explanation in GetDecision, and what `pointsman explain` prints."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from pointsman.v1 import registry_service_pb2 as registry_pb
from pointsman.v1 import router_service_pb2 as pb
from servers import Running, running_app
from test_server_cli import answered, pointsman, refused

from policy.features import Featuriser
from policy.layout import STRUCTURE_NAMES

QUERIES = ("What is 7 + 5?", "Write a long poem, please, about the sea, the wind and the sun")


@pytest.fixture
async def server(url: str, featuriser: Featuriser) -> AsyncIterator[Running]:
    """A server that has learned that one model is good at everything and the other only at sums."""
    async with running_app(url, featuriser) as running:
        await running.create_models(strong={"prices": (0.0, 0.0, 0.001)}, weak={"prices": (0.0, 0.0, 0.0001)})
        for number in range(60):
            sums = number % 2 == 0
            answer = await running.route(prompt=f"{QUERIES[not sums]} ({number})")
            await running.report(answer, reward=0.9 if sums or answer.model == "strong" else 0.2)
        await running.settled()
        yield running


async def explained(server: Running, **fields: object) -> pb.Decision:
    return await server.decision(await server.route(**{"prompt": QUERIES[1], **fields}))


async def shown(server: Running, decision: pb.Decision, *arguments: str) -> str:
    return await asyncio.to_thread(
        answered, "explain", decision.decision_id, "--target", server.target, *arguments
    )


async def test_the_contributions_sum_to_what_was_predicted(server: Running) -> None:
    decision = await explained(server)
    explanation = decision.explanation
    assert explanation.snapshot
    assert len(explanation.candidates) == len(decision.candidates) == 2
    for candidate, now in zip(decision.candidates, explanation.candidates, strict=True):
        assert (now.model, now.detail) == (candidate.model, "")
        # Nothing was learned in between; only the typical query has moved.
        assert now.predicted_quality == pytest.approx(candidate.predicted_quality)
        assert sum(each.quality for each in now.contributions) == pytest.approx(now.predicted_quality)
        assert [each.feature for each in now.contributions if each.HasField("value")] == list(STRUCTURE_NAMES)


async def test_what_is_learned_later_is_told_from_what_was_predicted_then(server: Running) -> None:
    decision = await explained(server)
    for number in range(20):
        answer = await server.route(
            prompt=f"{QUERIES[1]} ({number})", constraints=pb.Constraints(allowed_models=["strong"])
        )
        await server.report(answer, reward=0.0)
    await server.settled()
    later = await server.decision(pb.RouteResponse(decision_id=decision.decision_id))
    strong = [each.model for each in later.candidates].index("strong")
    now = later.explanation.candidates[strong]
    assert int(later.explanation.snapshot) > int(later.snapshot)
    assert now.predicted_quality < later.candidates[strong].predicted_quality - 0.05
    assert sum(each.quality for each in now.contributions) == pytest.approx(now.predicted_quality)


async def test_the_callers_features_are_one_term(server: Running) -> None:
    for number in range(30):
        tenant = ("acme", "zeta")[number % 2]
        answer = await server.route(prompt="the same", categorical_features={"tenant": tenant})
        await server.report(answer, reward=1.0 if tenant == "acme" else 0.0)
    await server.settled()
    decision = await explained(server, prompt="the same", categorical_features={"tenant": "zeta"})
    terms = {
        each.source
        for candidate in decision.explanation.candidates
        for each in candidate.contributions
        if each.quality
    }
    assert pb.CONTRIBUTION_SOURCE_CALLER in terms


async def test_a_removed_model_has_a_reason_and_the_others_their_terms(server: Running) -> None:
    decision = await explained(server)
    name = "routers/default/models/weak"
    await server.registry.DeleteModel(registry_pb.DeleteModelRequest(name=name))
    later = await server.decision(pb.RouteResponse(decision_id=decision.decision_id))
    found = {each.model: each for each in later.explanation.candidates}
    assert found["weak"].detail == "it was removed since"
    assert not found["weak"].contributions
    assert found["strong"].contributions
    lines = await shown(server, later)
    said = "cannot be told any more: it was removed since" if decision.model == "weak" else "why strong, by"
    assert said in lines


async def test_of_a_deleted_router_the_decision_is_still_shown(server: Running) -> None:
    name = await server.create_router("gone")
    await server.create_models(name, a={})
    answer = await server.route(router=name, prompt="hello")
    await server.registry.DeleteRouter(registry_pb.DeleteRouterRequest(name=name))
    decision = await server.decision(answer)
    assert decision.explanation.snapshot == ""
    assert "routers/gone was deleted since" in await shown(server, decision)


async def test_vowpal_wabbit_is_explained_as_a_whole(server: Running) -> None:
    name = await server.create_router("vw", learner=registry_pb.LEARNER_VOWPAL_WABBIT)
    await server.create_models(name, a={}, b={})
    decision = await server.decision(await server.route(router=name, prompt="hello"))
    for candidate in decision.explanation.candidates:
        assert candidate.contributions[0].source == pb.CONTRIBUTION_SOURCE_WHOLE
    assert "cannot be taken apart" in await shown(server, decision)


async def test_a_person_sees_the_candidates_the_terms_and_the_reports(server: Running) -> None:
    answer = await server.route(prompt=QUERIES[1], session_id="s")
    usage = pb.Usage(input_tokens=8, output_tokens=12, cost_usd=0.002)
    await server.report(answer, reward=0.75, report_id="judge", usage=usage, signals={"thumb": 1.0})
    await server.settled()
    decision = await server.decision(answer)
    lines = await shown(server, decision)
    for word in (
        *(decision.decision_id, "routers/default", "by the draw", f"snapshot {decision.snapshot}"),
        *("price of money", "chosen", "runner-up", "probability", "level", "speaks for it"),
        *("predicted quality, now", "predicted quality, when it was decided", "less its cost", "score"),
        *("reward 0.75", "thumb 1", "8 + 12 tokens", "2.000e-03 USD", "learned as 0.75"),
    ):
        assert word in lines, word
    other = decision.fallback_models[0]
    assert f"why {decision.model} and not {other}, by what is known now" in lines
    # The best that is known: a session does not stay with what was only tried.
    await explained(server, session_id="t", preference=pb.Preference(exploit_only=True))
    again = await explained(server, session_id="t")
    assert "by its session" in await shown(server, again)


async def test_the_two_sums_of_the_terms_table_are_the_qualities(server: Running) -> None:
    decision = await explained(server)
    rows = [line.split("│")[1:-1] for line in (await shown(server, decision)).splitlines() if line.startswith("│")]
    numbers = {row[0].strip(): [float(each) for each in row[2:]] for row in rows if len(row) == 5}
    now = numbers.pop("predicted quality, now")
    ends = ("predicted quality, when it was decided", "less its cost at the price of money")
    then, cost, latency, score = (numbers.pop(each) for each in (*ends, "less its latency at its price", "score"))
    assert [sum(column) for column in zip(*numbers.values(), strict=True)] == pytest.approx(now, abs=0.002)
    accounted = [sum(column) for column in zip(then, cost, latency, strict=True)]
    assert accounted == pytest.approx(score, abs=0.001)


async def test_how_it_was_chosen_is_said(server: Running) -> None:
    best = await explained(server, preference=pb.Preference(exploit_only=True))
    assert "the request wanted no exploration" in await shown(server, best)
    await server.update_router(policy="fixed:strong")
    alone = await explained(server, constraints=pb.Constraints(denied_models=["weak"]))
    lines = await shown(server, alone)
    assert "DENIED: it is among denied_models" in lines
    assert "why strong, by" in lines
    await server.update_router(mode=registry_pb.ROUTER_MODE_SHADOW)
    obeyed = await explained(server, incumbent_model="weak")
    assert "shadow mode; the draw gave strong" in await shown(server, obeyed)


async def test_a_probe_is_told(server: Running) -> None:
    await server.update_router(policy="fixed:strong")
    for _ in range(4):
        await server.report(await server.route(prompt="hello"), error=pb.MODEL_ERROR_TIMEOUT)
    await server.settled()
    async with asyncio.timeout(30):
        while True:
            decision = await explained(server)
            if decision.model == "strong":
                break
            await asyncio.sleep(0.2)
    assert decision.probe
    assert "as the probe of whether it works again" in await shown(server, decision)


async def test_a_program_reads_json(server: Running) -> None:
    decision = await explained(server)
    read = json.loads(await shown(server, decision, "--json"))
    assert (read["decision_id"], read["model"]) == (decision.decision_id, decision.model)
    assert [each["model"] for each in read["explanation"]["candidates"]] == ["strong", "weak"]


async def test_an_unknown_decision_is_one_line_and_exit_code_2(server: Running) -> None:
    done = await asyncio.to_thread(pointsman, "explain", "f" * 32, "--target", server.target)
    refused(done, f"NOT_FOUND: there is no decision '{'f' * 32}'")
