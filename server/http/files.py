"""The console's files, read once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

_FOLDER = Path(__file__).parents[1] / "console"
_TYPES = {
    ".html": b"text/html; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".svg": b"image/svg+xml",
    ".txt": b"text/plain; charset=utf-8",
}
_INDEX = "/index.html"


@dataclass(frozen=True, slots=True)
class File:
    """What is served at a path."""

    content: bytes
    content_type: bytes
    etag: bytes


def console_files(folder: Path = _FOLDER) -> dict[str, File]:
    """The files by path; the page itself is at "/"."""
    found = {
        f"/{each.relative_to(folder).as_posix()}": _read(each)
        for each in sorted(folder.rglob("*"))
        if each.suffix in _TYPES
    }
    found["/"] = found.pop(_INDEX)
    return found


def _read(path: Path) -> File:
    content = path.read_bytes()
    return File(content, _TYPES[path.suffix], f'"{hashlib.sha256(content).hexdigest()[:32]}"'.encode())
