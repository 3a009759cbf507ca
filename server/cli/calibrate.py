"""pointsman calibrate: which threshold calls the strong model for which share of the queries."""

from __future__ import annotations

import json
from dataclasses import asdict

import click
import numpy as np
from rich.table import Table

from policy.calibration import Calibrated, calibrate
from policy.candidates import Threshold
from policy.decide import reconsider
from policy.domain import FloatArray
from policy.learner import StateVersionError
from policy.log import DecisionRecord
from server.cli.loading import load_settings
from server.cli.progress import progress
from server.cli.remote import console
from server.learner_fold import LearnerFold
from server.storage.engine import open_engine
from server.storage.reader import LogReader

_SHARES = (0.1, 0.25, 0.5, 0.75, 0.9)
_SAY_AFTER = 512
_POSITIONS = 1000


@click.command("calibrate")
@click.option("--strong", required=True, help="The dearer model, which is called where it is enough better.")
@click.option("--weak", required=True, help="The model that is called elsewhere.")
@click.option(
    "--share",
    "shares",
    type=click.FloatRange(0.0, 1.0, min_open=True, max_open=True),
    multiple=True,
    help="Share of the queries that the strong model is to get; may be given several times.  [default: "
    + ", ".join(map(str, _SHARES))
    + "]",
)
@click.option(
    "--decisions", default=10_000, show_default=True, type=click.IntRange(1), help="How many of the last."
)
@click.option("--router", default="default", show_default=True, help="The router's id.")
@click.option("--database-url", help="SQLite or PostgreSQL.  [default: sqlite:///pointsman.db]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def calibrate_command(
    strong: str,
    weak: str,
    shares: tuple[float, ...],
    decisions: int,
    router: str,
    database_url: str | None,
    as_json: bool,
) -> None:
    """Find the thresholds on the predicted quality gap at which the STRONG model is called for these shares.

    As RouteLLM's calibrate_threshold does, but by the queries in the router's own log and what it has learned of
    both models. The form in the last column goes to pointsman policies create, or to pointsman evaluate; whether
    such a policy is worth its cost is what these say.
    """
    Threshold(strong, weak, 0.0)
    settings = load_settings({"database_url": database_url} if database_url else {})
    engine = open_engine(settings.database_url, settings.durability, create=False)
    try:
        predictions = _predictions(LogReader(engine), router, (strong, weak), decisions)
    finally:
        engine.dispose()
    found = calibrate(*predictions, shares or _SHARES)
    count = len(predictions[0])
    if as_json:
        rows = [
            {"asked_share": share, **asdict(each)} for share, each in zip(shares or _SHARES, found, strict=True)
        ]
        click.echo(json.dumps({"strong": strong, "weak": weak, "decisions": count, "thresholds": rows}))
        return
    console().print(_table(found, strong, weak))
    click.echo(f"by the last {count:,} decisions of routers/{router} in which both could be chosen")


def _table(found: list[Calibrated], strong: str, weak: str) -> Table:
    table = Table("share of strong", "gap", "predicted quality", "predicted USD", "form", box=None)
    for each in found:
        numbers = f"{each.share:.3f}", f"{each.gap:+.4f}", f"{each.quality:.4f}", f"{each.cost_usd:.3g}"
        table.add_row(*numbers, f"threshold:{strong}:{weak}:{each.gap:.6g}")
    return table


def _predictions(
    reader: LogReader, router_id: str, models: tuple[str, str], limit: int
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Quality of both, then cost of both, in USD: (decisions,). Raises ClickException."""
    learner = _learned(reader).learner(router_id)
    if learner is None:
        raise click.UsageError(f"--router: there is no router {router_id!r}")
    router, view = learner.router, learner.view(reader.head())
    for option, model in zip(("--strong", "--weak"), models, strict=True):
        if model not in {each.id for each in router.models}:
            raise click.UsageError(f"{option}: routers/{router_id} has no model {model!r}")
    rows = []
    with progress("calibrating", None) as on_decisions:
        for number, decision in enumerate(reader.recent(router.uid, limit), 1):
            if len(decision.features) == len(view.typical_features) and _both_could_be(decision, models):
                _, candidates = reconsider(view, router, decision.query, frozenset())
                by_id = {each.model: each for each in candidates}
                strong, weak = (by_id[model] for model in models)
                rows.append((strong.quality, weak.quality, strong.cost_usd, weak.cost_usd))
            if number % _SAY_AFTER == 0:
                on_decisions(_SAY_AFTER)
    columns = np.array(rows, dtype=np.float64).reshape(-1, 4).T
    return columns[0], columns[1], columns[2], columns[3]


def _learned(reader: LogReader) -> LearnerFold:
    """What a server knows by the end of the log: its last snapshots, and what has come since."""
    try:
        fold = LearnerFold(reader, reader.latest_snapshots())
    except StateVersionError as error:
        raise click.ClickException(
            "the snapshots are another version's: start this version's server once"
        ) from error
    head = reader.head()
    with progress("learning", None) as on_positions:
        while fold.seq < head:
            on_positions(fold.advance(_POSITIONS, head))
    return fold


def _both_could_be(decision: DecisionRecord, models: tuple[str, str]) -> bool:
    """An imported decision may have been told without its candidates."""
    known = {each.model: each.exclusion is None for each in decision.choice.candidates}
    return all(known.get(model, decision.choice.imported) for model in models)
