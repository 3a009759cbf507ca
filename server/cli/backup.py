"""pointsman backup: copies the database of a server that may be serving."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from server.cli.loading import load_settings
from server.storage.backup import back_up


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--database-url", help="SQLite.  [default: sqlite:///pointsman.db]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def backup(file: Path, database_url: str | None, as_json: bool) -> None:
    """Copy an SQLite database to FILE, which must not be there yet, while a server goes on writing.

    The copy is of one moment, is checked, and is on the disk when the command ends. PostgreSQL has its own tools.
    """
    given: dict[str, Any] = {"database_url": database_url} if database_url else {}
    made = back_up(load_settings(given).database_url, file)
    if as_json:
        click.echo(json.dumps({"file": str(made.file), "position": made.seq, "size_bytes": made.size_bytes}))
    else:
        click.echo(f"{made.file}: the log up to position {made.seq:,}, {made.size_bytes / 1e6:.1f} MB")
