"""The entry point: finds the commands, and turns bad input into one line and exit code 2."""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from typing import cast

import click
from threadpoolctl import threadpool_limits

from policy.domain import InvalidFieldError
from server.errors import PointsmanError
from server.logs import tell

_MESSAGE_MAX = 500
# By the name of a command its module, and what it is there.
_COMMANDS = {
    "backup": ("backup", "backup"),
    "bench": ("bench", "bench"),
    "calibrate": ("calibrate", "calibrate_command"),
    "completion": ("completion", "completion"),
    "evaluate": ("evaluate", "evaluate"),
    "explain": ("explain", "explain"),
    "gateway": ("gateway", "gateway"),
    "health": ("health", "health"),
    "import": ("import_decisions", "import_decisions"),
    "keys": ("keys", "keys"),
    "models": ("models", "models"),
    "paid-shadow": ("paid_shadow", "paid_shadow"),
    "policies": ("policies", "policies"),
    "replay": ("replay", "replay"),
    "serve": ("serve", "serve"),
    "shadow": ("shadow", "shadow"),
    "signals": ("signals", "signals"),
    "snapshots": ("snapshots", "snapshots"),
    "verify": ("verify", "verify"),
}
# Errors of modules that not every command loads.
_REFUSALS = {"sqlalchemy.exc": "SQLAlchemyError", "server.config_file": "ConfigError"}


class _Commands(click.Group):
    """Loads a command when it is asked for: one that only connects does in a fifth of a second what would take a
    second with all that a server needs.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """All, loaded or not."""
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command, loaded."""
        if cmd_name not in _COMMANDS:
            return None
        module, name = _COMMANDS[cmd_name]
        command = cast("click.Command", getattr(import_module(f"server.cli.{module}"), name))
        # One BLAS thread: more of them would spin on these small matrices, and with another number of
        # them sums are taken in another order, so that a rebuilt learner could differ in its last bits.
        threadpool_limits(limits=1, user_api="blas")
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pointsman")
def cli() -> None:
    """Pointsman routes each query to the language model that is worth its cost, and learns from rewards."""


def main() -> None:
    """Runs the command line."""
    try:
        sys.exit(cli.main(standalone_mode=False))
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        _fail(error.format_message())
    except _refusals() as error:
        _fail(str(error))


def _refusals() -> tuple[type[Exception], ...]:
    """What is bad input. Nobody has raised an error of a module that is not loaded."""
    loaded = [getattr(sys.modules[module], name) for module, name in _REFUSALS.items() if module in sys.modules]
    return InvalidFieldError, PointsmanError, OSError, *loaded


def _fail(message: str) -> None:
    tell(f"pointsman: {' '.join(message.split())[:_MESSAGE_MAX]}", logging.ERROR)
    sys.exit(2)


if __name__ == "__main__":
    main()
