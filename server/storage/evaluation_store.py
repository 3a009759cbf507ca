"""The evaluations on disk: each with the position in the log that it has come to, in one transaction."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, delete, insert, select

from policy.candidates import CandidateSpec
from policy.domain import Router
from server.storage.codec import AnyRow, dump_policies, load_policies
from server.storage.schema import evaluations

_LEVEL = 1  # Probabilities in JSON: the fastest level makes them a tenth as long.


@dataclass(frozen=True, slots=True)
class StoredEvaluation:
    """A saved evaluation: it has followed every record of the log up to `seq`.

    Of the windows, those that ended up to `closed_through_us` are closed. Since `since_seq` the live policy has
    been what it is.
    """

    router: Router
    candidates: tuple[CandidateSpec, ...]
    seq: int
    since_seq: int
    closed_through_us: int
    state: bytes


def load_evaluations(engine: Engine) -> list[StoredEvaluation]:
    """Every router's saved evaluation."""
    with engine.connect() as connection:
        rows = connection.execute(select(evaluations)).all()
    return [_load(row) for row in rows]


def evaluated_upto(engine: Engine, router: str) -> int | None:
    """The position in the log of the router's saved evaluation; None if there is none."""
    with engine.execution_options(read_only=True).connect() as connection:
        query = select(evaluations.c.seq).where(evaluations.c.router == router)
        seq: int | None = connection.execute(query).scalar_one_or_none()
        return seq


def evaluated_positions(engine: Engine) -> dict[str, int]:
    """The position in the log of each router's saved evaluation."""
    with engine.execution_options(read_only=True).connect() as connection:
        rows = connection.execute(select(evaluations.c.router, evaluations.c.seq)).all()
    return {row.router: row.seq for row in rows}


def load_evaluation(engine: Engine, router: str) -> StoredEvaluation | None:
    """The router's saved evaluation; None if there is none."""
    with engine.execution_options(read_only=True).connect() as connection:
        row = connection.execute(select(evaluations).where(evaluations.c.router == router)).one_or_none()
    return None if row is None else _load(row)


def forget_evaluations(stored: Sequence[StoredEvaluation]) -> Callable[[Connection, int, int], None]:
    """What takes these away, if nobody has saved later ones: of another version, they only bar the way."""

    def apply(connection: Connection, _seq: int, _time_us: int) -> None:
        for each in stored:
            mine = evaluations.c.router == each.router.id
            connection.execute(delete(evaluations).where(mine, evaluations.c.seq == each.seq))

    return apply


def put_evaluation(
    router: str, upto: int, stored: StoredEvaluation | None
) -> Callable[[Connection, int, int], None]:
    """What stores a router's evaluation in place of the one before; None, of a router that was deleted up to this
    position, takes it away. One that has come further already stays: another server has evaluated it.

    The compression is done here and not in the transaction, which others wait for.
    """
    values = None
    if stored is not None:
        values = {
            "router": router,
            "seq": stored.seq,
            "since_seq": stored.since_seq,
            "closed_through_us": stored.closed_through_us,
            "payload": dump_policies(stored.router, stored.candidates),
            "state": zlib.compress(stored.state, _LEVEL),
        }

    def apply(connection: Connection, _seq: int, time_us: int) -> None:
        mine = evaluations.c.router == router
        connection.execute(delete(evaluations).where(mine, evaluations.c.seq <= upto))
        if values is not None and not connection.execute(select(evaluations.c.seq).where(mine)).first():
            connection.execute(insert(evaluations).values(time_us=time_us, **values))

    return apply


def _load(row: AnyRow) -> StoredEvaluation:
    return StoredEvaluation(
        *load_policies(row.payload), row.seq, row.since_seq, row.closed_through_us, zlib.decompress(row.state)
    )
