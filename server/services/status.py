"""Maps errors to canonical gRPC status with google.rpc details; callers never see a cause that is ours."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import wraps
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status
from sqlalchemy.exc import OperationalError

from policy.domain import InvalidFieldError
from server import errors
from server.services.call_facts import call_facts
from server.services.times import duration

logger = logging.getLogger(__name__)

DOMAIN = "pointsman"
INVALID_FIELD = "INVALID_FIELD"

_CODES: dict[type[errors.PointsmanError], int] = {
    errors.RouterNotFoundError: code_pb2.NOT_FOUND,
    errors.ModelNotFoundError: code_pb2.NOT_FOUND,
    errors.PolicyNotFoundError: code_pb2.NOT_FOUND,
    errors.EvaluationUnavailableError: code_pb2.UNAVAILABLE,
    errors.SnapshotNotFoundError: code_pb2.NOT_FOUND,
    errors.SnapshotMisfitError: code_pb2.FAILED_PRECONDITION,
    errors.DecisionNotFoundError: code_pb2.NOT_FOUND,
    errors.DecisionExpiredError: code_pb2.FAILED_PRECONDITION,
    errors.NoEligibleModelError: code_pb2.FAILED_PRECONDITION,
    errors.NotPromotableError: code_pb2.FAILED_PRECONDITION,
    errors.NotAllowedNowError: code_pb2.FAILED_PRECONDITION,
    errors.AlreadyExistsError: code_pb2.ALREADY_EXISTS,
    errors.StaleEtagError: code_pb2.ABORTED,
    errors.QueueFullError: code_pb2.RESOURCE_EXHAUSTED,
    errors.StorageUnavailableError: code_pb2.UNAVAILABLE,
    errors.UnauthenticatedError: code_pb2.UNAUTHENTICATED,
    errors.PermissionDeniedError: code_pb2.PERMISSION_DENIED,
    errors.LimitExceededError: code_pb2.RESOURCE_EXHAUSTED,
}
_METADATA_BYTES_MAX = 3500  # gRPC clients take 8 KiB of trailers, and this is sent in base64.
_MESSAGE_MAX = 1000
_AWAY = "%s failed, since the database cannot be reached: %s"

Request = TypeVar("Request")
Response = TypeVar("Response")
Context = grpc.aio.ServicerContext[Any, Any]


def code_and_reason(error: Exception) -> tuple[int, str, str]:
    """The canonical code, the ErrorInfo reason and the public message of an error."""
    if isinstance(error, InvalidFieldError):
        return code_pb2.INVALID_ARGUMENT, INVALID_FIELD, str(error)
    if isinstance(error, errors.PointsmanError):
        return _CODES.get(type(error), code_pb2.INTERNAL), error.reason, error.message
    return code_pb2.INTERNAL, "INTERNAL", "internal error; the server's log has the cause"


def to_status(error: Exception) -> status_pb2.Status:
    """The error as google.rpc.Status: ErrorInfo always, BadRequest where a field is at fault,
    RetryInfo where it is known when to try again.
    """
    code, reason, message = code_and_reason(error)
    info = error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN)
    if isinstance(error, errors.PointsmanError):
        _fill(info, error.metadata)
    details: list[Any] = [info]
    if isinstance(error, InvalidFieldError):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field[:300], description=error.message[:_MESSAGE_MAX]
        )
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, errors.LimitExceededError):
        details.append(error_details_pb2.RetryInfo(retry_delay=duration(error.retry_seconds)))
    status = status_pb2.Status(code=code, message=message[:_MESSAGE_MAX])
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def _fill(info: error_details_pb2.ErrorInfo, metadata: Mapping[str, str]) -> None:
    """As much of the metadata as fits: shortened to the reason's code if need be, then cut with a count."""
    size = sum(len(key.encode()) + len(value.encode()) for key, value in metadata.items())
    left = _METADATA_BYTES_MAX
    for position, (key, full) in enumerate(metadata.items()):
        value = full if size <= _METADATA_BYTES_MAX else full.partition(":")[0]
        left -= len(key.encode()) + len(value.encode())
        if left < 0:
            info.metadata["omitted"] = str(len(metadata) - position)
            return
        info.metadata[key] = value


async def abort(context: Context, error: Exception) -> NoReturn:
    """Ends the call with the error's status."""
    status = rpc_status.to_status(to_status(error))
    await context.abort(status.code, status.details, status.trailing_metadata)


def translated(
    handler: Callable[[Any, Request, Context], Awaitable[Response]],
) -> Callable[[Any, Request, Context], Awaitable[Response]]:
    """Makes a handler answer every error by the error model."""

    @wraps(handler)
    async def answer(self: Any, request: Request, context: Context) -> Response:
        try:
            return await handler(self, request, context)
        except (InvalidFieldError, errors.PointsmanError) as error:
            await abort(context, error)
        except OperationalError as error:  # Of a read: the log's writer tells of its own.
            facts = call_facts(handler.__name__, request, context)
            logger.warning(_AWAY, handler.__name__, error.orig, extra=facts)
            await abort(context, errors.StorageUnavailableError())
        except Exception as error:
            facts = call_facts(handler.__name__, request, context)
            logger.exception("%s failed", handler.__name__, extra=facts)
            await abort(context, error)

    return answer


def streamed(
    handler: Callable[[Any, Request, Context], AsyncIterator[Response]],
) -> Callable[[Any, Request, Context], AsyncIterator[Response]]:
    """As `translated`, of a handler that answers with a stream."""

    @wraps(handler)
    async def answer(self: Any, request: Request, context: Context) -> AsyncIterator[Response]:
        try:
            async for part in handler(self, request, context):
                yield part
        except (InvalidFieldError, errors.PointsmanError) as error:
            await abort(context, error)
        except OperationalError as error:  # Of a read: the log's writer tells of its own.
            facts = call_facts(handler.__name__, request, context)
            logger.warning(_AWAY, handler.__name__, error.orig, extra=facts)
            await abort(context, errors.StorageUnavailableError())
        except Exception as error:
            facts = call_facts(handler.__name__, request, context)
            logger.exception("%s failed", handler.__name__, extra=facts)
            await abort(context, error)

    return answer
