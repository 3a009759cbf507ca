"""pointsman policies: creates, lists, shows, promotes and retires candidate policies of a running server."""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from google.protobuf.json_format import MessageToDict
from pointsman.v1 import policy_service_pb2 as pb
from pointsman.v1 import policy_service_pb2_grpc as pb_grpc
from rich.table import Table

from policy.candidates import CandidateSpec, parse_candidate
from server.cli.promotion import history, promote
from server.cli.remote import (
    DEADLINE_SECONDS,
    all_pages,
    connected,
    console,
    print_json,
    target_option,
    tls_options,
)
from server.evaluate.candidates_file import read_candidates
from server.services.policies import candidate_to_proto


@click.group()
@target_option
@tls_options
@click.option("--router", default="default", show_default=True, help="The router's id.")
@click.pass_context
def policies(context: click.Context, target: str, router: str) -> None:
    """Create, list, show, promote and retire candidate policies of a running server."""
    context.obj = (target, f"routers/{router}")


policies.add_command(promote)
policies.add_command(history)


@contextmanager
def _stub(target: str) -> Iterator[pb_grpc.PolicyServiceStub]:
    with connected(target) as channel:
        yield pb_grpc.PolicyServiceStub(channel)


@policies.command()
@click.argument("policy")
@click.argument("form", required=False)
@click.option("--file", "listed", type=click.Path(path_type=Path), help="YAML file that describes POLICY.")
@click.pass_obj
def create(where: tuple[str, str], policy: str, form: str | None, listed: Path | None) -> None:
    """Create POLICY as a candidate in shadow.

    FORM is fixed:MODEL, uniform, cheapest, dearest, incumbent, greedy, learned, ridge, vowpal_wabbit or
    threshold:STRONG:WEAK:GAP; a file can say more, as that of pointsman evaluate.
    """
    target, router = where
    message = candidate_to_proto(_spec(policy, form, listed))
    request = pb.CreatePolicyRequest(parent=router, policy_id=policy, policy=message, actor=getpass.getuser())
    with _stub(target) as stub:
        click.echo(stub.CreatePolicy(request, timeout=DEADLINE_SECONDS).policy.name)


def _spec(policy: str, form: str | None, listed: Path | None) -> CandidateSpec:
    if (form is None) is (listed is None):
        raise click.UsageError("give either FORM or --file")
    if form is not None:
        return parse_candidate(policy, form)
    found = [each for each in read_candidates(listed or Path()) if each.id == policy]
    if not found:
        raise click.UsageError(f"{listed} has no candidate {policy!r}")
    return found[0]


@policies.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_policies(where: tuple[str, str], as_json: bool) -> None:
    """List the policies, the retired ones too."""
    target, router = where
    with _stub(target) as stub:
        found: list[pb.Policy] = all_pages(stub.ListPolicies, pb.ListPoliciesRequest(parent=router), "policies")
    if as_json:
        print_json(found)
        return
    grid = Table()
    for heading in ("policy", "decides by", "state", "share", "created"):
        grid.add_column(heading)
    for each in found:
        state = pb.PolicyState.Name(each.state).removeprefix("POLICY_STATE_").lower()
        share = f"{each.canary_share:.1%}" if each.canary_share else ""
        created = each.create_time.ToDatetime().isoformat(" ", "seconds")
        grid.add_row(each.name.partition("/policies/")[2], _decides(each), state, share, created)
    console().print(grid)


def _decides(each: pb.Policy) -> str:
    cut = each.threshold
    main = f"threshold:{cut.strong}:{cut.weak}:{cut.gap:g}" if each.HasField("threshold") else each.policy
    return f"{len(each.rules)} rules, {main}" if each.rules else main


@policies.command()
@click.argument("policy")
@click.pass_obj
def get(where: tuple[str, str], policy: str) -> None:
    """Print POLICY as JSON."""
    target, router = where
    with _stub(target) as stub:
        request = pb.GetPolicyRequest(name=f"{router}/policies/{policy}")
        found = stub.GetPolicy(request, timeout=DEADLINE_SECONDS).policy
    click.echo(json.dumps(MessageToDict(found, preserving_proto_field_name=True), indent=2))


@policies.command()
@click.argument("policy")
@click.option("--reason", default="", help="Why, for the record.")
@click.pass_obj
def retire(where: tuple[str, str], policy: str, reason: str) -> None:
    """End the evaluation of POLICY."""
    target, router = where
    name = f"{router}/policies/{policy}"
    with _stub(target) as stub:
        request = pb.RetirePolicyRequest(name=name, reason=reason, actor=getpass.getuser())
        stub.RetirePolicy(request, timeout=DEADLINE_SECONDS)
