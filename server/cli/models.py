"""pointsman models: lists, adds, changes and removes models of a running server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from google.protobuf.field_mask_pb2 import FieldMask
from pointsman.v1 import registry_service_pb2 as pb
from pointsman.v1 import registry_service_pb2_grpc as pb_grpc
from rich.table import Table

from server.cli.remote import (
    DEADLINE_SECONDS,
    all_pages,
    connected,
    console,
    print_json,
    target_option,
    tls_options,
)


@click.group()
@target_option
@tls_options
@click.option("--router", default="default", show_default=True, help="The router's id.")
@click.pass_context
def models(context: click.Context, target: str, router: str) -> None:
    """List, add, change and remove models of a running server. A change acts on the next request."""
    context.obj = (target, f"routers/{router}")


@contextmanager
def _stub(target: str) -> Iterator[pb_grpc.RegistryServiceStub]:
    with connected(target) as channel:
        yield pb_grpc.RegistryServiceStub(channel)


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_models(where: tuple[str, str], as_json: bool) -> None:
    """List the models with their prices and what has been learned of them."""
    target, router = where
    with _stub(target) as stub:
        found: list[pb.Model] = all_pages(stub.ListModels, pb.ListModelsRequest(parent=router), "models")
    if as_json:
        print_json(found)
        return
    console().print(_grid(found))


def _grid(found: list[pb.Model]) -> Table:
    grid = Table()
    for heading in (
        "model",
        "state",
        "in $/M",
        "out $/M",
        "decisions",
        "rewards",
        "mean reward",
        "mean cost",
        "explored",
        "for USD",
        "for quality",
    ):
        grid.add_column(heading, justify="left" if heading in {"model", "state"} else "right")
    for each in found:
        learned = each.statistics
        grid.add_row(
            each.name.partition("/models/")[2],
            pb.ModelState.Name(each.state).removeprefix("MODEL_STATE_").lower(),
            f"{each.prices.input_usd_per_million_tokens:g}",
            f"{each.prices.output_usd_per_million_tokens:g}",
            str(learned.decision_count),
            str(learned.reward_count),
            f"{learned.mean_reward:.3f}",
            f"{learned.mean_cost_usd:.3e}",
            str(learned.exploration.decision_count),
            f"{learned.exploration.cost_usd:+.2e}",
            f"{0.0 - learned.exploration.quality:+.2f}",
        )
    return grid


_FIELDS = (
    click.option("--input-price", type=float, help="USD for a million input tokens."),
    click.option("--output-price", type=float, help="USD for a million output tokens."),
    click.option("--cached-input-price", type=float, help="USD for a million input tokens in the cache."),
    click.option("--request-price", type=float, help="USD for every request on top."),
    click.option("--context-window", type=int, help="Tokens that fit; 0 means unknown."),
    click.option("--capability", "capabilities", multiple=True, help="What it can do; may be given often."),
    click.option("--state", type=click.Choice(["active", "disabled"]), help="Whether it may be chosen."),
)


def _with_fields(command: Any) -> Any:
    for option in reversed(_FIELDS):
        command = option(command)
    return command


@models.command()
@click.argument("model")
@_with_fields
@click.pass_obj
def add(where: tuple[str, str], /, model: str, **given: Any) -> None:
    """Add MODEL to the router."""
    target, router = where
    message, _ = _message(given)
    with _stub(target) as stub:
        request = pb.CreateModelRequest(parent=router, model_id=model, model=message)
        click.echo(stub.CreateModel(request, timeout=DEADLINE_SECONDS).model.name)


@models.command()
@click.argument("model")
@_with_fields
@click.pass_obj
def update(where: tuple[str, str], /, model: str, **given: Any) -> None:
    """Change what is given of MODEL; the rest stays."""
    target, router = where
    message, paths = _message(given)
    if not paths:
        raise click.UsageError("nothing to change: give at least one of the options")
    message.name = f"{router}/models/{model}"
    with _stub(target) as stub:
        request = pb.UpdateModelRequest(model=message, update_mask=FieldMask(paths=paths))
        click.echo(stub.UpdateModel(request, timeout=DEADLINE_SECONDS).model.name)


@models.command()
@click.argument("model")
@click.pass_obj
def remove(where: tuple[str, str], model: str) -> None:
    """Remove MODEL; what was learned of the others stays."""
    target, router = where
    with _stub(target) as stub:
        stub.DeleteModel(pb.DeleteModelRequest(name=f"{router}/models/{model}"), timeout=DEADLINE_SECONDS)


def _message(given: dict[str, Any]) -> tuple[pb.Model, list[str]]:
    """The model that the options describe, and the paths of the fields they set."""
    message, paths = pb.Model(), []
    for option, field in (
        ("input_price", "input_usd_per_million_tokens"),
        ("output_price", "output_usd_per_million_tokens"),
        ("request_price", "usd_per_request"),
        ("cached_input_price", "cached_input_usd_per_million_tokens"),
    ):
        if given[option] is not None:
            setattr(message.prices, field, given[option])
            paths.append(f"prices.{field}")
    if given["context_window"] is not None:
        message.context_window_tokens = given["context_window"]
        paths.append("context_window_tokens")
    if given["capabilities"]:
        message.capabilities.extend(given["capabilities"])
        paths.append("capabilities")
    if given["state"]:
        message.state = pb.ModelState.Value(f"MODEL_STATE_{given['state'].upper()}")
        paths.append("state")
    return message, paths
