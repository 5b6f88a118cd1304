"""Tells whether a warm interpreter runs the code and the settings that its worker has now."""

import hashlib
import os
import sys
from pathlib import Path

import stoker
from worker.settings import WorkerSettings

_PACKAGES = (Path(stoker.__file__).parent, Path(__file__).parent)
"""Folders of the sources that a warm interpreter has imported; an installed stoker is not next to its worker."""


def fingerprint(settings: WorkerSettings) -> str:
    """A digest of the sources' sizes and times, the settings and the interpreter."""
    sha = hashlib.sha256(f"{sys.version} {os.environ.get('STOKER_TIME_SCALE', '')}".encode())
    sha.update(settings.model_dump_json().encode())
    sha.update(settings.key.get_secret_value().encode())
    for package in _PACKAGES:
        for path in sorted(package.rglob("*.py")):
            stat = path.stat()
            sha.update(f"{package.name}/{path.relative_to(package)} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return sha.hexdigest()
