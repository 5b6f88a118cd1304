"""The data set of weights that a job starts from: `start: {type: pretrained}`."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from sqlmodel import Session

from server.datasets import store as datasets
from server.datasets.service import parse_ref
from server.references.checkpoint import blob_files
from server.references.dataset import is_name, not_found
from server.references.pointer import Pointer
from server.references.reference import Asked, Found, Missing
from stoker.document.document import Document
from stoker.document.strict_json import JsonValue
from stoker.errors import Finding
from stoker.protocol import DatasetFiles

AT = Pointer("/initialization/start")


@dataclass(frozen=True)
class FoundWeights(Found):
    lasting: ClassVar[bool] = False
    ref: str
    """`name@version`."""

    def pin(self, document: Document) -> Document:
        return AT.updated(document, {"source": self.ref})


class PretrainedReference:
    at = AT

    def find(self, session: Session, asked: Asked, named: JsonValue) -> FoundWeights | Missing | None:
        ref = named.get("source") if isinstance(named, dict) and named.get("type") == "pretrained" else None
        if not is_name(ref):
            return None
        name, version = parse_ref(ref)
        row = datasets.one(session, asked.project, name, version)
        if row is None:
            return not_found(f"{AT.text}/source", "start-not-found", ref)
        if row.facts["kind"] != "weights":
            message = f"data set {ref} holds {row.facts['kind']}, not weights"
            return _missing("source", "start-no-weights", message, "upload a data set of .safetensors files")
        wanted, digests = named.get("sha256"), [f["sha256"] for f in row.files if f["path"].endswith(".safetensors")]
        if isinstance(wanted, str) and digests != [wanted]:
            has = digests[0] if len(digests) == 1 else f"{len(digests)} files"
            hint = "name the version whose file has this digest, or leave sha256 out"
            return _missing("sha256", "start-other-bytes", f"the weights of {name}@{row.version} have {has}", hint)
        return FoundWeights(row.digest, f"{name}@{row.version}")

    def brings(self, session: Session, project: str, named: JsonValue) -> Iterable[DatasetFiles]:
        row = datasets.one(session, project, *parse_ref(named["source"])) if named["type"] == "pretrained" else None
        return () if row is None else (DatasetFiles(ref=named["source"], files=blob_files(row.files)),)


def _missing(key: str, code: str, message: str, hint: str) -> Missing:
    return Missing((Finding(pointer=f"{AT.text}/{key}", code=code, message=message, hint=hint),))
