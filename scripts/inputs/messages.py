"""Strategies for requests: any message of a descriptor, of values at the edges, names that the server knows, and
messages that are right.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from scripts.inputs.contents import Contents

_DEPTH_MAX = 4
_MANY = 6
_CHANGES_MAX = 2
_DOUBLES = (0.0, -0.0, 0.5, 1.0, -1.0, 5e-324, 1e-320, 1e300, -1e300, math.nan, math.inf, -math.inf, 1.0000001)
# What a message cannot hold is put in their place on the wire, at the same length: lone surrogates; no UTF-8 at
# all. Three each: one stands by chance in some files of half a megabyte, which would be damaged then.
_UNSENDABLE = {"\ufdd0" * 3: b"\xed\xa0\x80" * 3, "\ufdd1" * 3: b"\xff\xfe\xfd" * 3}
_NUMBERS = (
    *(str(1 << 63), str((1 << 63) - 1), str(-(1 << 63) - 1), str(1 << 64), "9" * 30, "0" * 30, "1" * 18, "1" * 19),
    *("-1", "1e308", "nan", "\u00b2", "\uff11\uff12", "\u0661"),
)
_TEXTS = (
    *("", " ", "\x00", "a\x00b", "a", "*", "routers/", "routers//models/", "/", "..", "../../etc/passwd"),
    *(
        "\u00e9",
        "\U0001f642",
        "\u202e",
        "' OR 1=1 --",
        "%s%n",
        "{0}",
        "${HOME}",
        "<script>",
        "Routers/Default",
        "x" * 300,
    ),
    *("\u00fc" * 5000, *_UNSENDABLE, *_NUMBERS, *(f"{each}:candidate" for each in _NUMBERS[:6])),
)
_INTEGERS: Mapping[int, tuple[int, int]] = {
    FieldDescriptor.CPPTYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, (1 << 64) - 1),
}


class Requests:
    """What may be sent, given what the server holds; three in five texts are such as it knows."""

    def __init__(self, contents: Contents) -> None:
        every = [text for texts in contents.known.values() for text in texts if isinstance(text, str)]
        self._known = {name: _near(texts) for name, texts in contents.known.items()}
        self._other = _near(every or [""])
        self._right = contents.right
        self._built: dict[tuple[str, int], st.SearchStrategy[Message]] = {}

    def of(self, descriptor: Descriptor) -> st.SearchStrategy[bytes]:
        """Messages as they are sent: most whole, some damaged, a few of no shape at all."""
        whole = self._message(descriptor, 0).map(_sent)
        return st.one_of(whole, whole, whole, _damaged(whole), st.binary(max_size=200))

    def right(self, descriptor: Descriptor) -> tuple[bytes, bytes]:
        """Two messages that are right as they are, and in no other's way."""
        known = self._right[descriptor.full_name]
        return _sent(known[0]), _sent(known[-1])

    def _message(self, descriptor: Descriptor, depth: int) -> st.SearchStrategy[Message]:
        """Any, or else two in three with a few fields changed of one that is right."""
        known = self._built.get((descriptor.full_name, depth))
        if known is None:
            fields = [each for each in descriptor.fields if depth < _DEPTH_MAX or not each.message_type]
            values = {each.name: self._field(each, depth) for each in fields}
            known = st.fixed_dictionaries({}, optional=values).map(lambda given: _made(descriptor, given))
            right = self._right.get(descriptor.full_name)
            if right:
                changed = _changed(right, values)
                known = st.one_of(changed, changed, known)
            self._built[descriptor.full_name, depth] = known
        return known

    def _field(self, field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
        entry = field.message_type
        if entry is not None and entry.GetOptions().map_entry:
            key = self._one(entry.fields_by_name["key"], depth)
            return st.dictionaries(key, self._one(entry.fields_by_name["value"], depth), max_size=_MANY)
        one = self._one(field, depth)
        return st.lists(one, max_size=_MANY) if field.is_repeated else one

    def _near(self, field: FieldDescriptor, usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        message = field.containing_type.name if field.containing_type else ""
        own = self._known.get(f"{message}.{field.name}")
        return own if own is not None else self._known.get(field.name, usual)

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
        usual = st.binary(max_size=40) if field.type == FieldDescriptor.TYPE_BYTES else self._other
        return self._near(field, usual)


def _floats(kind: int) -> st.SearchStrategy[float]:
    return st.floats() if kind == FieldDescriptor.CPPTYPE_DOUBLE else st.floats(width=32)


def _near(known: Sequence[Any]) -> st.SearchStrategy[Any]:
    """Texts or bytes: known ones, and others."""
    right = _any_of(known)
    if isinstance(known[0], bytes):
        return st.one_of(right, right, st.binary(max_size=40))
    edge = st.sampled_from(_TEXTS)
    last = st.builds(lambda name, other: f"{name.rpartition('/')[0]}/{other}", right, edge)
    return st.one_of(right, right, right, edge, st.one_of(last, st.text(max_size=20)))


def _any_of(values: Sequence[Any]) -> st.SearchStrategy[Any]:
    """One of them, which may be long: hypothesis writes out what it is given itself."""
    return st.integers(0, len(values) - 1).map(lambda index: values[index])


def _changed(right: Sequence[Message], values: Mapping[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Message]:
    if not values:
        return _any_of(right)
    one = st.one_of([value.map(partial(_named, name)) for name, value in values.items()])
    return st.builds(_with, _any_of(right), st.lists(one, max_size=_CHANGES_MAX))


def _named(name: str, value: Any) -> tuple[str, Any]:
    return name, value


def _with(right: Message, changes: Sequence[tuple[str, Any]]) -> Message:
    message = type(right)()
    message.CopyFrom(right)
    fields: Any = right.DESCRIPTOR.fields_by_name
    for name, value in changes:
        message.ClearField(name)
        _put(message, fields[name], value)
    return message


def _sent(message: Message) -> bytes:
    data = message.SerializeToString()
    for text, instead in _UNSENDABLE.items():
        data = data.replace(text.encode(), instead)
    return data


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
