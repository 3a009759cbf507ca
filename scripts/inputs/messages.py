"""Strategies for requests: any message of a descriptor, of values at the edges and names that the server knows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

_DEPTH_MAX = 4
_MANY = 6
_DOUBLES = (0.0, -0.0, 0.5, 1.0, -1.0, 5e-324, 1e-320, 1e300, -1e300, math.nan, math.inf, -math.inf, 1.0000001)
_TEXTS = (
    *(
        "",
        " ",
        "\x00",
        "a",
        "*",
        "routers/",
        "routers//models/",
        "/",
        "..",
        "../../etc/passwd",
        "é",
        "🙂",
        "\u202e",
    ),
    *("' OR 1=1 --", "%s%n", "{0}", "${HOME}", "<script>", "nan", "-1", "Routers/Default", "x" * 300, "ü" * 5000),
)
_INTEGERS: Mapping[int, tuple[int, int]] = {
    FieldDescriptor.CPPTYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, (1 << 64) - 1),
}


class Requests:
    """What may be sent. `known` are names, ids and etags that the server has, by the field that takes them;
    three in five texts are of these.
    """

    def __init__(self, known: Mapping[str, Sequence[str]]) -> None:
        every = [text for texts in known.values() for text in texts]
        self._texts = {name: _texts(texts) for name, texts in known.items()}
        self._other = _texts(every)
        self._built: dict[tuple[str, int], st.SearchStrategy[Message]] = {}

    def of(self, descriptor: Descriptor) -> st.SearchStrategy[bytes]:
        """Messages as they are sent: most whole, some damaged, a few of no shape at all."""
        whole = self._message(descriptor, 0).map(lambda message: message.SerializeToString())
        return st.one_of(whole, whole, whole, _damaged(whole), st.binary(max_size=200))

    def _message(self, descriptor: Descriptor, depth: int) -> st.SearchStrategy[Message]:
        known = self._built.get((descriptor.full_name, depth))
        if known is None:
            fields = [each for each in descriptor.fields if depth < _DEPTH_MAX or not each.message_type]
            values = {each.name: self._field(each, depth) for each in fields}
            known = st.fixed_dictionaries({}, optional=values).map(lambda given: _made(descriptor, given))
            self._built[descriptor.full_name, depth] = known
        return known

    def _field(self, field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
        entry = field.message_type
        if entry is not None and entry.GetOptions().map_entry:
            key = self._one(entry.fields_by_name["key"], depth)
            return st.dictionaries(key, self._one(entry.fields_by_name["value"], depth), max_size=_MANY)
        one = self._one(field, depth)
        return st.lists(one, max_size=_MANY) if field.is_repeated else one

    def _text(self, field: str) -> st.SearchStrategy[str]:
        return self._texts.get(field, self._other)

    def _one(self, field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
        kind = field.cpp_type
        if field.message_type is not None:
            return self._message(field.message_type, depth + 1)
        if field.enum_type is not None:
            return st.sampled_from([*(each.number for each in field.enum_type.values), 99])
        if kind in _INTEGERS:
            low, high = _INTEGERS[kind]
            return st.one_of(st.integers(0, 1000), st.sampled_from((low, high, low + 1, high - 1)))
        if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
            return st.one_of(st.floats(0, 1), st.sampled_from(_DOUBLES), _floats(kind))
        if kind == FieldDescriptor.CPPTYPE_BOOL:
            return st.booleans()
        return st.binary(max_size=40) if field.type == FieldDescriptor.TYPE_BYTES else self._text(field.name)


def _floats(kind: int) -> st.SearchStrategy[float]:
    return st.floats() if kind == FieldDescriptor.CPPTYPE_DOUBLE else st.floats(width=32)


def _texts(known: Sequence[str]) -> st.SearchStrategy[str]:
    right = st.sampled_from(known)
    return st.one_of(right, right, right, st.sampled_from(_TEXTS), st.text(max_size=20))


def _made(descriptor: Descriptor, given: Mapping[str, Any]) -> Message:
    message = GetMessageClass(descriptor)()
    for name, value in given.items():
        _put(message, descriptor.fields_by_name[name], value)
    return message


def _put(message: Message, field: FieldDescriptor, value: Any) -> None:
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        held = getattr(message, field.name)
        for key, each in value.items():
            if entry.fields_by_name["value"].message_type is not None:
                held[key].CopyFrom(each)
            else:
                held[key] = each
    elif field.is_repeated:
        getattr(message, field.name).extend(value)
    elif entry is not None:
        getattr(message, field.name).CopyFrom(value)
    else:
        setattr(message, field.name, value)


def _damaged(whole: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Cut short, or with one byte changed."""

    def damage(data: bytes, at: float, byte: int, cut: bool) -> bytes:
        index = int(at * len(data))
        return data[:index] + (b"" if cut else bytes([byte]) + data[index + 1 :])

    share = st.floats(0, 1, exclude_max=True)
    return st.builds(damage, whole, share, st.integers(0, 255), st.booleans())
