"""The settings of a gateway: the process's from the environment, the models' and routers' from a YAML file."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from server.logs import LogFormat

RUBRIC = "Is the answer right, complete and clear, and is it what was asked for, in the form that was asked for?"


class SettingError(Exception):
    """A setting or the gateway's file is not as it should be; the message names where."""


class GatewaySettings(BaseSettings):
    """What one process is told, as POINTSMAN_GATEWAY_... in the environment or on the command line."""

    model_config = SettingsConfigDict(env_prefix="POINTSMAN_GATEWAY_", frozen=True, allow_inf_nan=False)

    host: str = Field("127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(8080, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    config: Path | None = Field(None, description="YAML file of models and routers")
    api_key: SecretStr | None = Field(None, description="what clients must send as their key")
    api_key_file: Path | None = Field(None, description="file that has that key")
    insecure: bool = Field(False, description="serve other machines without a key")
    streams_max: int = Field(500, ge=1, description="requests served at once; one more is answered 503")
    body_bytes_max: int = Field(20 << 20, ge=1024, description="largest body taken")
    bodies_bytes_max: int = Field(
        256 << 20, ge=1024, description="bodies held at once, all together; a request too many is answered 503"
    )
    reports_max: int = Field(10_000, ge=1, description="reports that may wait for Pointsman; more are dropped")
    grace_seconds: float = Field(10.0, ge=0, le=86_400, description="how long a stop waits for answers under way")
    log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="what the log shows")
    log_format: LogFormat = Field(
        LogFormat.TEXT, description="text, or json: an object a line, for what collects logs"
    )

    def key(self) -> str | None:
        """The key that clients must send, if any. Raises SettingError for a file that has none."""
        if self.api_key_file is None:
            return self.api_key.get_secret_value() if self.api_key else None
        return _read_key(self.api_key_file, "POINTSMAN_GATEWAY_API_KEY_FILE")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelConfig(_Strict):
    """How one of Pointsman's models is called through LiteLLM."""

    litellm_model: str | None = Field(None, min_length=1)
    api_base: str | None = Field(None, min_length=1)
    api_version: str | None = None
    api_key_env: str | None = Field(None, min_length=1)
    api_key_file: Path | None = None

    @model_validator(mode="after")
    def _one_key(self) -> ModelConfig:
        if self.api_key_env and self.api_key_file:
            raise ValueError("give api_key_env or api_key_file, not both")
        return self

    def api_key(self, place: str) -> str | None:
        """The provider's key; None leaves it to LiteLLM, which knows each provider's usual variable."""
        if self.api_key_file is not None:
            return _read_key(self.api_key_file, f"{place}.api_key_file")
        if self.api_key_env is None:
            return None
        found = os.environ.get(self.api_key_env, "").strip()
        if not found:
            raise SettingError(f"{place}.api_key_env: the variable {self.api_key_env} is not set")
        return found


class ChecksConfig(_Strict):
    """What is looked at in an answer without asking anyone. Each is a signal of 0 or 1: `check_` and its name."""

    non_empty: bool = False
    valid_json: bool = False
    asked_format: bool = False
    json_schema: dict[str, Any] | None = None
    pattern: str | None = None
    tool_calls: bool = False
    no_retry_seconds: float | None = Field(None, gt=0, le=86_400)

    @field_validator("json_schema")
    @classmethod
    def _is_schema(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        try:
            jsonschema.validators.validator_for(value or {}).check_schema(value or {})
        except jsonschema.SchemaError as error:
            raise ValueError(f"is no JSON Schema: {error.message}") from error
        return value

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from error
        return value


class JudgeConfig(_Strict):
    """Another model that scores a share of the answers. Its prices are LiteLLM's where they are not given."""

    model: str = Field(min_length=1)
    share: float = Field(gt=0, le=1)
    cost_usd_per_day_max: float = Field(gt=0)
    rubric: str = Field(RUBRIC, min_length=1, max_length=20_000)
    may_judge_itself: bool = False
    input_usd_per_million_tokens: float | None = Field(None, ge=0)
    output_usd_per_million_tokens: float | None = Field(None, ge=0)
    output_tokens_max: int = Field(256, ge=1, le=100_000)
    characters_max: int = Field(20_000, ge=100, le=1_000_000)
    seconds: float = Field(60.0, gt=0, le=3600)


class RouterConfig(_Strict):
    """What the gateway does for one router beside routing."""

    checks: ChecksConfig = ChecksConfig()
    judge: JudgeConfig | None = None


class GatewayConfig(_Strict):
    """The gateway's file. Every part of it may be left out but the default model."""

    default_model: str | None = Field(None, min_length=1)
    default_router: str = Field("default", pattern=r"^[a-z0-9][a-z0-9._-]*$")
    route_seconds: float = Field(0.3, gt=0, le=60)
    request_seconds: float = Field(600.0, gt=0, le=86_400)
    attempt_seconds: float = Field(60.0, gt=0, le=86_400)
    stall_seconds: float = Field(60.0, gt=0, le=86_400)
    required_capabilities: bool = True
    named_models_as_incumbents: bool = False
    comments_file: Path | None = None
    judge_books_file: Path | None = None
    judge_queue_max: int = Field(300, ge=1, le=100_000)
    models: dict[str, ModelConfig] = {}
    routers: dict[str, RouterConfig] = {}

    @model_validator(mode="after")
    def _judges_have_books(self) -> GatewayConfig:
        if self.judge_books_file is None and any(each.judge for each in self.routers.values()):
            raise ValueError("judge_books_file: is needed, so that the cap of a judge holds across restarts")
        return self

    def router(self, name: str) -> RouterConfig:
        """Of "routers/x"."""
        return self.routers.get(name.removeprefix("routers/"), _PLAIN)


_PLAIN = RouterConfig()


def read_gateway_config(path: Path | None) -> GatewayConfig:
    """The file's content, defaults without one. Raises SettingError naming the file and the field."""
    if path is None:
        return GatewayConfig()
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingError(f"{path}: is no YAML: {error}") from error
    try:
        return GatewayConfig.model_validate({} if content is None else content)
    except ValidationError as error:
        raise SettingError(f"{path}: {first_problem(error)}") from error


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong, with its place, and without the value, which might be a key."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "there is no such field"
    return f"{place}: {message}" if place else message


def _read_key(path: Path, place: str) -> str:
    try:
        found = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SettingError(f"{place}: {path} cannot be read: {error.strerror}") from error
    if not found:
        raise SettingError(f"{place}: {path} is empty")
    return found
