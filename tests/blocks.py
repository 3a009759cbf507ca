"""The fenced blocks of the documents."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Block:
    """What stands between two fences: of which document, from which line on, in which language by its fence."""

    document: str
    line: int
    language: str
    text: str

    @property
    def is_session(self) -> bool:
        """Whether it is a session of a shell, which `sessions` reads."""
        return self.text.startswith("$ ")

    @property
    def commands(self) -> list[str]:
        """Its lines as a shell has them, those that go on joined and without what is said beside them."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [" ".join(line.partition(" # ")[0].split()) for line in lines]


def documents() -> list[Path]:
    """All but those that are generated, which `scripts/check` holds to what they are generated from."""
    return sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def blocks(document: Path) -> list[Block]:
    """All blocks of the document, in order."""
    name = str(document.relative_to(ROOT))
    found: list[Block] = []
    opened: tuple[int, str] | None = None
    inner: list[str] = []
    for number, line in enumerate(document.read_text().splitlines(), 1):
        if not line.startswith("```"):
            inner.append(line)
        elif opened is None:
            opened, inner = (number, line.removeprefix("```").strip()), []
        else:
            found.append(Block(name, *opened, "\n".join(inner) + "\n"))
            opened = None
    assert opened is None, f"{name}:{opened} is not closed"
    return found
