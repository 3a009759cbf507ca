"""pointsman evaluate: what candidate policies would have earned and spent, from a log of decisions."""

from __future__ import annotations

from pathlib import Path

import click

from policy.candidates import CandidateSpec, parse_candidate
from policy.domain import DEFAULT_ROUTER, InvalidFieldError, Objective, Router, RouterSpec
from policy.settlement import Limits
from policy.verdict import Requirements
from server.cli.league import plot_results, show_live, show_results
from server.cli.progress import progress
from server.cli.remote import tls_options
from server.evaluate.candidates_file import read_candidates
from server.json_lines import UnreadableFileError
from server.rows.file import RowFile


@click.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--server", help="HOST:PORT of a running server, to show what it finds on its live log.")
@tls_options
@click.option(
    "--candidate",
    "named",
    multiple=True,
    metavar="NAME=FORM",
    help="fixed:MODEL, uniform, cheapest, dearest, incumbent, greedy, learned, ridge, vowpal_wabbit, or "
    "threshold:STRONG:WEAK:GAP; may be given several times.",
)
@click.option("--candidates", "listed", type=click.Path(path_type=Path), help="YAML file of candidates.")
@click.option("--router", "router_name", help="Which router's decisions, if the file has several.")
@click.option("--budget-usd-per-request", type=float, help="The budget that candidates which learn keep to.")
@click.option("--quality-value-usd", type=float, help="What quality from 0 to 1 is worth on one request.")
@click.option("--margin", default=0.0, show_default=True, help="By how much utility has to be better to pass.")
@click.option("--quality-loss-max", type=float, help="Guardrail: how much quality may be lost.")
@click.option("--cost-factor-max", type=float, help="Guardrail: cost, in multiples of the live policy's.")
@click.option("--latency-factor-max", type=float, help="Guardrail: latency, likewise.")
@click.option("--error-increase-max", type=float, help="Guardrail: how much more often calls may fail.")
@click.option("--cost-max-usd", type=float, help="The most that one call can cost.  [default: from the objective]")
@click.option(
    "--utility-loss-max",
    default=1.0,
    show_default=True,
    help="With a budget alone: the most utility that a call can cost.",
)
@click.option("--level", default=0.95, show_default=True, help="Of all intervals.")
@click.option("--plot", type=click.Path(path_type=Path), help="Write the picture here.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def evaluate(
    file: Path | None,
    server: str | None,
    named: tuple[str, ...],
    listed: Path | None,
    router_name: str | None,
    budget_usd_per_request: float | None,
    quality_value_usd: float | None,
    margin: float,
    quality_loss_max: float | None,
    cost_factor_max: float | None,
    latency_factor_max: float | None,
    error_increase_max: float | None,
    cost_max_usd: float | None,
    utility_loss_max: float,
    level: float,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Evaluate candidate policies on the decisions in FILE, beside each model alone and other plain policies.

    FILE is JSON lines, gzipped or not, or Parquet (which takes the extra 'parquet'), one decision and what came of
    it a row, for instance
    {"prompt": "...", "model": "a", "candidates": {"a": 0.9, "b": 0.1}, "reward": 0.8, "cost_usd": 0.0002};
    pointsman replay --log writes such a file, and pointsman import takes it. With --server in place of FILE, print
    the league of the router's own candidates (pointsman policies) on the live log.
    """
    if (file is None) is (server is None):
        raise click.UsageError("give either FILE or --server")
    if file is None:
        show_live(server or "", router_name or DEFAULT_ROUTER, plot, as_json)
        return
    # Only now: the league of a server is shown without what evaluates.
    from server.evaluate.run import evaluate_rows  # noqa: PLC0415

    requirements = Requirements(
        utility_margin=margin,
        quality_loss_max=quality_loss_max,
        cost_factor_max=cost_factor_max,
        latency_factor_max=latency_factor_max,
        error_increase_max=error_increase_max,
    )
    limits = Limits(cost_max_usd=cost_max_usd, utility_loss_max=utility_loss_max)
    router = Router("log", RouterSpec(objective=Objective(budget_usd_per_request, quality_value_usd)))
    candidates = [*map(_named, named), *(read_candidates(listed) if listed else ())]
    rows = RowFile(file)
    try:
        with progress("evaluating", None) as on_decisions:
            found = evaluate_rows(rows, router, router_name, candidates, requirements, limits, level, on_decisions)
    except UnreadableFileError as error:
        raise click.ClickException(str(error)) from error
    if rows.ignored:
        click.echo(f"ignored, since no row has such a field: {', '.join(sorted(rows.ignored))}", err=True)
    show_results(found.results(), found.bounds, level, as_json)
    if plot:
        plot_results(plot, file.name, found.results())


def _named(argument: str) -> CandidateSpec:
    name, equals, form = argument.partition("=")
    if not equals:
        name = form = argument
    try:
        return parse_candidate(name, form)
    except InvalidFieldError as error:
        raise click.UsageError(f"--candidate {argument}: {error}") from error
