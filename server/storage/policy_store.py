"""Candidate policies on disk: each change of one is written with its record in the log and in the audit."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Engine, delete, insert, select, update

from policy.candidates import CANDIDATES_MAX, CandidateSpec
from policy.domain import RouterSpec
from policy.promotion import (
    POLICIES_PER_ROUTER_MAX,
    PolicyState,
    Promotion,
    Restored,
    former,
    is_former,
    live_spec,
)
from server.errors import AlreadyExistsError, NotAllowedNowError, PolicyNotFoundError, StaleEtagError
from server.registry import RouterEntry
from server.storage.archive import keep_newest, last_good, refer
from server.storage.codec import AnyRow, dump_candidate, dump_promotion, dump_recorded, dump_spec, load_router_spec
from server.storage.registry_store import Change, live_router, load_entry, set_spec
from server.storage.schema import changes, policies, promotions, transitions

_NO_POLICY: dict[str, Any] = {"policy": "", "from_state": "", "to_state": "", "canary_share": 0.0}


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a policy changes its state: who asked, what for, and what was known of it, as JSON."""

    actor: str = ""
    reason: str = ""
    forced: bool = False
    automatic: bool = False
    evidence: str = "{}"


def create_policy(router_id: str, spec: CandidateSpec, cause: Cause) -> Change:
    """Creates a candidate in shadow."""

    def change(connection: Connection, seq: int, time_us: int) -> RouterEntry | None:
        router = live_router(connection, router_id)
        known = load_entry(connection, router_id).policies
        if spec.id in known:
            raise AlreadyExistsError(
                f"routers/{router_id} has, or had, a policy {spec.id!r}: what is in the log under a name is one "
                "policy's",
                {"policy": spec.id},
            )
        evaluated = sum(each.state.evaluated for each in known.values())
        if evaluated >= CANDIDATES_MAX or len(known) >= POLICIES_PER_ROUTER_MAX:
            raise NotAllowedNowError(
                f"routers/{router_id} has {evaluated} candidates and {len(known)} policies in all, of at most "
                f"{CANDIDATES_MAX} and {POLICIES_PER_ROUTER_MAX}"
            )
        add_policy(connection, router, spec, cause, seq, time_us)
        return record_policies(connection, router_id, seq, time_us)

    return change


def retire_policy(router_id: str, policy_id: str, revision: int | None, cause: Cause) -> Change:
    """Ends a candidate."""

    def change(connection: Connection, seq: int, time_us: int) -> RouterEntry | None:
        row = policy_row(connection, router_id, policy_id, revision)
        require_evaluated(row)
        set_state(connection, row, PolicyState.RETIRED, 0.0, cause, seq, time_us)
        return record_policies(connection, router_id, seq, time_us)

    return change


def serve_policy(
    router_id: str, policy_id: str, state: PolicyState, share: float, revision: int | None, cause: Cause
) -> Change:
    """Makes a candidate the canary with this share, or takes it back to shadow."""

    def change(connection: Connection, seq: int, time_us: int) -> RouterEntry | None:
        row = policy_row(connection, router_id, policy_id, revision)
        require_evaluated(row)
        others = [
            each.spec.id
            for each in load_entry(connection, router_id).policies.values()
            if each.state is PolicyState.CANARY and each.spec.id != policy_id
        ]
        if others and state is PolicyState.CANARY:
            raise NotAllowedNowError(f"routers/{router_id} has a canary: {others[0]}")
        set_state(connection, row, state, share, cause, seq, time_us)
        return record_policies(connection, router_id, seq, time_us)

    return change


def go_live(
    router_id: str,
    policy_id: str,
    revision: int | None,
    cause: Cause,
    holdback_share: float = 0.0,
    good_until: int | None = None,
) -> Change:
    """Makes a candidate the router's own policy, and the router's own a candidate, to go back to.

    With a `holdback_share` that is a canary; it must be 0 if there is another canary. The policy that was live
    before and the former ones before it are retired. With `good_until` the learner goes back too, to the last
    snapshot by the policy's kind of learner up to that position, if there is one.
    """

    def change(connection: Connection, seq: int, time_us: int) -> RouterEntry | None:
        row = policy_row(connection, router_id, policy_id, revision)
        require_evaluated(row)
        entry = load_entry(connection, router_id)
        before, candidate = entry.router.spec, entry.policies[policy_id].spec
        after = _live_spec(row, candidate, before)
        if after is None:
            raise NotAllowedNowError(
                f"routers/{router_id}/policies/{policy_id} cannot be a router's own policy, since it has rules, a "
                "threshold, feature_parts or the incumbent: it may be a canary of any share"
            )
        replaced = replace(cause, reason=f"{policy_id} is live", evidence="{}", forced=False)
        for each in entry.policies.values():
            over = each.state is PolicyState.LIVE or (each.state.evaluated and is_former(each.spec.id))
            if over and each.spec.id != policy_id:
                other = policy_row(connection, router_id, each.spec.id, None)
                set_state(connection, other, PolicyState.RETIRED, 0.0, replaced, seq, time_us)
        set_state(connection, row, PolicyState.LIVE, 0.0, cause, seq, time_us)
        router = live_router(connection, router_id)
        kept = former(seq, before)
        others = [each for each in entry.policies.values() if each.state is PolicyState.CANARY]
        if holdback_share and any(each.spec.id != policy_id for each in others):
            raise NotAllowedNowError(f"routers/{router_id} has a canary: {others[0].spec.id}")
        add_policy(connection, router, kept, replaced, seq, time_us, dump_spec(before), holdback_share)
        set_spec(connection, router, after, seq, time_us)
        keep_newest(connection, router)
        restored = None
        if good_until is not None:
            restored = _go_back(connection, router, after, good_until, replaced, seq, time_us)
        return record_policies(connection, router_id, seq, time_us, restored)

    return change


def _go_back(
    connection: Connection,
    router: AnyRow,
    spec: RouterSpec,
    good_until: int,
    cause: Cause,
    seq: int,
    time_us: int,
) -> Restored | None:
    """Keeps the last good snapshot for the record that goes back to it; None if there is none."""
    snapshot_id = last_good(connection, router, good_until, spec.learner)
    if not snapshot_id:
        return None
    restored, _ = refer(connection, router, snapshot_id)
    note_restored(connection, router, restored, cause, seq, time_us)
    return restored


def _live_spec(row: AnyRow, candidate: CandidateSpec, before: RouterSpec) -> RouterSpec | None:
    """The router's spec with the policy as its own: of a former one as it was, what it does not use included."""
    if row.former_spec is None:
        return live_spec(candidate, before)
    was = load_router_spec(row.former_spec)
    return replace(
        before,
        policy=was.policy,
        learner=was.learner,
        exploration=was.exploration,
        objective=was.objective,
    )


def require_evaluated(row: AnyRow) -> None:
    """Raises NotAllowedNowError for a policy that is live or retired."""
    if not PolicyState(row.state).evaluated:
        raise NotAllowedNowError(f"routers/{row.router}/policies/{row.id} is {row.state}")


def put_promotion(router_id: str, settings: Promotion, revision: int | None, cause: Cause) -> Change:
    """Sets by what candidates are judged. The transition's evidence is what was set before, and is now."""

    def change(connection: Connection, seq: int, time_us: int) -> RouterEntry | None:
        router = live_router(connection, router_id)
        mine = promotions.c.router_uid == router.uid
        entry = load_entry(connection, router_id)
        if revision is not None and entry.promotion_revision != revision:
            raise StaleEtagError(f"routers/{router_id}/promotionSettings")
        connection.execute(delete(promotions).where(mine))
        connection.execute(
            insert(promotions).values(router_uid=router.uid, settings=dump_promotion(settings), revision=seq)
        )
        before, after = (json.loads(dump_promotion(each)) for each in (entry.promotion, settings))
        evidence = json.dumps({"before": before, "after": after})
        move = {**_NO_POLICY, "router": router_id, "router_uid": router.uid, "kind": "settings"}
        _note_transition(connection, move, replace(cause, evidence=evidence), seq, time_us)
        return record_policies(connection, router_id, seq, time_us)

    return change


def note_restored(
    connection: Connection, router: AnyRow, restored: Restored, cause: Cause, seq: int, time_us: int
) -> None:
    """Writes the transition that goes with the record that goes back to a snapshot."""
    move = {**_NO_POLICY, "router": router.id, "router_uid": router.uid, "snapshot": restored.snapshot}
    _note_transition(connection, {**move, "kind": "snapshot"}, cause, seq, time_us)


def policy_row(connection: Connection, router_id: str, policy_id: str, revision: int | None) -> AnyRow:
    """The policy's row. Raises RouterNotFoundError, PolicyNotFoundError, StaleEtagError."""
    router = live_router(connection, router_id)
    query = select(policies).where(policies.c.router_uid == router.uid, policies.c.id == policy_id)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise PolicyNotFoundError(router_id, policy_id)
    if revision is not None and row.revision != revision:
        raise StaleEtagError(f"routers/{router_id}/policies/{policy_id}")
    return row


def add_policy(
    connection: Connection,
    router: AnyRow,
    spec: CandidateSpec,
    cause: Cause,
    seq: int,
    time_us: int,
    former_spec: str | None = None,
    canary_share: float = 0.0,
) -> None:
    """Writes a new candidate and its transition; of a former live policy also the spec it had."""
    state = PolicyState.CANARY if canary_share else PolicyState.SHADOW
    values: dict[str, Any] = {"router_uid": router.uid, "router": router.id, "canary_share": canary_share}
    connection.execute(
        insert(policies).values(
            **values,
            id=spec.id,
            spec=dump_candidate(spec),
            state=state.value,
            create_seq=seq,
            former_spec=former_spec,
            revision=seq,
            create_us=time_us,
            update_us=time_us,
        )
    )
    move = {"policy": spec.id, "from_state": "", "to_state": state.value}
    _note_transition(connection, {**values, **move}, cause, seq, time_us)


def set_state(
    connection: Connection,
    row: AnyRow,
    state: PolicyState,
    canary_share: float,
    cause: Cause,
    seq: int,
    time_us: int,
) -> None:
    """Writes a policy's new state, and the transition."""
    mine = (policies.c.router_uid == row.router_uid, policies.c.id == row.id)
    connection.execute(
        update(policies)
        .where(*mine)
        .values(state=state.value, canary_share=canary_share, revision=seq, update_us=time_us)
    )
    move = {
        "router": row.router,
        "router_uid": row.router_uid,
        "policy": row.id,
        "from_state": row.state,
        "to_state": state.value,
        "canary_share": canary_share,
    }
    _note_transition(connection, move, cause, seq, time_us)


def _note_transition(connection: Connection, move: dict[str, Any], cause: Cause, seq: int, time_us: int) -> None:
    connection.execute(
        insert(transitions).values(
            seq=seq,
            time_us=time_us,
            forced=cause.forced,
            automatic=cause.automatic,
            actor=cause.actor,
            reason=cause.reason,
            evidence=cause.evidence,
            **move,
        )
    )


def record_policies(
    connection: Connection, router_id: str, seq: int, time_us: int, restored: Restored | None = None
) -> RouterEntry:
    """Writes the record of the log: the router as it is now, its candidates, what is asked of them, and to which
    snapshot the learner goes back, if to any.
    """
    entry = load_entry(connection, router_id)
    candidates = tuple(each.spec for each in entry.policies.values() if each.state.evaluated)
    payload = dump_recorded(entry.router, candidates, entry.promotion.requirements, restored)
    connection.execute(
        insert(changes).values(seq=seq, time_us=time_us, kind="policy", router=router_id, payload=payload)
    )
    return entry


def read_transitions(engine: Engine, router_uid: int, after: tuple[int, str], limit: int) -> list[AnyRow]:
    """A router's transitions in their order, after that of this position and policy."""
    seq, policy = after
    later = (transitions.c.seq > seq) | ((transitions.c.seq == seq) & (transitions.c.policy > policy))
    query = (
        select(transitions)
        .where(transitions.c.router_uid == router_uid, later)
        .order_by(transitions.c.seq, transitions.c.policy)
        .limit(limit)
    )
    with engine.execution_options(read_only=True).connect() as connection:
        return list(connection.execute(query))
