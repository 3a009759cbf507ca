"""pointsman import: takes decisions made elsewhere into a running server's log."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click
import grpc
from pointsman.v1 import registry_service_pb2, registry_service_pb2_grpc, router_service_pb2_grpc

from server.cli.progress import progress
from server.cli.remote import DEADLINE_SECONDS, TARGET_DEFAULT, connected, tls_options
from server.importing.file import read_rows
from server.importing.send import CHANNEL_OPTIONS, Tally, send_rows
from server.json_lines import UnreadableFileError


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--router", default="default", show_default=True, help="The router's id.")
@click.option("--target", default=TARGET_DEFAULT, show_default=True, help="HOST:PORT of the server.")
@tls_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def import_decisions(file: Path, router: str, target: str, as_json: bool) -> None:
    """Take the decisions of FILE, made elsewhere, into a router's log, where they are learned from.

    FILE is JSON lines, gzipped or not, or Parquet (which takes the extra 'parquet'):
    {"prompt": "...", "model": "gpt-4.1", "propensity": 0.2, "reward": 0.9, "cost_usd": 0.002}

    A query is its prompt, or an embedding, or features, with numeric and categorical beside it. What came of
    it: reward, cost_usd, input_tokens, output_tokens, cached_input_tokens, latency_seconds, error. Optional:
    propensity, candidates, incumbent_model, request_id, session_id, time. Taking the same file again changes
    nothing. Exits with 2 if a row was refused; the others are taken.
    """
    tally = Tally()
    name = f"routers/{router}"
    try:
        rows = read_rows(file)
        with connected(target, CHANNEL_OPTIONS) as channel, progress("importing", None) as on_rows:
            registry = registry_service_pb2_grpc.RegistryServiceStub(channel)
            registry.GetRouter(registry_service_pb2.GetRouterRequest(name=name), timeout=DEADLINE_SECONDS)
            try:
                send_rows(rows, router_service_pb2_grpc.RouterServiceStub(channel), name, tally, on_rows)
            except (grpc.RpcError, UnreadableFileError):
                click.echo(f"{tally.recorded:,} rows were taken before this; they will be duplicates", err=True)
                raise
    except UnreadableFileError as error:
        raise click.ClickException(str(error)) from error
    _show(tally, as_json)
    sys.exit(2 if tally.refused else 0)


def _show(tally: Tally, as_json: bool) -> None:
    if as_json:
        values = {"rows": tally.rows, **asdict(tally), "ignored_fields": sorted(tally.ignored_fields)}
        click.echo(json.dumps(values))
        return
    click.echo(
        f"{tally.rows:,} rows: {tally.recorded:,} taken, {tally.duplicates:,} there already, "
        f"{tally.refused:,} refused"
    )
    for each in tally.refusals:
        click.echo(f"  line {each.line}: {each.code}: {each.message}")
    if tally.refused > len(tally.refusals):
        click.echo(f"  and {tally.refused - len(tally.refusals):,} more")
    if tally.ignored_fields:
        click.echo(f"ignored, since no row has such a field: {', '.join(sorted(tally.ignored_fields))}")
