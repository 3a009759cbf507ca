"""The pages of the wire contract, one for each service, with the comments of the protos."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)

# Where protoc notes the comments of a file: the numbers of the fields that lead there (descriptor.proto).
_SERVICE, _MESSAGE, _ENUM = 6, 4, 5
_METHOD, _FIELD, _VALUE = 2, 2, 2
_NESTED_ENUM = 4
_SCALARS = {
    value: name.removeprefix("TYPE_").lower()
    for name, value in FieldDescriptorProto.Type.items()
    if name not in ("TYPE_MESSAGE", "TYPE_ENUM", "TYPE_GROUP")
}


@dataclass(frozen=True)
class _Comments:
    """What stands above each part of a file, by the path that leads to it."""

    found: dict[tuple[int, ...], str]

    @classmethod
    def of(cls, file: FileDescriptorProto) -> _Comments:
        located = file.source_code_info.location
        return cls({tuple(each.path): " ".join(each.leading_comments.split()) for each in located})

    def __getitem__(self, path: Sequence[int]) -> str:
        return self.found.get(tuple(path), "")


def api_pages(files: Iterable[FileDescriptorProto]) -> dict[str, str]:
    """Markdown by the name of the page."""
    files = list(files)
    home: dict[str, str] = {}
    for file in files:
        names = [each.name for each in file.message_type] + [each.name for each in file.enum_type]
        home |= {f".{file.package}.{name}": _page(file) for name in names}
    return {_page(file): "".join(_Page(file, home).lines()) for file in files}


def _page(file: FileDescriptorProto) -> str:
    return file.name.rsplit("/", 1)[-1].removesuffix(".proto").replace("_", "-") + ".md"


class _Page:
    def __init__(self, file: FileDescriptorProto, home: dict[str, str]) -> None:
        self._file = file
        self._comments = _Comments.of(file)
        self._home = home

    def lines(self) -> Iterator[str]:
        """The page."""
        file = self._file
        for place, service in enumerate(file.service):
            yield f"# {service.name}\n\n"
            yield (
                f"Generated from [{file.name}](../../proto/{file.name}) by `scripts/generate_reference`. "
                "[What every caller must know](../calls.md) stands by itself.\n\n"
            )
            yield f"{self._comments[(_SERVICE, place)]}\n\n"
            yield from self._methods(place, service)
        for place, message in enumerate(file.message_type):
            yield from self._message(place, message)
        for place, enum in enumerate(file.enum_type):
            yield from self._enum((_ENUM, place), enum)

    def _methods(self, place: int, service: ServiceDescriptorProto) -> Iterator[str]:
        yield "| method | takes | gives | |\n|---|---|---|---|\n"
        for number, method in enumerate(service.method):
            said = self._comments[(_SERVICE, place, _METHOD, number)]
            yield f"| `{method.name}` | {self._types(method)} | {_cell(said)} |\n"

    def _types(self, method: MethodDescriptorProto) -> str:
        return f"{self._link(method.input_type)} | {self._link(method.output_type)}"

    def _message(self, place: int, message: DescriptorProto) -> Iterator[str]:
        path = (_MESSAGE, place)
        yield f"\n## {message.name}\n\n{self._comments[path]}\n"
        entries = {each.name: each for each in message.nested_type if each.options.map_entry}
        if message.field:
            yield "\n| field | type | |\n|---|---|---|\n"
        for number, field in enumerate(message.field):
            said = self._comments[(*path, _FIELD, number)]
            yield f"| `{field.name}` | {self._type(field, entries)} | {_cell(said)} |\n"
        for number, enum in enumerate(message.enum_type):
            yield from self._enum((*path, _NESTED_ENUM, number), enum)

    def _enum(self, path: Sequence[int], enum: EnumDescriptorProto) -> Iterator[str]:
        yield f"\n## {enum.name}\n\n{self._comments[path]}\n\n| value | |\n|---|---|\n"
        for number, value in enumerate(enum.value):
            yield f"| `{value.name}` | {_cell(self._comments[(*path, _VALUE, number)])} |\n"

    def _type(self, field: FieldDescriptorProto, entries: dict[str, DescriptorProto]) -> str:
        entry = entries.get(field.type_name.rsplit(".", 1)[-1])
        if entry is not None:
            key, value = entry.field
            return f"map of {self._type(key, {})} to {self._type(value, {})}"
        name = _SCALARS.get(field.type) or self._link(field.type_name)
        if field.label == FieldDescriptorProto.LABEL_REPEATED:
            return f"repeated {name}"
        return f"optional {name}" if field.proto3_optional else name

    def _link(self, type_name: str) -> str:
        short = type_name.rsplit(".", 1)[-1]
        page = self._home.get(type_name)
        if page is None:
            return short
        return f"[{short}]({'' if page == _page(self._file) else page}#{short.lower()})"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
