"""Names of uploaded files: plain ASCII, at most one folder, the same file on every system."""

import re
from collections.abc import Sequence

from stoker.errors import Finding

_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
_DEVICES = frozenset({"con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in range(1, 10))})


def check_paths(paths: Sequence[str]) -> list[Finding]:
    """What is wrong with the names, by position; empty when nothing is."""
    findings, seen = [], set[str]()
    for at, path in enumerate(paths):
        message = _wrong(path)
        if message is None and path.lower() in seen:
            message = "Another file has this name in other upper or lower case; rename one of them."
        seen.add(path.lower())
        if message is not None:
            findings.append(Finding(pointer=f"/files/{at}/path", code="file-name-invalid", message=message))
    return findings


def _wrong(path: str) -> str | None:
    segments = path.split("/")
    if len(segments) > 2:
        return "One folder at most."
    for segment in segments:
        if not _SEGMENT.fullmatch(segment) or ".." in segment or segment.endswith("."):
            return "Letters, digits, dot, underscore and hyphen, beginning with a letter or digit, 128 at most, no two dots in a row."
        if segment.split(".")[0].lower() in _DEVICES:
            return "The name is a device on some systems."
    return None
