"""pointsman verify: checks a database against itself."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress
from sqlalchemy.exc import SQLAlchemyError

from server.audit import audit
from server.cli.loading import load_settings
from server.storage.engine import open_engine, shown_url
from server.storage.reader import LogReader


@click.command()
@click.option("--database-url", help="SQLite or PostgreSQL.  [default: sqlite:///pointsman.db]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(database_url: str | None, as_json: bool) -> None:
    """Make every logged draw again, follow every revised reward back to what it replaced, and rebuild every
    snapshot from the log; exit 1 if anything differs.
    """
    given: dict[str, Any] = {"database_url": database_url} if database_url else {}
    settings = load_settings(given)
    engine = open_engine(settings.database_url, settings.durability, create=False)
    reader = LogReader(engine)
    try:
        console = Console(stderr=True)
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("verifying", total=2 * reader.head())
            result = audit(reader, lambda positions: progress.advance(task, positions))
    except SQLAlchemyError as error:
        raise click.ClickException(f"{shown_url(settings.database_url)}: cannot be read: {error}") from error
    finally:
        engine.dispose()
    if as_json:
        click.echo(json.dumps(asdict(result)))
    else:
        click.echo(f"decisions {result.decisions}, of which drawn otherwise {result.draws_wrong}")
        if result.imported:
            click.echo(f"imported decisions {result.imported}, which were drawn elsewhere")
        click.echo(
            f"revised rewards {result.revisions}, of which of another than the one before {result.revisions_wrong}"
        )
        click.echo(f"snapshots {result.snapshots}, of which not what the log gives {result.snapshots_wrong}")
        if result.days:
            click.echo(f"days with second calls {result.days}, of which the books are wrong {result.days_wrong}")
        if result.dropped:
            click.echo(
                f"the log up to position {result.dropped} was dropped by its retention: {result.unchecked} more "
                "snapshots are from before, or what the others were rebuilt from"
            )
        if result.unreadable:
            click.echo("the log cannot be read to its end")
        for example in result.examples:
            click.echo(f"  {example}")
    sys.exit(0 if result.passed else 1)
