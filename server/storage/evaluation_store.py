"""The evaluations on disk: each with the position in the log that it has come to, in one transaction."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, delete, insert, select

from policy.candidates import CandidateSpec
from policy.domain import Router
from server.storage.codec import dump_policies, load_policies
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
    return [
        StoredEvaluation(
            *load_policies(row.payload), row.seq, row.since_seq, row.closed_through_us, zlib.decompress(row.state)
        )
        for row in rows
    ]


def put_evaluation(router: str, stored: StoredEvaluation | None) -> Callable[[Connection, int, int], None]:
    """What stores a router's evaluation in place of the one before; None, of a deleted router, takes it away.

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
        connection.execute(delete(evaluations).where(evaluations.c.router == router))
        if values is not None:
            connection.execute(insert(evaluations).values(time_us=time_us, **values))

    return apply
