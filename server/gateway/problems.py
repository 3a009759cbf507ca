"""What the gateway refuses or cannot do, in the form of OpenAI's errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ApiError(Exception):
    """An error as the client sees it: the HTTP status, and the body that OpenAI's SDKs read."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """The body of the answer, also that of an error within a stream of chat completions."""
        return {
            "error": {"message": self.message, "type": self._type, "param": self.param, "code": self.code},
        }

    @property
    def event(self) -> dict[str, Any]:
        """The event that ends a stream of the Responses API."""
        return {"type": "error", "code": self.code or self._type, "message": self.message, "param": self.param}

    @property
    def _type(self) -> str:
        types = {401: "authentication_error", 429: "rate_limit_error"}
        return types.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")


def bad_field(param: str, message: str) -> ApiError:
    """A 400 that names the field."""
    return ApiError(400, f"{param}: {message}", code="invalid_value", param=param)
