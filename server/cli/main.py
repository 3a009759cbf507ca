"""The entry point: gathers the commands, and turns bad input into one line and exit code 2."""

from __future__ import annotations

import logging
import sys

import click
from sqlalchemy.exc import SQLAlchemyError
from threadpoolctl import threadpool_limits

from policy.domain import InvalidFieldError
from server.cli.backup import backup
from server.cli.bench import bench
from server.cli.calibrate import calibrate_command
from server.cli.completion import completion
from server.cli.evaluate import evaluate
from server.cli.explain import explain
from server.cli.gateway import gateway
from server.cli.health import health
from server.cli.import_decisions import import_decisions
from server.cli.keys import keys
from server.cli.models import models
from server.cli.paid_shadow import paid_shadow
from server.cli.policies import policies
from server.cli.replay import replay
from server.cli.serve import serve
from server.cli.shadow import shadow
from server.cli.signals import signals
from server.cli.snapshots import snapshots
from server.cli.verify import verify
from server.config_file import ConfigError
from server.errors import PointsmanError
from server.logs import tell

_MESSAGE_MAX = 500


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pointsman")
def cli() -> None:
    """Pointsman routes each query to the language model that is worth its cost, and learns from rewards."""


_COMMANDS = (
    *(serve, replay, evaluate, models, policies, snapshots, explain, shadow, paid_shadow, import_decisions),
    *(keys, bench, verify, backup, gateway, health, signals, calibrate_command, completion),
)
for command in _COMMANDS:
    cli.add_command(command)


def main() -> None:
    """Runs the command line."""
    # One BLAS thread: more of them would spin on these small matrices, and with another number of
    # them sums are taken in another order, so that a rebuilt learner could differ in its last bits.
    threadpool_limits(limits=1, user_api="blas")
    try:
        sys.exit(cli.main(standalone_mode=False))
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        _fail(error.format_message())
    except (SQLAlchemyError, ConfigError, InvalidFieldError, PointsmanError, OSError) as error:
        _fail(str(error))


def _fail(message: str) -> None:
    tell(f"pointsman: {' '.join(message.split())[:_MESSAGE_MAX]}", logging.ERROR)
    sys.exit(2)


if __name__ == "__main__":
    main()
