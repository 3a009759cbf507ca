"""pointsman policies promote and history: a candidate's way to the traffic, and the record of it."""

from __future__ import annotations

import getpass

import click
from pointsman.v1 import policy_service_pb2 as pb
from pointsman.v1 import policy_service_pb2_grpc as pb_grpc
from rich.table import Table

from server.cli.remote import DEADLINE_SECONDS, all_pages, connected, console, print_json

_NEXT = ("canary", "live", "shadow")
_GUARDRAILS = ("quality_loss_max", "cost_factor_max", "latency_factor_max", "error_increase_max")


@click.command()
@click.argument("policy")
@click.option(
    "--to", "state", type=click.Choice(["canary", "live", "shadow"]), required=True, help="Its next state."
)
@click.option("--share", default=0.0, help="A canary's share of the traffic, in (0, 1].")
@click.option("--holdback", default=0.0, help="With --to live: the share that the former policy keeps.")
@click.option("--force", is_flag=True, help="Whatever the verdict is; for the record, say why.")
@click.option("--reason", default="", help="Why, for the record.")
@click.option("--margin", type=float, help="By how much utility has to be better.")
@click.option("--quality-loss-max", type=float, help="Guardrail: how much quality may be lost.")
@click.option("--cost-factor-max", type=float, help="Guardrail: cost, in multiples of the live policy's.")
@click.option("--latency-factor-max", type=float, help="Guardrail: latency, likewise.")
@click.option("--error-increase-max", type=float, help="Guardrail: how much more often calls may fail.")
@click.pass_obj
def promote(
    where: tuple[str, str],
    /,
    policy: str,
    state: str,
    share: float,
    holdback: float,
    force: bool,
    reason: str,
    margin: float | None,
    **guardrails: float | None,
) -> None:
    """Take POLICY to another state, if it passes.

    Without --margin and guardrails it is judged by the default ones; with any of them, by those alone.
    """
    target, router = where
    request = pb.PromotePolicyRequest(
        name=f"{router}/policies/{policy}",
        state=pb.PolicyState.Value(f"POLICY_STATE_{state.upper()}"),
        canary_share=share,
        holdback_share=holdback,
        force=force,
        reason=reason,
        actor=getpass.getuser(),
    )
    if margin is not None or any(each is not None for each in guardrails.values()):
        request.requirements.CopyFrom(
            pb.Requirements(
                utility_margin=margin or 0.0,
                unsupported_max=0.05,
                effective_sample_size_min=50.0,
                **{name: guardrails[name] for name in _GUARDRAILS},
            )
        )
    with connected(target) as channel:
        answer = pb_grpc.PolicyServiceStub(channel).PromotePolicy(request, timeout=DEADLINE_SECONDS)
    click.echo(f"{answer.policy.name} is {_state(answer.policy.state)}")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def history(where: tuple[str, str], as_json: bool) -> None:
    """List what has been done with the router's policies, promotion settings and snapshots, by whom and why."""
    target, router = where
    with connected(target) as channel:
        ask = pb_grpc.PolicyServiceStub(channel).ListTransitions
        found: list[pb.Transition] = all_pages(ask, pb.ListTransitionsRequest(parent=router), "transitions")
    if as_json:
        print_json(found)
        return
    grid = Table()
    for heading in ("when", "policy", "from", "to", "share", "by", "how", "why"):
        grid.add_column(heading)
    for each in found:
        grid.add_row(
            each.create_time.ToDatetime().isoformat(" ", "seconds"),
            each.policy.partition("/policies/")[2] or _subject(each),
            _state(each.from_state) if each.from_state else "",
            _state(each.to_state) if each.to_state else _done(each),
            f"{each.canary_share:.1%}" if each.canary_share else "",
            each.actor,
            "forced" if each.forced else "by itself" if each.automatic else "",
            each.reason,
        )
    console().print(grid)


def _subject(each: pb.Transition) -> str:
    return each.snapshot.partition("/")[2].partition("/")[2] or "promotion settings"


def _done(each: pb.Transition) -> str:
    return "restored" if each.snapshot else "changed"


def _state(value: pb.PolicyState.ValueType) -> str:
    return pb.PolicyState.Name(value).removeprefix("POLICY_STATE_").lower()
