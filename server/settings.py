"""The settings of a server, from the environment (POINTSMAN_...) and the command line."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from server.logs import LogFormat
from server.storage.engine import Durability


class Role(StrEnum):
    """What a server does. Of those that may learn, on one database, one does, and the others stand by."""

    ALL = "all"
    ROUTER = "router"
    LEARNER = "learner"


class Settings(BaseSettings):
    """Every setting has a default that is safe on one machine."""

    model_config = SettingsConfigDict(env_prefix="POINTSMAN_", frozen=True, allow_inf_nan=False)

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(50051, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    database_url: str = Field(
        "sqlite:///pointsman.db",
        description="an SQLite file, created if need be, or postgresql://USER:PASSWORD@HOST/DATABASE",
    )
    durability: Durability = Field(
        Durability.POWER_LOSS,
        description="what an acknowledged write survives: power_loss (every commit is forced to the disk) or "
        "process_crash (faster; a crash of the machine may lose the last commits). "
        "PostgreSQL always forces them",
    )
    role: Role = Field(
        Role.ALL,
        description="all, or where several servers share a PostgreSQL, or on one machine an SQLite file: router "
        "answers and never learns, learner learns or stands by to, and answers nothing but health",
    )
    learner_process: bool = Field(
        False,
        description="learn and evaluate in a process of its own, which this server starts, watches and stops: "
        "more answers a second, and sooner, where there is a processor for it",
    )
    share_port: bool = Field(
        False,
        description="let other servers on this machine, which share the database, listen on the same port",
    )
    config: Path | None = Field(None, description="YAML file of routers and models to apply at the start")
    write_queue_max: int = Field(
        4096,
        ge=1,
        description="writes that may wait for the disk; one more is refused with RESOURCE_EXHAUSTED",
    )
    storage_wait_seconds: float = Field(
        1.0,
        gt=0,
        le=60,
        description="how long a request waits for the database before it is refused, or answered unlogged where "
        "its router's storage_away says so",
    )
    snapshot_seconds: float = Field(
        5.0,
        gt=0,
        le=86_400,
        description="how often the learner saves its state, from which a restart reads the log; more rarely, "
        "down to every 15 s, where saving would take more than a five-hundredth of the time",
    )
    evaluation_seconds: float = Field(
        30.0,
        gt=0,
        le=86_400,
        description="how often the evaluation of candidate policies saves its state; if more often than every "
        "15 s, then down to that where saving would take more than a five-hundredth of the time",
    )
    metrics_host: str = Field(
        "127.0.0.1", description="address to answer Prometheus on, where metrics_port is set"
    )
    metrics_port: int | None = Field(
        None, ge=0, le=65535, description="port of /metrics for Prometheus; 0 takes a free one, none is no metrics"
    )
    learner_metrics_port: int | None = Field(
        None, ge=0, le=65535, description="the same of the learner's process, where learner_process is set"
    )
    retention_days: float | None = Field(
        None,
        gt=0,
        le=36_500,
        description="how long decisions and their reports are kept, at least; without it, for ever. "
        "No router's join window may be longer",
    )
    http_host: str = Field("127.0.0.1", description="address to serve JSON over HTTP on")
    http_port: int | None = Field(
        50080,
        ge=0,
        le=65535,
        description="port of JSON over HTTP; 0 takes a free one, off is no HTTP",
    )
    tls_certificate: Path | None = Field(None, description="PEM file of the server's certificate and its chain")
    tls_key: Path | None = Field(None, description="PEM file of that certificate's private key")
    tls_client_ca: Path | None = Field(
        None, description="PEM file of the authorities that clients' certificates must come from (mutual TLS)"
    )
    tls_ends_elsewhere: bool = Field(
        False, description="serve other machines in the clear, since a proxy in front of this one has the TLS"
    )
    insecure: bool = Field(False, description="serve other machines though there are no keys")
    message_bytes_max: int = Field(
        16 << 20, ge=1 << 16, le=(1 << 31) - 1, description="largest gRPC message taken"
    )
    grace_seconds: float = Field(10.0, ge=0, le=86_400, description="how long a stop waits for requests in flight")
    log_level: str = Field(
        "INFO",
        pattern="^(DEBUG|INFO|WARNING|ERROR)$",
        description="what the log on stderr shows; of DEBUG a line for every call",
    )
    log_format: LogFormat = Field(
        LogFormat.TEXT, description="text, or json: an object a line, for what collects logs"
    )

    @property
    def window_seconds_max(self) -> float | None:
        """How long a join window may be; None: as long as one likes."""
        return None if self.retention_days is None else self.retention_days * 86_400.0

    @property
    def several(self) -> bool:
        """Whether other processes are to use the database too, even where it is an SQLite file."""
        return self.role is not Role.ALL or self.share_port or self.learner_process

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_empty(cls, value: Any) -> Any:
        """A variable that expands to nothing is a mistake: an empty host would be every address, an empty
        path the working directory.
        """
        if isinstance(value, str | Path) and str(value).strip() in ("", "."):
            raise PydanticCustomError("empty", "must not be empty; leave it out to have its default")
        return value

    @field_validator("learner_process")
    @classmethod
    def _of_all(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("role") is not Role.ALL:
            raise PydanticCustomError("role", "is for the role all: other servers have their learner elsewhere")
        return value

    @field_validator("learner_metrics_port")
    @classmethod
    def _of_its_own(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value and info.data.get("learner_process") and value == info.data.get("metrics_port"):
            raise PydanticCustomError("port", "must be another than metrics_port: two processes answer there")
        return value

    @field_validator("http_port", mode="before")
    @classmethod
    def _turned_off(cls, value: Any) -> Any:
        """Since there is a default, off has to be said."""
        return None if value == "off" else value
