"""The errors that callers see, free of gRPC; the services map each to its canonical status."""

from __future__ import annotations

from collections.abc import Mapping


class PointsmanError(Exception):
    """An error with a message for the caller. `reason` is the ErrorInfo reason."""

    reason = "INTERNAL"

    def __init__(self, message: str, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = dict(metadata or {})


class RouterNotFoundError(PointsmanError):
    reason = "ROUTER_NOT_FOUND"

    def __init__(self, router: str) -> None:
        super().__init__(f"there is no router {router!r}", {"router": router})


class ModelNotFoundError(PointsmanError):
    reason = "MODEL_NOT_FOUND"

    def __init__(self, router: str, model: str, field: str = "") -> None:
        where = f"{field}: " if field else ""
        super().__init__(
            f"{where}routers/{router} has no model {model!r}",
            {"router": router, "model": model, "field": field},
        )


class PolicyNotFoundError(PointsmanError):
    reason = "POLICY_NOT_FOUND"

    def __init__(self, router: str, policy: str) -> None:
        super().__init__(
            f"routers/{router} has no policy {policy[:80]!r}", {"router": router, "policy": policy[:80]}
        )


class EvaluationUnavailableError(PointsmanError):
    reason = "EVALUATION_UNAVAILABLE"

    def __init__(self, router: str) -> None:
        super().__init__(
            f"nothing is known of routers/{router} now: the evaluation has to come to it in the log, "
            "or closes the windows of long ago, or has died, which the health of pointsman.v1.evaluation says",
            {"router": router},
        )


class SnapshotNotFoundError(PointsmanError):
    reason = "SNAPSHOT_NOT_FOUND"

    def __init__(self, router: str, snapshot: str) -> None:
        super().__init__(
            f"routers/{router} has no snapshot {snapshot[:80]!r}", {"router": router, "snapshot": snapshot[:80]}
        )


class SnapshotMisfitError(PointsmanError):
    """Carries what differs in the metadata, by its name."""

    reason = "SNAPSHOT_MISFIT"

    def __init__(self, router: str, differences: Mapping[str, str]) -> None:
        told = "; ".join(f"{name}: {what}" for name, what in differences.items())
        super().__init__(f"the snapshot does not fit routers/{router}: {told}", differences)


class DecisionNotFoundError(PointsmanError):
    reason = "DECISION_NOT_FOUND"

    def __init__(self, decision_id: str) -> None:
        super().__init__(
            f"there is no decision {decision_id!r}; an answer with not_logged has none",
            {"decision_id": decision_id},
        )


class DecisionExpiredError(PointsmanError):
    reason = "DECISION_EXPIRED"

    def __init__(self, decision_id: str) -> None:
        super().__init__(
            f"the window of decision {decision_id!r} has closed",
            {"decision_id": decision_id},
        )


class NoEligibleModelError(PointsmanError):
    """Carries each model's reason in the metadata, by model id."""

    reason = "NO_ELIGIBLE_MODEL"


class AlreadyExistsError(PointsmanError):
    reason = "ALREADY_EXISTS"


class StaleEtagError(PointsmanError):
    reason = "STALE_ETAG"

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} was changed in between: read it again and retry", {"name": name})


class NotAllowedNowError(PointsmanError):
    """The request is well formed, but the present state rules it out."""

    reason = "FAILED_PRECONDITION"


class NotPromotableError(PointsmanError):
    """Carries the verdict and its reasons in the metadata."""

    reason = "NOT_PROMOTABLE"


class QueueFullError(PointsmanError):
    reason = "QUEUE_FULL"

    def __init__(self) -> None:
        super().__init__("the write queue is full: retry with backoff")


class StorageUnavailableError(PointsmanError):
    reason = "STORAGE_UNAVAILABLE"

    def __init__(self, *, unsure: bool = False) -> None:
        super().__init__(
            "storage did not answer: whether this was stored is not known, retry with the same id"
            if unsure
            else "storage is not available: nothing was stored, retry with backoff"
        )


class UnauthenticatedError(PointsmanError):
    """The request came with no key that is good."""

    def __init__(self, reason: str, message: str, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message, metadata)
        self.reason = reason


class PermissionDeniedError(PointsmanError):
    """The key is good, but not for this."""

    def __init__(self, reason: str, message: str, metadata: Mapping[str, str]) -> None:
        super().__init__(message, metadata)
        self.reason = reason


class LimitExceededError(PointsmanError):
    """A key has used up what it may, or all callers have; the same can be sent again after `retry_seconds`."""

    def __init__(self, reason: str, message: str, metadata: Mapping[str, str], retry_seconds: float) -> None:
        super().__init__(message, metadata)
        self.reason = reason
        self.retry_seconds = retry_seconds
