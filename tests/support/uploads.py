"""Data sets over the API."""

import hashlib
from collections.abc import Mapping

import httpx


def upload(http: httpx.Client, name: str, files: Mapping[str, bytes]) -> httpx.Response:
    """Store the bytes, then make the version; its answer."""
    manifest = [{"path": p, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for p, data in files.items()]
    for entry, data in zip(manifest, files.values(), strict=True):
        stored = http.put(f"/v1/blobs/{entry['sha256']}", content=data, headers={"Content-Type": "application/octet-stream"})
        assert stored.status_code < 300, stored.text
    return http.post("/v1/datasets", json={"name": name, "files": manifest})
