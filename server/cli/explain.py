"""pointsman explain: shows why a decision of a running server fell as it did."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import click
from google.protobuf.json_format import MessageToDict
from pointsman.v1 import router_service_pb2 as pb
from pointsman.v1 import router_service_pb2_grpc as pb_grpc
from rich.table import Table
from rich.text import Text

from policy.choices import IMPORTED
from server.cli.remote import DEADLINE_SECONDS, connected, console, target_option, tls_options

_SHOWN_FROM = 0.0005
_SOURCES = {
    pb.CONTRIBUTION_SOURCE_LEVEL: "level: on the typical query",
    pb.CONTRIBUTION_SOURCE_DRIFT: "drift: change that was noticed",
    pb.CONTRIBUTION_SOURCE_DIFFICULTY: "difficulty",
    pb.CONTRIBUTION_SOURCE_EMBEDDING: "embedding: what it is about",
    pb.CONTRIBUTION_SOURCE_CALLER: "caller's features",
    pb.CONTRIBUTION_SOURCE_WHOLE: "whole: its learner's cannot be taken apart",
}


@click.command()
@click.argument("decision_id")
@target_option
@tls_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def explain(decision_id: str, target: str, as_json: bool) -> None:
    """Show why DECISION_ID fell as it did: all candidates, and which features spoke for the chosen one."""
    with connected(target) as channel:
        request = pb.GetDecisionRequest(decision_id=decision_id)
        stub = pb_grpc.RouterServiceStub(channel)
        decision = stub.GetDecision(request, timeout=DEADLINE_SECONDS).decision
    if as_json:
        click.echo(json.dumps(MessageToDict(decision, preserving_proto_field_name=True)))
        return
    out = console()
    out.print(_head(decision))
    out.print(_candidates(decision))
    out.print(_why(decision))
    if decision.reports:
        out.print(_reports(decision))


def _head(decision: pb.Decision) -> Table:
    grid = Table.grid(padding=(0, 2))
    rows = [
        ("decision", f"{decision.decision_id} of {decision.router}, {decision.create_time.ToJsonString()}"),
        ("model", decision.model),
        ("chosen", _how(decision)),
        ("propensity", f"{decision.probability:.4g}" if decision.probability else "not known"),
        ("policy", f"{decision.policy}, with snapshot {decision.snapshot}"),
        ("price of money", f"{decision.price_of_money:.4g} of quality per USD"),
        ("reward", f"{decision.reward:.4g}" if decision.HasField("reward") else "none yet"),
        ("cost", f"{decision.cost_usd:.3e} USD" if decision.HasField("cost_usd") else "none reported yet"),
    ]
    if decision.second_model or decision.second_capped:
        rows.append(("second call", _second(decision)))
    if not decision.active:
        rows.append(("active", "no: asked for ahead, and not used so far"))
    for name, value in rows:
        grid.add_row(name, Text(value))
    return grid


def _second(decision: pb.Decision) -> str:
    if decision.second_capped:
        return "none: the day's money for second calls was used up"
    told = [f"{decision.second_model}, named with {decision.second_probability:.4g}"]
    if decision.HasField("second_reward"):
        told.append(f"reward {decision.second_reward:.4g}")
    if decision.HasField("second_cost_usd"):
        told.append(f"cost {decision.second_cost_usd:.3e} USD")
    return ", ".join(told)


def _how(decision: pb.Decision) -> str:
    if decision.policy == IMPORTED:
        return "elsewhere: the decision was imported"
    if decision.proposed_model and decision.model != decision.incumbent_model:
        return f"by the draw instead of {decision.incumbent_model}, the caller's, to explore in shadow mode"
    if decision.proposed_model:
        return f"by the caller, as the router is in shadow mode; the draw gave {decision.proposed_model}"
    if decision.sticky:
        return "by its session, which keeps its model"
    if decision.policy == "exploit_only":
        return "as the best by what was known, since the request wanted no exploration"
    how = "by the draw"
    if decision.probe:
        how += ", as the probe of whether it works again"
    scores = {each.model: each.score for each in decision.candidates if not each.exclusion}
    best = max(scores, key=lambda model: scores[model])
    return f"{how}, to explore: {best} had the best score" if scores[best] > scores[decision.model] else how


def _runner_up(decision: pb.Decision) -> str:
    """The best of the others that might have been chosen; empty if there was none."""
    return decision.fallback_models[0] if decision.fallback_models else ""


def _candidates(decision: pb.Decision) -> Table:
    grid = Table(title="candidates, as the decision saw them", title_justify="left")
    for heading in ("", "model", "probability", "quality", "cost, USD", "latency, s", "score", "excluded"):
        grid.add_column(heading, justify="left" if heading in {"", "model", "excluded"} else "right")
    places = {_runner_up(decision): "runner-up", decision.model: "chosen"}
    for each in decision.candidates:
        excluded = pb.Exclusion.Name(each.exclusion).removeprefix("EXCLUSION_") if each.exclusion else ""
        grid.add_row(
            places.get(each.model, ""),
            each.model,
            f"{each.probability:.4f}",
            f"{each.predicted_quality:.4f}",
            f"{each.predicted_cost_usd:.3e}",
            f"{each.predicted_latency_seconds:.2f}",
            f"{each.score:.4f}",
            Text(f"{excluded}: {each.exclusion_detail}" if excluded else ""),
            style="bold" if each.model == decision.model else None,
        )
    return grid


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of the table of terms: `values` (models,), and what they differ by if there are two."""

    name: str
    values: tuple[float, ...]
    query: str = ""

    @property
    def speaks(self) -> float:
        """By how much it speaks for the first model: against the second, if there is one."""
        return self.values[0] - sum(self.values[1:])


def _why(decision: pb.Decision) -> Table | Text:
    """The terms of the chosen model beside the runner-up's, the ones that differ most first."""
    found = {each.model: each for each in decision.explanation.candidates}
    nothing = pb.CandidateExplanation(detail="the server says nothing of it")  # It is older than this command.
    chosen, other = found.get(decision.model, nothing), found.get(_runner_up(decision))
    if not chosen.contributions:
        return Text(f"which features spoke for {decision.model} cannot be told any more: {chosen.detail}")
    pair = [chosen, other] if other is not None and other.contributions else [chosen]
    terms = sorted(_terms(pair), key=lambda row: -abs(row.speaks))
    large = [row for row in terms if max(map(abs, row.values)) >= _SHOWN_FROM]
    small = [row for row in terms if row not in large]
    grid = _why_grid(decision, [each.model for each in pair])
    for row in large:
        _add(grid, row)
    if small:
        sums = tuple(map(sum, zip(*(row.values for row in small), strict=True)))
        _add(grid, _Row(f"the other {len(small)}", sums))
    grid.add_section()
    for row in _account(decision, pair):
        _add(grid, row)
    return grid


def _why_grid(decision: pb.Decision, models: Sequence[str]) -> Table:
    snapshot = decision.explanation.snapshot
    known = (
        "by the snapshot that decided"
        if snapshot == decision.snapshot
        else f"by what is known now, snapshot {snapshot}"
    )
    against = f" and not {models[1]}" if len(models) > 1 else ""
    grid = Table(title=f"why {models[0]}{against}, {known}", title_justify="left")
    grid.add_column("part of the predicted quality")
    for heading in ("above typical", *models, *(("speaks for it",) if against else ())):
        grid.add_column(heading, justify="right")
    return grid


def _add(grid: Table, row: _Row) -> None:
    numbers = (*row.values, row.speaks) if len(row.values) > 1 else row.values
    # What rounds to 0 has no sign.
    grid.add_row(row.name, row.query, *(f"{round(number, 4) + 0.0:+.4f}" for number in numbers))


def _terms(pair: Sequence[pb.CandidateExplanation]) -> list[_Row]:
    return [
        _Row(
            _SOURCES.get(terms[0].source, terms[0].feature.replace("_", " ")),
            tuple(each.quality for each in terms),
            f"{terms[0].value:+.2f}" if terms[0].HasField("value") else "",
        )
        for terms in zip(*(each.contributions for each in pair), strict=True)
    ]


def _account(decision: pb.Decision, pair: Sequence[pb.CandidateExplanation]) -> list[_Row]:
    """From the predicted quality to the score that the draw was made on."""
    by_model = {each.model: each for each in decision.candidates}
    seen = [by_model[each.model] for each in pair]
    costs = tuple(decision.price_of_money * each.predicted_cost_usd for each in seen)
    latencies = tuple(each.predicted_quality - cost - each.score for each, cost in zip(seen, costs, strict=True))
    return [
        _Row("predicted quality, now", tuple(each.predicted_quality for each in pair)),
        _Row("predicted quality, when it was decided", tuple(each.predicted_quality for each in seen)),
        _Row("less its cost at the price of money", tuple(-cost for cost in costs)),
        _Row("less its latency at its price", tuple(-latency for latency in latencies)),
        _Row("score", tuple(each.score for each in seen)),
    ]


def _reports(decision: pb.Decision) -> Table:
    grid = Table(title="reports", title_justify="left")
    for heading in ("at", "of", "said"):
        grid.add_column(heading)
    for each in decision.reports:
        grid.add_row(each.create_time.ToJsonString(), each.model, Text(_said(each)))
    return grid


def _said(stored: pb.Report) -> str:
    report = stored.report
    parts = ["on the second call"] if report.second else []
    parts += [f"reward {report.reward:.4g}"] if report.HasField("reward") else []
    parts += [f"{name} {value:.4g}" for name, value in sorted(report.signals.items())]
    if report.usage.input_tokens or report.usage.output_tokens:
        parts.append(f"{report.usage.input_tokens} + {report.usage.output_tokens} tokens")
    if report.usage.HasField("cost_usd"):
        parts.append(f"{report.usage.cost_usd:.3e} USD")
    if report.HasField("latency"):
        parts.append(f"{report.latency.ToNanoseconds() * 1e-9:.2f} s")
    if report.error:
        parts.append(pb.ModelError.Name(report.error).removeprefix("MODEL_ERROR_"))
    if stored.HasField("learned_reward"):
        parts.append(f"learned as {stored.learned_reward:.4g}")
    if stored.late:
        parts.append("late")
    return ", ".join(parts)
