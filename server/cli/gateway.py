"""pointsman gateway: speaks the OpenAI API and Anthropic's, and lets a server choose the model."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

_MISSING = "the gateway needs more packages: pip install 'pointsman[gateway]'"


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="YAML file of models and routers.")
@click.option("--target", help="Pointsman's server (POINTSMAN_TARGET).  [default: 127.0.0.1:50051]")
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="Port to listen on; 0 takes a free one.  [default: 8080]")
def gateway(target: str | None, **given: Any) -> None:
    """Serve the OpenAI API and Anthropic's: route, call the model, fall back, report.

    Every setting can also be given in the environment, as POINTSMAN_GATEWAY_PORT and so on; docs/gateway.md lists
    them. Needs pip install 'pointsman[gateway]'.
    """
    try:
        # Only here: LiteLLM takes seconds to import, and need not be there for the other commands.
        from server.gateway.run import run_gateway  # noqa: PLC0415
        from server.gateway.settings import SettingError  # noqa: PLC0415

        try:
            asyncio.run(run_gateway(target, {key: value for key, value in given.items() if value is not None}))
        except SettingError as error:
            raise click.UsageError(str(error)) from error
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{_MISSING} ({error.name} is missing)") from error
