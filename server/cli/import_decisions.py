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
from server.cli.remote import DEADLINE_SECONDS, connected, target_option, tls_options
from server.importing.send import CHANNEL_OPTIONS, Tally, send_rows
from server.json_lines import UnreadableFileError
from server.rows.file import RowFile


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--router", default="default", show_default=True, help="The router's id.")
@target_option
@tls_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def import_decisions(file: Path, router: str, target: str, as_json: bool) -> None:
    """Take the decisions of FILE, made elsewhere, into a router's log, where they are learned from.

    FILE is JSON lines, gzipped or not, or Parquet (which takes the extra 'parquet'):
    {"prompt": "...", "model": "gpt-4.1", "propensity": 0.2, "reward": 0.9, "cost_usd": 0.002}

    It is the file that pointsman evaluate reads and pointsman replay --log writes; docs/evaluation.md has all
    fields. Taking the same file again changes nothing. Exits with 2 if a row was refused; the others are taken.
    """
    tally = Tally()
    rows = RowFile(file)
    try:
        with connected(target, CHANNEL_OPTIONS) as channel, progress("importing", None) as on_rows:
            registry = registry_service_pb2_grpc.RegistryServiceStub(channel)
            registry.GetRouter(
                registry_service_pb2.GetRouterRequest(name=f"routers/{router}"), timeout=DEADLINE_SECONDS
            )
            try:
                send_rows(rows, router_service_pb2_grpc.RouterServiceStub(channel), router, tally, on_rows)
            except (grpc.RpcError, UnreadableFileError):
                click.echo(f"{tally.recorded:,} rows were taken before this; they will be duplicates", err=True)
                raise
    except UnreadableFileError as error:
        raise click.ClickException(str(error)) from error
    _show(tally, sorted(rows.ignored), as_json)
    sys.exit(2 if tally.refused else 0)


def _show(tally: Tally, ignored: list[str], as_json: bool) -> None:
    if as_json:
        values = {"rows": tally.rows, **asdict(tally), "ignored_fields": ignored}
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
    if ignored:
        click.echo(f"ignored, since no row has such a field: {', '.join(ignored)}")
