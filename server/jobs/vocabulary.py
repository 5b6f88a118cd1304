"""The published tokenizer that a job reads text with: found among the data sets of weights while its document is prepared."""

from typing import Any

from sqlmodel import Session

from server.datasets import store as datasets
from server.datasets.service import parse_ref
from server.jobs.start import Begun
from stoker.errors import Finding
from stoker.protocol import BlobFile, DatasetFiles

AT = "/data/tokenizer"
FILE = "tokenizer.json"
FILES = (FILE, "tokenizer_config.json")
"""What a run reads of it: the tokens, and what the special ones are for."""


def spoken(session: Session, project: str, value: dict[str, Any]) -> Begun:
    """The document with the tokenizer pinned to a version and its size, as it is where it names none that could exist."""
    tokenizer = _tokenizer(value)
    ref, rows = tokenizer.get("source"), tokenizer.get("vocab_size")
    if not isinstance(ref, str) or len(ref) > 200:
        return Begun(value)
    name, version = parse_ref(ref)
    row = datasets.one(session, project, name, version)
    if row is None:
        hint = "`stoker datasets ls` shows what there is; `stoker datasets upload` adds one"
        message = "this project has no such data set, or not in that version"
        return _refused(value, "source", "tokenizer-not-found", message, hint)
    tokens = row.facts.get("vocabulary")
    if not isinstance(tokens, int):
        hint = "upload the model's .safetensors file together with its tokenizer.json"
        return _refused(value, "source", "tokenizer-no-file", f"this data set has no {FILE} that could be read", hint)
    if type(rows) is int and rows < tokens:
        message = f"the {FILE} of {name}@{row.version} has {tokens} tokens"
        return _refused(value, "vocab_size", "tokenizer-too-large", message, "raise it, or leave it out")
    pinned = {**tokenizer, "source": f"{name}@{row.version}", "vocab_size": tokens if rows is None else rows}
    for key in ("mask_id", "pad_id"):
        if pinned.get(key) is None:
            pinned[key] = row.facts.get(key)
    return Begun({**value, "data": {**value["data"], "tokenizer": pinned}}, found=True)


def tokenizer_of(session: Session, project: str, spec: dict[str, Any]) -> tuple[DatasetFiles, ...]:
    """Of a stored spec: its files, for the workspace."""
    ref = _tokenizer(spec).get("source")
    row = None if ref is None else datasets.one(session, project, *parse_ref(ref))
    files = () if row is None else tuple(f for f in row.files if f["path"] in FILES)
    if ref is None or not files:
        return ()
    return (DatasetFiles(ref=ref, files=tuple(BlobFile(path=f["path"], bytes=f["bytes"], sha256=f["sha256"]) for f in files)),)


def _tokenizer(value: dict[str, Any]) -> dict[str, Any]:
    data = value.get("data")
    tokenizer = data.get("tokenizer") if isinstance(data, dict) else None
    return tokenizer if isinstance(tokenizer, dict) and tokenizer.get("type") == "file" else {}


def _refused(value: dict[str, Any], key: str, code: str, message: str, hint: str) -> Begun:
    return Begun(value, (Finding(pointer=f"{AT}/{key}", code=code, message=message, hint=hint),), found=True)
