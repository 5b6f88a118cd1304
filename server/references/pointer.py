"""A JSON pointer whose keys are taken apart once: where a document may refer to something."""

from dataclasses import dataclass, field, replace

from stoker.document.document import Document, steps
from stoker.document.strict_json import JsonValue

Fields = dict[str, JsonValue]


@dataclass(frozen=True)
class Pointer:
    """A place in documents, below mappings only."""

    text: str
    """`/training/distillation/teacher`."""
    keys: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", tuple(steps(self.text)))

    def read(self, document: Fields) -> JsonValue:
        """The value here; None where there is none."""
        value: JsonValue = document
        for key in self.keys:
            if not isinstance(value, dict):
                return None
            value = value.get(key)
        return value

    def updated(self, document: Document, fields: Fields) -> Document:
        """The document with other fields in the mapping here, which must exist. Shares what does not change."""
        return replace(document, value=_updated(document.value, self.keys, fields))


def _updated(mapping: Fields, keys: tuple[str, ...], fields: Fields) -> Fields:
    if not keys:
        return {**mapping, **fields}
    return {**mapping, keys[0]: _updated(mapping[keys[0]], keys[1:], fields)}
