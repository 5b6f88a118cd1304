"""One text per spec, and its hash: the experiment's identity."""

import hashlib
import json
from typing import Any

from stoker.spec.job import METADATA, JobSpec


def canonical_json(spec: JobSpec) -> str:
    """Sorted keys, no spaces, shortest float form; two specs of equal value give equal text, whatever they were written in."""
    return _text(spec.model_dump(mode="json"))


def digest(spec: JobSpec) -> str:
    """SHA-256 in hex of the canonical JSON without the fields that only say how the job is filed."""
    value = spec.model_dump(mode="json", exclude=set(METADATA))
    return hashlib.sha256(_text(value).encode()).hexdigest()


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
