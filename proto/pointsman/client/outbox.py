"""Sends reports in the background: batched, retried, bounded. Whoever puts one in never waits and never fails."""

from __future__ import annotations

import atexit
import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import grpc

from pointsman.v1 import router_service_pb2 as pb

logger = logging.getLogger("pointsman.client")

BatchCall = Callable[[pb.BatchReportRewardsRequest, float], pb.BatchReportRewardsResponse]
"""Sends a batch within so many seconds. Raises grpc.RpcError."""

_BATCH_MAX = 500
_BATCH_BYTES_MAX = 1 << 20
_CALL_SECONDS = 10.0
_PAUSE_SECONDS_MIN = 0.1
_PAUSE_SECONDS_MAX = 5.0
_EXIT_SECONDS = 2.0
_Code = grpc.StatusCode
# No later attempt would fare better. All else is tried again for as long as there is room.
_HOPELESS = frozenset(
    {_Code.INVALID_ARGUMENT, _Code.UNAUTHENTICATED, _Code.PERMISSION_DENIED, _Code.UNIMPLEMENTED, _Code.NOT_FOUND}
)
_AGAIN = frozenset(each.value[0] for each in (_Code.RESOURCE_EXHAUSTED, _Code.UNAVAILABLE, _Code.INTERNAL))


@dataclass(frozen=True)
class ReportCounts:
    """What became of the reports so far, in reports. What is in none of these is still waiting."""

    recorded: int = 0
    """On the server's disk; duplicates among them."""
    late: int = 0
    """Kept by the server, but its decision's window had closed."""
    refused: int = 0
    """Not taken by the server, or no report at all."""
    dropped: int = 0
    """Thrown away here: the queue was full, or the client was closed before they could be sent."""


class Outbox:
    """A bounded queue and the thread that empties it, which starts with the first report."""

    def __init__(self, call: BatchCall, queue_max: int, linger_seconds: float) -> None:
        self._call = call
        self._queue_max = queue_max
        self._linger_seconds = linger_seconds
        self._waiting: deque[pb.ReportRewardRequest] = deque()
        self._changed = threading.Condition()
        self._in_flight = 0
        self._counts = ReportCounts()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._hurried = False
        self._told: set[str] = set()
        atexit.register(self.close, _EXIT_SECONDS)

    @property
    def counts(self) -> ReportCounts:
        """What became of the reports so far."""
        with self._changed:
            return self._counts

    def put(self, report: pb.ReportRewardRequest) -> None:
        """Queues a report. If there is no room it is dropped, counted, and logged the first time."""
        with self._changed:
            if self._closing:
                self._drop("the client is closed")
            elif len(self._waiting) + self._in_flight >= self._queue_max:
                self._drop(f"{self._queue_max:,} are waiting already")
            elif self._thread is None and not self._start():
                self._drop("the program is ending")
            else:
                self._waiting.append(report)
                self._changed.notify_all()

    def refuse(self, why: str) -> None:
        """Counts what could not be made a report, and logs it."""
        with self._changed:
            self._count(refused=1)
        logger.error("not a report: %s", why)

    def flush(self, timeout_seconds: float) -> bool:
        """Returns once nothing waits, or after so many seconds; says whether nothing waits."""
        with self._changed:
            self._hurried = True
            self._changed.notify_all()
            done = self._changed.wait_for(lambda: not self._waiting and not self._in_flight, timeout_seconds)
            self._hurried = False
            return done

    def close(self, timeout_seconds: float) -> None:
        """Flushes, then takes no more; what could not be sent in time is dropped and counted."""
        atexit.unregister(self.close)
        with self._changed:
            if self._closing:
                return
        self.flush(timeout_seconds)
        with self._changed:
            self._closing = True
            left = len(self._waiting) + self._in_flight
            self._waiting.clear()
            if left:
                self._count(dropped=left)
                logger.warning("%d reports could not be sent before the client was closed", left)
            self._changed.notify_all()

    def _start(self) -> bool:
        """Starts the thread. A program that is ending starts none any more."""
        thread = threading.Thread(target=self._run, name="pointsman-reports", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return False
        self._thread = thread
        return True

    def _drop(self, why: str) -> None:
        self._count(dropped=1)
        self._tell(why, f"a report was dropped: {why}; counts.dropped counts them all")

    def _run(self) -> None:
        pause_seconds = 0.0
        while (batch := self._next_batch(pause_seconds)) is not None:
            again = self._send(batch)
            with self._changed:
                self._in_flight = 0
                if not self._closing:
                    self._waiting.extendleft(reversed(again))
                self._changed.notify_all()
            pause_seconds = min(max(2 * pause_seconds, _PAUSE_SECONDS_MIN), _PAUSE_SECONDS_MAX) if again else 0.0

    def _next_batch(self, pause_seconds: float) -> list[pb.ReportRewardRequest] | None:
        """Waits for reports, and a little for more of them; None once closed."""
        with self._changed:
            if pause_seconds:
                # Jitter, so that a server that comes back is not met by all of its clients at once.
                self._changed.wait_for(lambda: self._closing, pause_seconds * random.uniform(0.5, 1.0))  # noqa: S311
            self._changed.wait_for(lambda: self._waiting or self._closing)
            self._changed.wait_for(
                lambda: self._hurried or self._closing or len(self._waiting) >= _BATCH_MAX, self._linger_seconds
            )
            if self._closing:
                return None
            batch: list[pb.ReportRewardRequest] = []
            size = 0
            while self._waiting and len(batch) < _BATCH_MAX:
                size += self._waiting[0].ByteSize()
                if batch and size > _BATCH_BYTES_MAX:
                    break
                batch.append(self._waiting.popleft())
            self._in_flight = len(batch)
            return batch

    def _send(self, batch: Sequence[pb.ReportRewardRequest]) -> list[pb.ReportRewardRequest]:
        """Sends a batch; gives those of it to be sent again. They have their ids, so none counts twice."""
        try:
            results = self._call(pb.BatchReportRewardsRequest(requests=batch), _CALL_SECONDS).results
        except grpc.RpcError as error:
            code = error.code()
            self._tell("call", f"reports are not taken: {code.name}: {error.details()}")
            if code not in _HOPELESS:
                return list(batch)
            self._settle(refused=len(batch))
            return []
        except Exception:
            # The thread must live: what comes next may be fine.
            logger.exception("a batch of reports could not be sent")
            self._settle(refused=len(batch))
            return []
        self._told.discard("call")
        again = [report for report, result in zip(batch, results, strict=False) if result.code in _AGAIN]
        for result in results:
            if result.code and result.code not in _AGAIN:
                self._tell(result.reason, f"a report was refused: {result.reason}: {result.message}")
        late = sum(each.disposition == pb.DISPOSITION_LATE for each in results)
        refused = sum(bool(each.code) and each.code not in _AGAIN for each in results)
        self._settle(late=late, refused=refused, recorded=len(batch) - late - refused - len(again))
        return again

    def _settle(self, **more: int) -> None:
        with self._changed:
            if not self._closing:  # else they are counted as dropped
                self._count(**more)

    def _count(self, **more: int) -> None:
        self._counts = replace(
            self._counts, **{name: getattr(self._counts, name) + value for name, value in more.items()}
        )

    def _tell(self, key: str, message: str) -> None:
        """Logs once: what fails for one report often fails for all."""
        if key not in self._told:
            self._told.add(key)
            logger.warning("%s", message)
