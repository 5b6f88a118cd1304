"""A document and where each of its values stands in the text it came from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from stoker.document.strict_json import JsonValue


@dataclass(frozen=True)
class Span:
    """A stretch of one line; `line` and `column` count from 1, `length` in characters."""

    line: int
    column: int
    length: int


@dataclass(frozen=True)
class Place:
    """Where a value stands, and its key if it has one."""

    value: Span
    key: Span | None = None


@dataclass(frozen=True)
class Source:
    """A text, its name for messages, and the places of its values, found only when a message needs them."""

    name: str
    text: str
    locate: Callable[[str], Mapping[str, Place]] = field(repr=False)
    label: str = "user"
    """Origin of its values: user, override, `preset:NAME`, `file:NAME` or `job:ID`."""

    @cached_property
    def places(self) -> Mapping[str, Place]:
        """JSON pointer → place."""
        return self.locate(self.text)


@dataclass(frozen=True)
class Document:
    """The plain value that is validated, and the texts it was composed from, lowest first."""

    value: dict[str, JsonValue]
    sources: tuple[Source, ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict)
    """JSON pointer of a leaf → label, where it is not `user`."""
    base: Path | None = None
    """Folder that `extends: ./file` starts from; None for documents that did not come from a file."""

    def find(self, pointer: str) -> tuple[Source, Place] | None:
        """The topmost source that says something at a pointer, or else at the nearest enclosing value."""
        while True:
            for source in reversed(self.sources):
                if place := source.places.get(pointer):
                    return source, place
            if not pointer:
                return None
            pointer = pointer.rpartition("/")[0]


def escaped(key: str) -> str:
    """A key as a step of a JSON pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")


def steps(pointer: str) -> list[str]:
    """The keys of a JSON pointer, unescaped."""
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
