"""The file of an exported snapshot: what was learned of models, without a query, a price, books, or a secret.

    pointsman-snapshot 1 <SHA-256 of all that follows, hexadecimal>\n
    <a JSON object in one line: `Header`>\n
    <the learner's state, compressed with zlib>

The state is that of a learner which has gone back to the snapshot and knows nothing else: see `policy.recall`.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from pydantic import TypeAdapter, ValidationError

from policy.domain import (
    EMBEDDING_DIMENSIONS_MAX,
    MODELS_PER_ROUTER_MAX,
    InvalidFieldError,
    LearnerKind,
    Model,
    ModelSpec,
    Router,
    RouterSpec,
    require_model_id,
)
from policy.layout import FEATURE_VERSION
from policy.learner import STATE_VERSION, RouterLearner
from server.storage.archive import Imported
from server.storage.reader import StoredSnapshot

FILE_BYTES_MAX = 512 << 20
_MAGIC = "pointsman-snapshot"
_FORMAT = 1
_HEADER_BYTES_MAX = 1 << 20
_DAMAGED = (ValueError, LookupError, TypeError, OSError, EOFError, zlib.error)


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself. `source` is the snapshot's name where it was exported; `models` are [id, uid].

    `state_version` and `feature_version` say by which learner it was made, and of which features.
    """

    source: str
    state_version: int
    feature_version: str
    learner: LearnerKind
    embedding_dimensions: int
    models: tuple[tuple[str, int], ...]
    rewards: int
    state_bytes: int

    @property
    def router(self) -> Router:
        """A router with these models and no prices, for which the state was saved."""
        models = tuple(Model(name, uid, ModelSpec()) for name, uid in self.models)
        spec = RouterSpec(embedding_dimensions=self.embedding_dimensions, learner=self.learner)
        return Router("imported", spec, models)


_HEADER = TypeAdapter(Header)


def dump_snapshot(source: str, stored: StoredSnapshot) -> bytes:
    """The file of a snapshot of this name. Raises StateVersionError for one of another version."""
    known = RouterLearner.restore(stored.router, stored.state)
    header = Header(
        source=source,
        state_version=STATE_VERSION,
        feature_version=FEATURE_VERSION,
        learner=stored.router.spec.learner,
        embedding_dimensions=stored.router.spec.embedding_dimensions,
        models=tuple((model.id, model.uid) for model in stored.router.models),
        rewards=known.view(0).router.rewards,
        state_bytes=0,
    )
    bare = RouterLearner(header.router)
    bare.recall(header.router, known, own=True)
    state = bare.state()
    said = {**_HEADER.dump_python(header, mode="json"), "state_bytes": len(state)}
    body = json.dumps(said).encode() + b"\n" + zlib.compress(state, 1)
    return f"{_MAGIC} {_FORMAT} {sha256(body).hexdigest()}\n".encode() + body


def load_snapshot(data: bytes) -> Imported:
    """The snapshot in a file. Raises InvalidFieldError for what is none, or damaged, and SnapshotVersionError."""
    first, _, body = data.partition(b"\n")
    parts = first[:200].decode("ascii", "replace").split(" ")
    if len(parts) != 3 or parts[0] != _MAGIC:
        raise InvalidFieldError("chunk", f"must be a file that begins with {_MAGIC!r}, as ExportSnapshot gives it")
    if parts[1] != str(_FORMAT):
        raise InvalidFieldError("chunk", f"is of format {parts[1][:20]!r}; this server reads {_FORMAT}")
    if sha256(body).hexdigest() != parts[2]:
        raise InvalidFieldError("chunk", "is damaged: its checksum is not the one in its first line")
    text, _, packed = body.partition(b"\n")
    try:
        header = _HEADER.validate_json(text[:_HEADER_BYTES_MAX])
    except ValidationError as error:
        first_error = error.errors(include_url=False)[0]
        raise InvalidFieldError(
            "chunk", f"has a bad header: {first_error['loc']}: {first_error['msg']}"
        ) from error
    _check(header)
    state = _unpacked(packed, header.state_bytes)
    try:
        RouterLearner.restore(header.router, state)
    except _DAMAGED as error:
        raise InvalidFieldError("chunk", f"has a state that cannot be read: {error}") from error
    return Imported(StoredSnapshot(header.router, 0, 0, state), header.source)


def _check(header: Header) -> None:
    differences = {
        name: f"{theirs} in the file, {ours} in this server"
        for name, theirs, ours in (
            ("state_version", header.state_version, STATE_VERSION),
            ("feature_version", header.feature_version, FEATURE_VERSION),
        )
        if theirs != ours
    }
    if differences:
        raise SnapshotVersionError(differences)
    if not 1 <= header.embedding_dimensions <= EMBEDDING_DIMENSIONS_MAX:
        raise InvalidFieldError("chunk", f"has embedding_dimensions {header.embedding_dimensions}")
    if len(header.models) > MODELS_PER_ROUTER_MAX or not 0 < header.state_bytes <= FILE_BYTES_MAX:
        raise InvalidFieldError("chunk", "has more models or a larger state than a router can have")
    for name, _ in header.models:
        require_model_id("chunk", name)
    if len(header.source) > 160 or "\0" in header.source:
        raise InvalidFieldError("chunk", "has a source of more than 160 characters, or with a NUL in it")


class SnapshotVersionError(Exception):
    """A whole file of another version of the server; by name, what differs."""

    def __init__(self, differences: Mapping[str, Any]) -> None:
        super().__init__(str(differences))
        self.differences = {name: str(what) for name, what in differences.items()}


def _unpacked(packed: bytes, size: int) -> bytes:
    try:
        unpacker = zlib.decompressobj()
        state = unpacker.decompress(packed, size + 1)
    except zlib.error as error:
        raise InvalidFieldError("chunk", "has a state that cannot be unpacked") from error
    if len(state) != size:
        raise InvalidFieldError("chunk", f"has a state that is not of the {size} bytes that its header says")
    return state
