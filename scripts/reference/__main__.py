"""Writes the reference pages, or checks that they are what the sources give."""

from __future__ import annotations

import sys
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from scripts.reference.api import api_pages
from scripts.reference.commands import commands_page
from scripts.reference.settings import settings_page


def main() -> int:
    """The exit status: 1 if a page is stale and only to be checked."""
    descriptors, folder, *options = sys.argv[1:]
    files = FileDescriptorSet.FromString(Path(descriptors).read_bytes()).file
    pages = {"settings.md": settings_page(), "commands.md": commands_page(), **api_pages(files)}
    stale = []
    for name, text in pages.items():
        path = Path(folder) / name
        if "--check" not in options:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            stale.append(str(path))
    for page in stale:
        print(f"{page} is stale: run scripts/generate_reference", file=sys.stderr)
    return 1 if stale else 0


sys.exit(main())
