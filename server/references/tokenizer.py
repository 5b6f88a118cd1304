"""The published tokenizer that a job reads text with: `tokenizer: {type: file}`, a file of a data set of weights."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

from sqlmodel import Session

from server.datasets import store as datasets
from server.datasets.service import parse_ref
from server.references.checkpoint import blob_files
from server.references.dataset import is_name, not_found
from server.references.pointer import Fields, Pointer
from server.references.reference import Asked, Found, Missing
from stoker.document.document import Document
from stoker.document.strict_json import JsonValue
from stoker.errors import Finding
from stoker.protocol import DatasetFiles

AT = Pointer("/data/tokenizer")
FILE = "tokenizer.json"
FILES = (FILE, "tokenizer_config.json")
"""What a run reads: the tokens, and what the special ones are for."""


@dataclass(frozen=True)
class FoundTokenizer(Found):
    lasting: ClassVar[bool] = False
    fields: Fields = field(compare=False, repr=False)
    """Version, size and special tokens, where the document leaves them open."""

    def pin(self, document: Document) -> Document:
        return AT.updated(document, self.fields)


class TokenizerReference:
    at = AT

    def find(self, session: Session, asked: Asked, named: JsonValue) -> FoundTokenizer | Missing | None:
        ref = _source(named)
        if not is_name(ref):
            return None
        name, version = parse_ref(ref)
        row = datasets.one(session, asked.project, name, version)
        if row is None:
            return not_found(f"{AT.text}/source", "tokenizer-not-found", ref)
        tokens, rows = row.facts.get("vocabulary"), named.get("vocab_size")
        if not isinstance(tokens, int):
            hint = f"upload the model's .safetensors file together with its {FILE}"
            return _missing("source", "tokenizer-no-file", f"data set {ref} has no {FILE} that can be read", hint)
        if type(rows) is int and rows < tokens:
            message = f"the {FILE} of {name}@{row.version} has {tokens} tokens, and vocab_size is {rows}"
            return _missing("vocab_size", "tokenizer-too-large", message, f"set it to at least {tokens}, or leave it out")
        special = {key: row.facts.get(key) for key in ("mask_id", "pad_id") if named.get(key) is None}
        fields = {"source": f"{name}@{row.version}", "vocab_size": tokens if rows is None else rows, **special}
        return FoundTokenizer(row.digest, fields)

    def brings(self, session: Session, project: str, named: JsonValue) -> Iterable[DatasetFiles]:
        ref = _source(named)
        row = None if ref is None else datasets.one(session, project, *parse_ref(ref))
        files = () if row is None else blob_files(f for f in row.files if f["path"] in FILES)
        return (DatasetFiles(ref=ref, files=files),) if files else ()


def _source(named: JsonValue) -> JsonValue:
    return named.get("source") if isinstance(named, dict) and named.get("type") == "file" else None


def _missing(key: str, code: str, message: str, hint: str) -> Missing:
    return Missing((Finding(pointer=f"{AT.text}/{key}", code=code, message=message, hint=hint),))
