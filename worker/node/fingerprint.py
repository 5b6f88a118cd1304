"""Tells whether a warm interpreter runs the code and the settings that its worker has now."""

import hashlib
import os
import sys
from pathlib import Path

from worker.settings import WorkerSettings

_PACKAGES = ("stoker", "worker")


def fingerprint(settings: WorkerSettings) -> str:
    """A digest of the sources' sizes and times, the settings and the interpreter."""
    sha = hashlib.sha256(f"{sys.version} {os.environ.get('STOKER_TIME_SCALE', '')}".encode())
    sha.update(settings.model_dump_json().encode())
    sha.update(settings.key.get_secret_value().encode())
    root = Path(__file__).parent.parent
    for package in _PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            stat = path.stat()
            sha.update(f"{path.relative_to(root)} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return sha.hexdigest()
