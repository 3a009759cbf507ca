"""The documents lead where they say, and tell all there is: every link, every field of a file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from policy.domain import ModelSpec, RouterSpec

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")


def headings(path: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    lines = (line.lstrip("#").strip().lower() for line in path.read_text().splitlines() if line.startswith("#"))
    return {re.sub(r"[^a-z0-9 _-]", "", line).replace(" ", "-") for line in lines}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    broken = []
    for link in LINK.findall(document.read_text()):
        if link.startswith("http"):
            continue
        path, _, heading = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        if not target.exists() or (heading and heading not in headings(target)):
            broken.append(link)
    assert not broken


def paths(value: Any, prefix: str = "") -> Iterator[str]:
    """The fields of a spec as a file names them."""
    for field in fields(value):
        inner = getattr(value, field.name)
        if is_dataclass(inner):
            yield from paths(inner, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"


@pytest.mark.parametrize("spec", [RouterSpec(), ModelSpec()], ids=["router", "model"])
def test_every_field_of_a_file_is_told(spec: Any) -> None:
    told = (ROOT / "docs/routers.md").read_text().replace("`models.ID.", "`").replace("`prices.", "`")
    assert [path for path in paths(spec) if f"`{path.removeprefix('prices.')}`" not in told] == []
