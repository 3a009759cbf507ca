"""What is known of a decision's calls until it is reported: who serves, usage, latency, failures."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, Unpack

from pointsman.client.failures import ModelFailure, RouteError, model_failure
from pointsman.client.messages import ReportOptions
from pointsman.client.usage import StreamUsage, Usage, is_refusal, usage_from
from pointsman.v1 import router_service_pb2 as pb

logger = logging.getLogger("pointsman.client")

Answer = TypeVar("Answer")
Classify = Callable[[BaseException], ModelFailure | None]
"""What an exception says of the model that was called; None where it says nothing of it."""

_ANSWERED_BADLY = ("REFUSED", "INVALID_OUTPUT")


class Send(Protocol):
    """Queues a report; never waits, never raises."""

    def __call__(self, decision_id: str, **options: Unpack[ReportOptions]) -> None: ...


class Outcome:
    """What the decisions of both clients share.

    Within a `with` block the latency is measured, and one report is made at its end of what was recorded in it. An
    exception is reported as the failure that it stands for, and goes on its way. Nothing here raises.
    """

    def __init__(
        self,
        models: tuple[str, ...],
        send: Send,
        classify: Classify = model_failure,
        response: pb.RouteResponse | None = None,
        problem: RouteError | None = None,
    ) -> None:
        self.models = models
        """The models to try, in this order: the chosen one, then the fallbacks."""
        self.model = models[0]
        """The model to call: the chosen one, until `call` has to move on. Then the one that serves."""
        self.response = response
        """The server's whole answer; None for a default."""
        self.problem = problem
        """Of a default: why there is no decision."""
        self._send = send
        self._classify = classify
        self._in_block = False
        self._start_seconds = time.perf_counter()
        self._latency_seconds: float | None = None
        self._usage: Usage | None = None
        self._answer: Any = None
        self._told: dict[str, Any] = {}
        self._reported: BaseException | None = None

    @property
    def decision_id(self) -> str:
        """Names the decision in later reports; empty for a default, of which nothing can be reported."""
        return self.response.decision_id if self.response else ""

    @property
    def is_default(self) -> bool:
        """Whether Pointsman could not be reached in time, so that a default model stands in."""
        return self.response is None

    @property
    def probability(self) -> float:
        """With what probability the chosen model was drawn; 0 for a default."""
        return self.response.probability if self.response else 0.0

    @property
    def second_model(self) -> str:
        """A model to call as well, whose answer is for no user: report it with `second=True`. Mostly empty."""
        return self.response.second_model if self.response else ""

    @property
    def usage(self) -> Usage | None:
        """What was recorded and is not reported yet."""
        return self._usage

    def usage_from(self, response: Any) -> Usage | None:
        """The usage of a provider's answer, without recording it; None where it has none."""
        return usage_from(response)

    def record(self, response: Any = None, **options: Unpack[ReportOptions]) -> None:
        """Keeps what is known of the call, for the report at the block's end.

        `response` is the provider's answer: the latency ends here, and its usage is added to what was recorded
        before. What else is known goes by its own word: reward, signals, usage, error, ...
        """
        try:
            if response is not None:
                self._take_answer(response)
            given: dict[str, Any] = {**options}
            self._add(given.pop("usage", None))
            self._told.update(given)
        except Exception:
            logger.exception("what was recorded is not reported")

    def report(self, **options: Unpack[ReportOptions]) -> None:
        """Queues a report at once: a judge's score, or what the user thought of the answer.

        It is about the model that serves, unless `served_model` names another.
        """
        if not self.is_default:
            self._send(self.decision_id, **self._about_served(options))

    def _about_served(self, options: Any) -> Any:
        """The options with the serving model, where that is not the chosen one and nothing else is said."""
        if self.model == self.models[0] or options.get("second") or "served_model" in options:
            return options
        return {**options, "served_model": self.model}

    def _begin(self, model: str) -> None:
        """The call of this model begins."""
        self.model = model
        self._start_seconds = time.perf_counter()
        self._latency_seconds = None

    def _stop_clock(self) -> None:
        """The call has ended well; the first time counts."""
        if self._latency_seconds is None:
            self._latency_seconds = time.perf_counter() - self._start_seconds

    def _see(self, stream: StreamUsage, part: Any) -> None:
        try:
            stream.see(part)
        except Exception:
            logger.exception("a stream's usage could not be read")

    def _take_stream(self, stream: StreamUsage) -> None:
        """Takes what a stream has said of itself, whole or broken off."""
        self._add(stream.usage)
        if stream.refused:
            self._told["error"] = "REFUSED"

    def _take_answer(self, answer: Any) -> None:
        """Ends the call, and takes what its answer says of itself; once, whoever brings it."""
        self._stop_clock()
        if answer is self._answer:
            return
        self._answer = answer
        try:
            self._add(usage_from(answer))
            if is_refusal(answer):
                self._told["error"] = "REFUSED"
        except Exception:
            logger.exception("an answer's usage could not be read")

    def _add(self, usage: Usage | None) -> None:
        if usage is not None:
            self._usage = usage if self._usage is None else self._usage + usage

    def _failed(self, error: BaseException) -> bool:
        """Reports that the call failed; says whether that is the model's failure: another may do better."""
        failure = self._failure_of(error)
        if failure is not None:
            self._told["error"] = failure
            self._reported = error
            self._close_books()
        return failure is not None

    def _finish(self, answer: Answer) -> Answer:
        """A model has answered. In a block its end reports that, with what else is recorded until then."""
        self._take_answer(answer)
        if not self._in_block:
            self._close_books()
        return answer

    def _enter(self) -> None:
        self._in_block = True
        self._begin(self.model)

    def _leave(self, error: BaseException | None) -> None:
        """Reports what came of the block."""
        self._in_block = False
        if error is None:
            self._stop_clock()
        elif error is not self._reported:
            failure = self._failure_of(error)
            if failure is not None:
                self._told.setdefault("error", failure)
        self._close_books()

    def _close_books(self) -> None:
        """Reports what is known and not reported yet."""
        told, self._told = self._told, {}
        if self._usage is not None:
            told["usage"], self._usage = self._usage, None
        # A latency says that the call worked.
        if self._latency_seconds is not None and "error" not in told:
            told.setdefault("latency_seconds", self._latency_seconds)
        if told:
            self.report(**told)

    def _failure_of(self, error: BaseException) -> ModelFailure | None:
        try:
            failure = self._classify(error)
        except Exception:
            logger.exception("an exception could not be classified")
            return None
        # After the model has answered, a timeout or a lost connection is somebody else's.
        answered = self._latency_seconds is not None
        return failure if not answered or failure in _ANSWERED_BADLY else None
