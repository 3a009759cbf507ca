"""Hands rows to a running server, batch by batch, and counts what became of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from google.rpc import code_pb2
from pointsman.v1 import router_service_pb2 as pb
from pointsman.v1 import router_service_pb2_grpc as pb_grpc

from policy.domain import InvalidFieldError
from server.importing.wire import imported_decision
from server.rows.row import Row

BATCH_ROWS = 1000
BATCH_BYTES = 4 << 20
EXAMPLES_MAX = 20

_DEADLINE_SECONDS = 120.0
_Sendable = pb.ImportedDecision | InvalidFieldError
_METHOD = {"service": "pointsman.v1.RouterService", "method": "ImportDecisions"}
_RETRY = {
    "maxAttempts": 5,
    "initialBackoff": "1s",
    "maxBackoff": "20s",
    "backoffMultiplier": 3,
    "retryableStatusCodes": ["RESOURCE_EXHAUSTED", "UNAVAILABLE"],
}
CHANNEL_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.service_config", json.dumps({"methodConfig": [{"name": [_METHOD], "retryPolicy": _RETRY}]})),
    # A call that does not fit is not retried at all.
    ("grpc.per_rpc_retry_buffer_size", 4 * BATCH_BYTES),
)
"""A full queue or a server that is starting again is waited for, half a minute at most. Rows of a batch that were
stored before it failed are duplicates when it is sent again.
"""
# What the file calls otherwise than the wire does.
_FILE_FIELDS = (
    ("usage.", ""),
    ("latency:", "latency_seconds:"),
    ("numeric_features", "numeric"),
    ("categorical_features", "categorical"),
    ("event_time:", "time:"),
)


@dataclass(frozen=True, slots=True)
class Refused:
    """A row that was not taken: its line, the canonical code, and the field at fault with what is wrong."""

    line: int
    code: str
    message: str


@dataclass(slots=True)
class Tally:
    """What became of the rows so far. `refusals` are the first of the refused ones."""

    recorded: int = 0
    duplicates: int = 0
    refused: int = 0
    refusals: list[Refused] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return self.recorded + self.duplicates + self.refused

    def refuse(self, line: int, code: str, message: str) -> None:
        """Counts a row that was not taken."""
        self.refused += 1
        if len(self.refusals) < EXAMPLES_MAX:
            self.refusals.append(Refused(line, code, message))


def send_rows(
    rows: Iterable[tuple[int, Row | InvalidFieldError]],
    stub: pb_grpc.RouterServiceStub,
    router_id: str,
    tally: Tally,
    on_rows: Callable[[int], object],
) -> None:
    """Sends the rows to the router of this id, keeping `tally`; `on_rows` hears how many more are done.

    `stub` is of a channel with CHANNEL_OPTIONS. Raises grpc.RpcError for a batch that was not taken to its end,
    and what reading the rows raises; what was counted before is stored.
    """
    done = 0
    for batch in _batches(rows, router_id):
        good = [each for _, each in batch if isinstance(each, pb.ImportedDecision)]
        request = pb.ImportDecisionsRequest(router=f"routers/{router_id}", decisions=good)
        results = iter(stub.ImportDecisions(request, timeout=_DEADLINE_SECONDS).results if good else ())
        for line, each in batch:
            if isinstance(each, InvalidFieldError):
                tally.refuse(line, "INVALID_ARGUMENT", str(each))
            else:
                _count(tally, line, next(results))
        on_rows(tally.rows - done)
        done = tally.rows


def _batches(
    rows: Iterable[tuple[int, Row | InvalidFieldError]], router_id: str
) -> Iterator[list[tuple[int, _Sendable]]]:
    batch: list[tuple[int, _Sendable]] = []
    size = 0
    for line, row in rows:
        each = _sendable(line, row, router_id)
        length = 0 if isinstance(each, InvalidFieldError) else each.ByteSize()
        if batch and (len(batch) == BATCH_ROWS or size + length > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((line, each))
        size += length
    if batch:
        yield batch


def _sendable(line: int, row: Row | InvalidFieldError, router_id: str) -> _Sendable:
    if isinstance(row, InvalidFieldError):
        return row
    try:
        message = imported_decision(line, row, router_id)
    except InvalidFieldError as refusal:
        return refusal
    if message.ByteSize() > BATCH_BYTES:  # The server would take none of its batch.
        return InvalidFieldError("line", f"must be of at most {BATCH_BYTES:,} bytes")
    return message


def _count(tally: Tally, line: int, result: pb.ImportResult) -> None:
    if result.code:
        message = result.message
        for wire, own in _FILE_FIELDS:
            if message.startswith(wire):
                message = own + message.removeprefix(wire)
        tally.refuse(line, code_pb2.Code.Name(result.code), message)
    elif result.disposition == pb.DISPOSITION_DUPLICATE:
        tally.duplicates += 1
    else:
        tally.recorded += 1
