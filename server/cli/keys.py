"""pointsman keys: creates, lists and revokes API keys, on the database itself."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import click
from rich.table import Table
from sqlalchemy import Engine

from policy.domain import require_number, require_router_id
from server.cli.loading import load_settings
from server.cli.remote import console
from server.clock import now_us
from server.keys import KEY_NAME_LENGTH_MAX, ApiKey, Scope, digest_of, new_key_text
from server.storage.engine import migrate, open_engine
from server.storage.key_store import create_key, read_keys, revoke_key

_RATE_MAX = 1e6
_DAYS_MAX = 36_500.0


@click.group()
@click.option("--database-url", help="As that of pointsman serve.  [default: sqlite:///pointsman.db]")
@click.pass_context
def keys(context: click.Context, database_url: str | None) -> None:
    """Create, list and revoke API keys.

    This works on the database, so that whoever can write there is who hands out keys. Servers follow within a
    second. Once there has been a key, none is served without one.
    """
    context.obj = load_settings({"database_url": database_url} if database_url else {})


@contextmanager
def _engine(settings: Any, *, create: bool = False) -> Iterator[Engine]:
    logging.getLogger("alembic").setLevel(logging.WARNING)
    engine = open_engine(settings.database_url, settings.durability, create=create)
    try:
        migrate(engine)
        yield engine
    finally:
        engine.dispose()


@keys.command()
@click.option("--name", default="", help="Whose it is, for the list.")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice([each.value for each in Scope]),
    multiple=True,
    required=True,
    help="What it is good for; may be given often.",
)
@click.option("--router", "routers", multiple=True, help="A router's id; may be given often.  [default: all]")
@click.option("--days", type=float, help="After how many days it expires.  [default: never]")
@click.option("--rate", type=float, help="Requests a second, of each server.  [default: as many as it can]")
@click.option("--burst", type=int, help="Requests at once after a pause.  [default: a second's]")
@click.option("--concurrent", type=int, help="Requests in flight, of each server.  [default: as many as it can]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def create(settings: Any, /, as_json: bool, **given: Any) -> None:
    """Create a key and print it, this once: only a hash of it is kept."""
    key_id, text = new_key_text()
    key = _key(key_id, text, **given)
    with _engine(settings, create=True) as engine:
        create_key(engine, key)
    if as_json:
        click.echo(json.dumps({"key": text, **_values(key)}))
        return
    click.echo(text)
    click.echo("This is shown once. Servers take it within a second.", err=True)


def _key(
    key_id: str,
    text: str,
    name: str,
    scopes: tuple[str, ...],
    routers: tuple[str, ...],
    days: float | None,
    rate: float | None,
    burst: int | None,
    concurrent: int | None,
) -> ApiKey:
    """Raises InvalidFieldError."""
    if len(name) > KEY_NAME_LENGTH_MAX:
        raise click.UsageError(f"--name: must be at most {KEY_NAME_LENGTH_MAX} characters")
    for each in routers:
        require_router_id("--router", each)
    if days is not None:
        require_number("--days", days, 0, _DAYS_MAX, above=True)
    if rate is not None:
        require_number("--rate", rate, 0, _RATE_MAX, above=True)
    for option, value in (("--burst", burst), ("--concurrent", concurrent)):
        if value is not None:
            require_number(option, value, 1, _RATE_MAX)
    if burst is not None and rate is None:
        raise click.UsageError("--burst: says nothing without --rate")
    now = now_us()
    return ApiKey(
        id=key_id,
        name=name,
        digest=digest_of(text),
        scopes=frozenset(map(Scope, scopes)),
        create_us=now,
        routers=frozenset(routers) or None,
        expire_us=None if days is None else now + round(days * 86_400e6),
        requests_per_second=rate,
        burst=burst,
        concurrent_max=concurrent,
    )


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_keys(settings: Any, as_json: bool) -> None:
    """List the keys, those that are revoked or expired too."""
    with _engine(settings) as engine:
        found = read_keys(engine)
    if as_json:
        click.echo(json.dumps([_values(each) for each in found]))
        return
    grid = Table()
    for heading in ("key", "name", "scopes", "routers", "limits", "created", "state"):
        grid.add_column(heading)
    for each in found:
        grid.add_row(
            each.id,
            each.name,
            ", ".join(sorted(each.scopes)),
            "all" if each.routers is None else ", ".join(sorted(each.routers)),
            _limits(each),
            _time(each.create_us),
            _state(each),
        )
    console().print(grid)


@keys.command()
@click.argument("key_id", metavar="KEY")
@click.pass_obj
def revoke(settings: Any, key_id: str) -> None:
    """Revoke KEY, which is the id that the list shows. It is refused within a second, and never good again."""
    with _engine(settings) as engine:
        if not revoke_key(engine, key_id, now_us()):
            raise click.UsageError(
                f"there is no key {key_id[:80]!r} that could be revoked: see pointsman keys list"
            )
    click.echo(f"{key_id} is revoked")


def _limits(key: ApiKey) -> str:
    parts = []
    if key.requests_per_second is not None:
        burst = f", {key.burst} at once" if key.burst else ""
        parts.append(f"{key.requests_per_second:g}/s{burst}")
    if key.concurrent_max is not None:
        parts.append(f"{key.concurrent_max} in flight")
    return "; ".join(parts)


def _state(key: ApiKey) -> str:
    if key.revoke_us is not None:
        return f"revoked {_time(key.revoke_us)}"
    if key.expire_us is None:
        return "good"
    return f"{'expired' if now_us() >= key.expire_us else 'good until'} {_time(key.expire_us)}"


def _time(time_us: int) -> str:
    return datetime.fromtimestamp(time_us / 1e6, UTC).isoformat(" ", "seconds").removesuffix("+00:00")


def _values(key: ApiKey) -> dict[str, Any]:
    """What a program may know of a key; times are seconds since 1970."""
    return {
        "id": key.id,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "routers": None if key.routers is None else sorted(key.routers),
        "requests_per_second": key.requests_per_second,
        "burst": key.burst,
        "concurrent_max": key.concurrent_max,
        "create_time": key.create_us / 1e6,
        "expire_time": None if key.expire_us is None else key.expire_us / 1e6,
        "revoke_time": None if key.revoke_us is None else key.revoke_us / 1e6,
    }
