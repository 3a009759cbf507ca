"""The league that an evaluation ends in, printed: of a file, or of a running server's live log."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import click
from pointsman.v1 import policy_service_pb2 as pb
from pointsman.v1 import policy_service_pb2_grpc as pb_grpc

from policy.confidence import Bounds
from policy.evidence import Metric
from policy.league import Results
from server.cli.remote import DEADLINE_SECONDS, connected, console
from server.evaluate.pairs import pair_grids, pair_notes
from server.evaluate.report import league, notes, values
from server.services.evaluations import bounds_from_proto, results_from_proto


def show_live(target: str, router: str, plot: Path | None, as_json: bool) -> None:
    """Prints the league of a router of a running server. Raises ClickException."""
    with connected(target) as channel:
        request = pb.GetEvaluationRequest(router=f"routers/{router}")
        answer = pb_grpc.PolicyServiceStub(channel).GetEvaluation(request, timeout=DEADLINE_SECONDS)
    found = answer.evaluation
    results = results_from_proto(found)
    show_results(results, bounds_from_proto(found), found.level, as_json)
    if found.live_policy_worse_than and not as_json:
        console().print(f"The live policy is worse than {found.live_policy_worse_than}.", highlight=False)
    if plot:
        plot_results(plot, f"routers/{router}", results)


def show_results(results: Results, bounds: Mapping[Metric, Bounds], level: float, as_json: bool) -> None:
    """Prints the table and what is to be said beside it, or JSON."""
    if as_json:
        click.echo(json.dumps(values(results, level)))
        return
    printer = console()
    printer.print(league(results, level))
    for grid in pair_grids(results.paired, [each.id for each in results.table()], level):
        printer.print(grid)
    for sentence in (*notes(results, bounds), *pair_notes(results.paired)):
        printer.print(sentence, highlight=False)


def plot_results(path: Path, title: str, results: Results) -> None:
    """Writes the picture. Raises UsageError for a file that cannot be one."""
    from server.evaluate.plot import plot_league  # noqa: PLC0415 (Matplotlib is slow to load, and wants a home)

    try:
        plot_league(path, title, results)
    except ValueError as error:
        raise click.UsageError(f"--plot: {error}") from error
