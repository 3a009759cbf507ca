"""How the log on stderr looks: text for people, or a JSON object a line for what collects logs."""

from __future__ import annotations

import logging
import sys
import threading
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import click
from pythonjsonlogger.json import JsonFormatter

if TYPE_CHECKING:
    from types import TracebackType

# What a line may say beside its message. In JSON each is a field, as is whatever else is given by `extra`.
_FACTS = ("router", "decision_id", "model", "trace_id", "seconds", "role")
# They say much of themselves.
_QUIET = ("alembic", "grpc", "uvicorn", "wordllama")

logger = logging.getLogger(__name__)


class LogFormat(StrEnum):
    """What a line is."""

    TEXT = "text"
    JSON = "json"


class _Text(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging names it)
        """The line, with what is known after it and before a traceback."""
        known = (f" {fact}={getattr(record, fact)}" for fact in _FACTS if hasattr(record, fact))
        return super().formatMessage(record) + "".join(known)


class _Json(JsonFormatter):
    def __init__(self) -> None:
        names = {"asctime": "time", "levelname": "level", "name": "logger", "exc_info": "exception"}
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s", rename_fields=names)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002, N802
        """In UTC, as ISO 8601 has it."""
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


class _Role(logging.Filter):
    """Lets every record through, and says of each in which process of a server it was made."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self.role = role

    def filter(self, record: logging.LogRecord) -> bool:
        record.role = self.role
        return True


def set_up_logs(level: str, form: LogFormat, role: str = "") -> None:
    """Logs to stderr from here on. As JSON whatever else Python would write there is a line of the log, too.

    With a `role` each line says it: of a process that shares its log with the one that has started it.
    """
    handler = logging.StreamHandler()
    if role:
        handler.addFilter(_Role(role))
    handler.setFormatter(_Json() if form is LogFormat.JSON else _Text())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for each in _QUIET:
        logging.getLogger(each).setLevel(logging.WARNING)
    if form is LogFormat.JSON:
        logging.captureWarnings(True)
        sys.excepthook = _log_uncaught
        threading.excepthook = _log_uncaught_in_thread


def tell(message: str, level: int = logging.INFO) -> None:
    """Says how it goes to whoever has started the process, at any level: as a line of the log if that is JSON."""
    handlers = [each for each in logging.root.handlers if isinstance(each.formatter, _Json)]
    if not handlers:
        roles = [of for each in logging.root.handlers for of in each.filters if isinstance(of, _Role)]
        click.echo(message + "".join(f" role={of.role}" for of in roles), err=True)
    for each in handlers:
        each.handle(logger.makeRecord("pointsman", level, "", 0, message, (), None))


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    logger.critical("the process ends by an error", exc_info=(kind, error, trace))


def _log_uncaught_in_thread(found: Any) -> None:
    logger.critical("a thread ends by an error", exc_info=(found.exc_type, found.exc_value, found.exc_traceback))
