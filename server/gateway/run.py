"""Starts a gateway from its settings."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

from pointsman.client import Connection
from pydantic import ValidationError

from server.garbage import settle_memory
from server.gateway.app import Gateway, listen
from server.gateway.settings import GatewaySettings, SettingError, first_problem, read_gateway_config
from server.logs import set_up_logs, tell


async def run_gateway(target: str | None, given: dict[str, Any]) -> None:
    """Serves until it is told to stop. Raises SettingError, and OSError for a port that is taken."""
    try:
        settings = GatewaySettings(**given)
    except ValidationError as error:
        name = str(error.errors(include_url=False, include_input=False)[0]["loc"][0])
        raise SettingError(f"setting POINTSMAN_GATEWAY_{name.upper()}: {first_problem(error)}") from error
    set_up_logs(settings.log_level, settings.log_format)
    try:
        connection = Connection.from_environment(target)
    except ValueError as error:
        raise SettingError(str(error)) from error
    gateway = Gateway(settings, read_gateway_config(settings.config), connection)
    settle_memory()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, gateway.stop)
    with listen(settings) as listening:
        host, port = listening.getsockname()[:2]
        tell(f"Pointsman's gateway listens on {host}:{port}")
        await gateway.run(listening)
