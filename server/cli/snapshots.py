"""pointsman snapshots: lists, exports, imports and restores what a running server's learner knows."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from pathlib import Path

import click
from pointsman.v1 import policy_service_pb2 as pb
from pointsman.v1 import policy_service_pb2_grpc as pb_grpc
from rich.table import Table

from server.cli.remote import all_pages, connected, console, print_json, target_option, tls_options

_CHUNK_BYTES = 1 << 20
_DEADLINE_SECONDS = 120.0


@click.group()
@target_option
@tls_options
@click.option("--router", default="default", show_default=True, help="The router's id.")
@click.pass_context
def snapshots(context: click.Context, target: str, router: str) -> None:
    """List, export, import and restore snapshots of what a running server has learned."""
    context.obj = (target, f"routers/{router}")


@snapshots.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_snapshots(where: tuple[str, str], as_json: bool) -> None:
    """List the snapshots, the oldest first."""
    target, router = where
    request = pb.ListSnapshotsRequest(parent=router)
    with connected(target) as channel:
        ask = pb_grpc.PolicyServiceStub(channel).ListSnapshots
        found: list[pb.Snapshot] = all_pages(ask, request, "snapshots", _DEADLINE_SECONDS)
    if as_json:
        print_json(found)
        return
    grid = Table()
    for heading in ("snapshot", "saved", "bytes", "imported from"):
        grid.add_column(heading)
    for each in found:
        saved = each.create_time.ToDatetime().isoformat(" ", "seconds")
        grid.add_row(each.name.partition("/snapshots/")[2], saved, f"{each.size_bytes:,}", each.source)
    console().print(grid)


@snapshots.command("export")
@click.argument("snapshot")
@click.argument("file", type=click.Path(path_type=Path))
@click.pass_obj
def export_snapshot(where: tuple[str, str], snapshot: str, file: Path) -> None:
    """Write SNAPSHOT to FILE: what was learned of the models, and no query, price or books."""
    target, router = where
    request = pb.ExportSnapshotRequest(name=f"{router}/snapshots/{snapshot}")
    part = file.with_name(f"{file.name}.part")
    try:
        with connected(target) as channel, part.open("wb") as out:
            for each in pb_grpc.PolicyServiceStub(channel).ExportSnapshot(request, timeout=_DEADLINE_SECONDS):
                out.write(each.chunk)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    click.echo(f"{file}: {file.stat().st_size:,} bytes")


@snapshots.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.pass_obj
def import_snapshot(where: tuple[str, str], file: Path) -> None:
    """Add FILE, which was exported, to the router's snapshots. It changes nothing before it is restored."""
    target, router = where

    def parts() -> Iterator[pb.ImportSnapshotRequest]:
        with file.open("rb") as given:
            yield pb.ImportSnapshotRequest(parent=router)
            while chunk := given.read(_CHUNK_BYTES):
                yield pb.ImportSnapshotRequest(chunk=chunk)

    with connected(target) as channel:
        stub = pb_grpc.PolicyServiceStub(channel)
        click.echo(stub.ImportSnapshot(parts(), timeout=_DEADLINE_SECONDS).snapshot.name)


@snapshots.command("restore")
@click.argument("snapshot")
@click.option("--reason", default="", help="Why, for the record.")
@click.pass_obj
def restore_snapshot(where: tuple[str, str], snapshot: str, reason: str) -> None:
    """Go back to SNAPSHOT: what is known of the models is what was known then. Money spent stays spent."""
    target, router = where
    name = f"{router}/snapshots/{snapshot}"
    request = pb.RestoreSnapshotRequest(name=name, reason=reason, actor=getpass.getuser())
    with connected(target) as channel:
        answer = pb_grpc.PolicyServiceStub(channel).RestoreSnapshot(request, timeout=_DEADLINE_SECONDS)
    new = f"; these begin anew: {', '.join(answer.new_models)}" if answer.new_models else ""
    click.echo(f"{name} is restored, with what it knows of {', '.join(answer.known_models)}{new}")
