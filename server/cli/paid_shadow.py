"""pointsman paid-shadow: shows and sets how often a router names a second model, and what that has come to."""

from __future__ import annotations

import json
from typing import Any

import click
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import MessageToDict
from pointsman.v1 import registry_service_pb2 as pb
from pointsman.v1 import registry_service_pb2_grpc as pb_grpc
from rich.table import Table

from server.cli.remote import DEADLINE_SECONDS, connected, console, target_option, tls_options


@click.command("paid-shadow")
@click.option("--share", type=float, help="Of decisions that name a second model, in [0, 0.2]; 0 is off.")
@click.option("--max-usd-per-day", type=float, help="The most that second calls may cost on a day, in UTC.")
@click.option("--model", "models", multiple=True, help="Name only this one; may be given several times.")
@click.option("--any-model", is_flag=True, help="Name any of the router's models again.")
@click.option("--router", default="default", show_default=True, help="The router's id.")
@target_option
@tls_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def paid_shadow(
    share: float | None,
    max_usd_per_day: float | None,
    models: tuple[str, ...],
    any_model: bool,
    router: str,
    target: str,
    as_json: bool,
) -> None:
    """Show how often a router names a second model to call, and what that has come to; with options, change it.

    What the pairs say is in `pointsman evaluate --server`.
    """
    if models and any_model:
        raise click.UsageError("give either --model or --any-model")
    given: dict[str, Any] = {"share": share, "max_usd_per_day": max_usd_per_day, "models": models or None}
    fields = {name: value for name, value in given.items() if value is not None}
    paths = [f"paid_shadow.{name}" for name in (*fields, *(("models",) if any_model else ()))]
    with connected(target) as channel:
        stub = pb_grpc.RegistryServiceStub(channel)
        found = _changed(stub, router, fields, paths) if paths else _read(stub, router)
    if as_json:
        click.echo(json.dumps(_values(found)))
        return
    console().print(_grid(found))


def _changed(
    stub: pb_grpc.RegistryServiceStub, router: str, fields: dict[str, Any], paths: list[str]
) -> pb.Router:
    message = pb.Router(name=f"routers/{router}", paid_shadow=pb.PaidShadow(**fields))
    request = pb.UpdateRouterRequest(router=message, update_mask=FieldMask(paths=paths))
    return stub.UpdateRouter(request, timeout=DEADLINE_SECONDS).router


def _read(stub: pb_grpc.RegistryServiceStub, router: str) -> pb.Router:
    return stub.GetRouter(pb.GetRouterRequest(name=f"routers/{router}"), timeout=DEADLINE_SECONDS).router


def _values(router: pb.Router) -> dict[str, object]:
    counted = MessageToDict(
        router.statistics.paid_shadow,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
    )
    setting = router.paid_shadow
    return {
        "router": router.name,
        "share": setting.share,
        "max_usd_per_day": setting.max_usd_per_day,
        "models": list(setting.models),
        **{name: int(value) if name.endswith("_count") else value for name, value in counted.items()},
    }


def _grid(router: pb.Router) -> Table:
    setting, counted = router.paid_shadow, router.statistics.paid_shadow
    grid = Table()
    grid.add_column("")
    grid.add_column(router.name.removeprefix("routers/"), justify="right")
    for name, value in (
        ("share of decisions", f"{setting.share:g}" if setting.share else "0: off"),
        ("USD a day at most", f"{setting.max_usd_per_day:g}"),
        ("second models", ", ".join(setting.models) or "any"),
        ("decisions that might have named one", f"{counted.offer_count:,}"),
        ("that did", f"{counted.call_count:,}"),
        ("that did not, for want of money", f"{counted.capped_count:,}"),
        ("rewards", f"{counted.reward_count:,}"),
        ("costs reported", f"{counted.charged_count:,}"),
        ("nothing reported, window closed", f"{counted.untold_count:,}"),
        ("USD spent", f"{counted.spent_usd:.3e}"),
    ):
        grid.add_row(name, value)
    return grid
