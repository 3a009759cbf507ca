"""Reports on their way to Pointsman: in the background, bounded, in batches, retried with the same report ids."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque

import grpc
from pointsman.v1 import router_service_pb2 as pb

from server.gateway.decisions import Pointsman

logger = logging.getLogger(__name__)

_BATCH_MAX = 200
# A call costs about the same for one report as for ten, here and at the server, and takes the time of requests.
_GATHER_SECONDS = 0.05
_PAUSE_SECONDS_MIN, _PAUSE_SECONDS_MAX = 0.1, 5.0
_Code = grpc.StatusCode
_AGAIN = frozenset(each.value[0] for each in (_Code.UNAVAILABLE, _Code.RESOURCE_EXHAUSTED, _Code.INTERNAL))
_HOPELESS = frozenset((_Code.INVALID_ARGUMENT, _Code.UNAUTHENTICATED, _Code.PERMISSION_DENIED))


class Outbox:
    """Whoever puts a report in never waits. An activation is put in as a decision's id."""

    def __init__(self, pointsman: Pointsman, reports_max: int) -> None:
        self._pointsman = pointsman
        self._reports_max = reports_max
        self._waiting: deque[pb.ReportRewardRequest | str] = deque()
        self._sending: list[pb.ReportRewardRequest | str] = []
        self._changed = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None
        self.dropped = 0

    def start(self) -> None:
        """Begins to send, in the running event loop."""
        self._task = asyncio.create_task(self._run(), name="gateway-outbox")

    async def stop(self, grace_seconds: float) -> None:
        """Sends what it can within so many seconds; the rest is lost, and the log says how much."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds):
                await self._idle.wait()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        left = len(self._waiting) + len(self._sending)
        if left:
            logger.warning("%d reports could not be sent before the end", left)

    def put(self, report: pb.ReportRewardRequest | str) -> None:
        """Queues a report, or the id of a decision that counts from now on; drops it if there is no room."""
        if len(self._waiting) + len(self._sending) >= self._reports_max:
            if self.dropped == 0:
                logger.error("%d reports wait for Pointsman already: more are dropped", self._reports_max)
            self.dropped += 1
            return
        self._waiting.append(report)
        self._idle.clear()
        self._changed.set()

    async def idle(self) -> None:
        """Returns once nothing waits."""
        await self._idle.wait()

    async def _run(self) -> None:
        pause_seconds = _PAUSE_SECONDS_MIN
        while True:
            if not self._waiting:
                self._idle.set()
                self._changed.clear()
                await self._changed.wait()
            if len(self._waiting) < _BATCH_MAX:
                await asyncio.sleep(_GATHER_SECONDS)
            self._sending = [self._waiting.popleft() for _ in range(min(_BATCH_MAX, len(self._waiting)))]
            again = await self._send(self._sending)
            self._waiting.extendleft(reversed(again))
            self._sending = []
            if again:
                await asyncio.sleep(pause_seconds)
                pause_seconds = min(2 * pause_seconds, _PAUSE_SECONDS_MAX)
            else:
                pause_seconds = _PAUSE_SECONDS_MIN

    async def _send(self, batch: list[pb.ReportRewardRequest | str]) -> list[pb.ReportRewardRequest | str]:
        """Gives what has to be sent again, in the same order."""
        activations = [each for each in batch if isinstance(each, str)]
        reports = [each for each in batch if not isinstance(each, str)]
        # What is reported on counts by that.
        told = {each.decision_id for each in reports}
        results = await asyncio.gather(
            self._send_reports(reports), *(self._activate(each) for each in activations if each not in told)
        )
        return [each for part in results for each in part]

    async def _activate(self, decision_id: str) -> list[pb.ReportRewardRequest | str]:
        try:
            await self._pointsman.activate(decision_id)
        except grpc.aio.AioRpcError as error:
            return [decision_id] if error.code().value[0] in _AGAIN else []
        return []

    async def _send_reports(self, reports: list[pb.ReportRewardRequest]) -> list[pb.ReportRewardRequest | str]:
        if not reports:
            return []
        try:
            results = await self._pointsman.report_batch(reports)
        except grpc.aio.AioRpcError as error:
            if error.code() in _HOPELESS:
                logger.error("%d reports are refused: %s", len(reports), error.code().name)
                return []
            return list(reports)
        again: list[pb.ReportRewardRequest | str] = []
        for report, result in zip(reports, results, strict=True):
            if result.code in _AGAIN:
                again.append(report)
            elif result.code:
                logger.error("a report on %s is refused: %s", report.decision_id, result.message)
        return again
