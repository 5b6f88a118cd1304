"""One text per spec, and its hash: the experiment's identity."""

import hashlib
import json
from typing import Any

from stoker.spec.job import METADATA, JobSpec


def canonical_json(spec: JobSpec) -> str:
    """Sorted keys, no spaces, shortest float form; two specs of equal value give equal text, whatever they were written in."""
    return canonical_text(spec.model_dump(mode="json"))


def digest(spec: JobSpec) -> str:
    """SHA-256 in hex of the canonical JSON without the fields that only say how the job is filed."""
    value = spec.model_dump(mode="json", exclude=set(METADATA))
    return hashlib.sha256(canonical_text(value).encode()).hexdigest()


def canonical_text(value: Any) -> str:
    """The canonical JSON of a value that was dumped as JSON data."""
    return _ENCODER.encode(value)


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
