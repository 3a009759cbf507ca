"""What the gateway refuses or cannot do, in the form of OpenAI's errors or of Anthropic's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_ANTHROPIC_TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


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
    def message_body(self) -> dict[str, Any]:
        """The same as Anthropic's SDKs read it, also within a stream of the Messages API."""
        kind = _ANTHROPIC_TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "api_error")
        return {"type": "error", "error": {"type": kind, "message": self.message}}

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
