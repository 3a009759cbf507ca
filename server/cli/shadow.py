"""pointsman shadow: shows what routers proposed beside what their callers' own rules call."""

from __future__ import annotations

import json

import click
from google.protobuf.json_format import MessageToDict
from pointsman.v1 import registry_service_pb2 as pb
from pointsman.v1 import registry_service_pb2_grpc as pb_grpc
from rich.table import Table

from server.cli.remote import DEADLINE_SECONDS, all_pages, connected, console, target_option, tls_options

_NONE = "-"


@click.command()
@click.argument("router", required=False)
@target_option
@tls_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def shadow(router: str | None, target: str, as_json: bool) -> None:
    """Show what ROUTER, or every router, proposed beside the incumbent_model that its callers named."""
    with connected(target) as channel:
        found = _found(pb_grpc.RegistryServiceStub(channel), router)
    if as_json:
        click.echo(json.dumps([_values(each) for each in found]))
        return
    console().print(_grid(found))


def _found(stub: pb_grpc.RegistryServiceStub, router: str | None) -> list[pb.Router]:
    if router is not None:
        request = pb.GetRouterRequest(name=f"routers/{router}")
        return [stub.GetRouter(request, timeout=DEADLINE_SECONDS).router]
    return all_pages(stub.ListRouters, pb.ListRoutersRequest(), "routers")


def _values(router: pb.Router) -> dict[str, object]:
    statistics = MessageToDict(
        router.statistics.shadow,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
    )
    counts = {name: int(value) if name.endswith("_count") else value for name, value in statistics.items()}
    share = router.shadow_explore_share
    return {"router": router.name, "mode": _mode(router), "shadow_explore_share": share, **counts}


def _mode(router: pb.Router) -> str:
    return pb.RouterMode.Name(router.mode).removeprefix("ROUTER_MODE_").lower()


def _grid(routers: list[pb.Router]) -> Table:
    """A column for each router, as there are few of them and much to tell of each."""
    grid = Table(
        caption="unsupported: one of the two could not have been drawn, so no log can tell which is better"
    )
    grid.add_column("")
    for each in routers:
        grid.add_column(each.name.removeprefix("routers/"), justify="right")
    for heading, cells in zip(_HEADINGS, zip(*map(_cells, routers), strict=True), strict=True):
        grid.add_row(heading, *cells)
    return grid


_HEADINGS = (
    "mode",
    "share that explores",
    "decisions with an incumbent",
    "agreed",
    "unsupported",
    "proposed: quality, predicted",
    "incumbent: quality, predicted",
    "incumbent: quality, observed",
    "proposed: USD, predicted",
    "incumbent: USD, predicted",
    "incumbent: USD, observed",
)


def _cells(router: pb.Router) -> tuple[str, ...]:
    told = router.statistics.shadow
    count = told.decision_count

    def share(part: int) -> str:
        return f"{part / count:.1%}" if count else _NONE

    return (
        _mode(router),
        f"{router.shadow_explore_share:g}",
        f"{count:,}",
        share(told.agreement_count),
        share(told.unsupported_count),
        f"{told.proposed_mean_quality:.4f}" if count else _NONE,
        f"{told.incumbent_mean_quality:.4f}" if count else _NONE,
        f"{told.observed_mean_reward:.4f} of {told.observed_reward_count:,}"
        if told.observed_reward_count
        else _NONE,
        f"{told.proposed_mean_cost_usd:.3e}" if count else _NONE,
        f"{told.incumbent_mean_cost_usd:.3e}" if count else _NONE,
        f"{told.observed_mean_cost_usd:.3e} of {told.observed_call_count:,}"
        if told.observed_call_count
        else _NONE,
    )
