"""The page of the server's settings."""

from __future__ import annotations

from enum import Enum

from annotated_types import Ge, Gt, Le
from pydantic.fields import FieldInfo

from server.settings import Settings

_HEAD = """# Settings of a server

Generated from [server/settings.py](../../server/settings.py) by `scripts/generate_reference`.

They come from the environment. `--host`, `--port`, `--database-url` and `--config` are also options of
`pointsman serve`, and go before it. A wrong value, an empty one among them, is an error at the start.

| variable | default | from | to | meaning |
|---|---|---|---|---|
"""


def settings_page() -> str:
    """Markdown."""
    return _HEAD + "".join(_row(name, field) for name, field in Settings.model_fields.items())


def _row(name: str, field: FieldInfo) -> str:
    value = field.default
    default = "" if value is None else f"`{str(value.value if isinstance(value, Enum) else value).lower()}`"
    least = next((_bound(each) for each in field.metadata if isinstance(each, Ge | Gt)), "")
    most = next((_bound(each) for each in field.metadata if isinstance(each, Le)), "")
    return f"| `POINTSMAN_{name.upper()}` | {default} | {least} | {most} | {field.description} |\n"


def _bound(bound: Ge | Gt | Le) -> str:
    if isinstance(bound, Gt):
        return f"above {bound.gt:,}"
    return f"{bound.ge if isinstance(bound, Ge) else bound.le:,}"
