"""Loads the settings of a server, for its own command and those that go to its database beside it."""

from __future__ import annotations

from typing import Any

import click
from pydantic import ValidationError

from server.settings import Settings


def load_settings(given: dict[str, Any]) -> Settings:
    """The settings from the command line and the environment. Raises ClickException naming the setting."""
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        raise click.UsageError(f"setting {name} (POINTSMAN_{name.upper()}): {first['msg']}") from error
