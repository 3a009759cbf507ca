"""Starts a gateway from its settings."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from typing import Any

from pydantic import ValidationError

from server.gateway.app import Gateway, listen
from server.gateway.decisions import Address
from server.gateway.settings import GatewaySettings, SettingError, first_problem, read_gateway_config


async def run_gateway(target: str | None, given: dict[str, Any]) -> None:
    """Serves until it is told to stop. Raises SettingError, and OSError for a port that is taken."""
    try:
        settings = GatewaySettings(**given)
    except ValidationError as error:
        name = str(error.errors(include_url=False, include_input=False)[0]["loc"][0])
        raise SettingError(f"setting POINTSMAN_GATEWAY_{name.upper()}: {first_problem(error)}") from error
    logging.basicConfig(
        level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    for name in ("uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.WARNING)
    gateway = Gateway(settings, read_gateway_config(settings.config), Address.from_environment(target))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, gateway.stop)
    with listen(settings) as listening:
        host, port = listening.getsockname()[:2]
        sys.stderr.write(f"Pointsman's gateway listens on {host}:{port}\n")
        sys.stderr.flush()
        await gateway.run(listening)
