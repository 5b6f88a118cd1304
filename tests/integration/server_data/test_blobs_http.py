"""Blobs through the front door: stored once, resumed, ranged, private to the projects that uploaded them, collected safely."""

import hashlib
import os
import socket
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy import update
from sqlmodel import Session, col

from server.blobs.service import MissingBlob, housekeep, refer, release, touch, used_bytes
from server.blobs.tables import Blob
from server.db import utcnow
from tests.integration.server_data.conftest import Served
from tests.support.stack import until

BYTES = {"Content-Type": "application/octet-stream"}


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def put(client: httpx.Client, data: bytes, **headers: str) -> httpx.Response:
    return client.put(f"/v1/blobs/{sha(data)}", content=data, headers=BYTES | headers)


def age(server: Served, digest: str) -> None:
    """As if nobody had asked for it for two days."""

    def write(session: Session) -> None:
        session.execute(update(Blob).where(col(Blob.sha256) == digest).values(created_at=utcnow() - timedelta(days=2)))

    server.db.write_now(write)


def test_bytes_are_stored_once_and_come_back(user: httpx.Client, salt: bytes) -> None:
    data = salt * 1000
    url = f"/v1/blobs/{sha(data)}"
    missing = user.head(url)
    assert (missing.status_code, missing.headers["upload-offset"], missing.content) == (404, "0", b"")
    assert put(user, data).status_code == 201
    assert put(user, data).status_code == 200
    head = user.head(url)
    assert (head.status_code, head.headers["content-length"], head.headers["etag"]) == (200, str(len(data)), f'"{sha(data)}"')
    got = user.get(url)
    assert got.content == data
    assert got.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in got.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("headers", "status", "cut"),
    [
        ({"Range": "bytes=10-19"}, 206, slice(10, 20)),
        ({"Range": "bytes=-5"}, 206, slice(-5, None)),
        ({"Range": "bytes=990-"}, 206, slice(990, None)),
        ({"Range": "bytes=0-0,5-5"}, 200, slice(None)),
        ({"Range": "bytes=1000-"}, 416, None),
        ({"Range": "bytes=-0"}, 416, None),
        ({"Range": "bytes=10-19", "If-Range": '"other"'}, 200, slice(None)),
    ],
)
def test_ranges(user: httpx.Client, headers: dict[str, str], status: int, cut: slice | None) -> None:
    data = bytes(range(250)) * 4
    put(user, data)
    got = user.get(f"/v1/blobs/{sha(data)}", headers=headers)
    assert got.status_code == status
    if cut is None:
        assert got.headers["content-range"] == "bytes */1000"
        return
    assert got.content == data[cut]
    if status == 206:
        start = data.index(data[cut]) if cut.start is None or cut.start < 0 else cut.start
        assert (
            got.headers["content-range"]
            == f"bytes {1000 + cut.start if cut.start < 0 else start}-{got.headers['content-range'].split('-')[1]}"
        )
        assert len(got.content) == int(got.headers["content-length"])


def test_if_range_and_if_none_match_of_these_bytes(user: httpx.Client, salt: bytes) -> None:
    put(user, salt)
    url, etag = f"/v1/blobs/{sha(salt)}", f'"{sha(salt)}"'
    assert user.get(url, headers={"Range": "bytes=1-3", "If-Range": etag}).content == salt[1:4]
    assert user.get(url, headers={"If-None-Match": f'"x", {etag}'}).status_code == 304


def send_part(server: Served, data: bytes, offset: int, size: int) -> socket.socket:
    """A PUT that announces everything from the offset on and sends a part of it."""
    parts = urlsplit(server.url)
    assert parts.hostname is not None
    assert parts.port is not None
    raw = socket.create_connection((parts.hostname, parts.port))
    head = (
        f"PUT /v1/blobs/{sha(data)} HTTP/1.1\r\nHost: {parts.hostname}\r\nAuthorization: Bearer {server.key()}\r\n"
        f"Content-Type: application/octet-stream\r\nContent-Length: {len(data) - offset}\r\nUpload-Offset: {offset}\r\n\r\n"
    )
    raw.sendall(head.encode() + data[offset : offset + size])
    return raw


def offset_of(client: httpx.Client, digest: str) -> int:
    return int(client.head(f"/v1/blobs/{digest}").headers["upload-offset"])


def test_an_upload_whose_connection_dies_goes_on_where_it_stopped(server: Served, user: httpx.Client, salt: bytes) -> None:
    data = salt * 400_000  # 6.4 MB: more than the pieces that are written at a time
    for size in (1, 70_000):
        send_part(server, data, 0, size).close()
        assert offset_of(user, sha(data)) <= size
    offset = 0
    for size in (1_500_000, 2_500_000):
        raw = send_part(server, data, offset, size)
        until(lambda: offset_of(user, sha(data)) >= offset + (1 << 20), timeout=20, what="a piece stored")  # noqa: B023
        raw.close()
        offset = offset_of(user, sha(data))
    refused = 0
    while (
        rest := user.put(f"/v1/blobs/{sha(data)}", content=data[offset:], headers=BYTES | {"Upload-Offset": str(offset)})
    ).status_code == 409:  # the server has not yet noticed that the other connection died
        offset, refused = offset_of(user, sha(data)), refused + 1
        assert refused < 200
    assert rest.status_code == 201, rest.text
    assert offset >= 2 << 20
    assert user.get(f"/v1/blobs/{sha(data)}").content == data


def test_what_does_not_fit_is_refused_with_what_to_do(user: httpx.Client, salt: bytes) -> None:
    late = put(user, salt, **{"Upload-Offset": "5"})
    assert (late.status_code, late.json()["code"], late.headers["upload-offset"]) == (409, "upload_offset", "0")
    wrong = user.put(f"/v1/blobs/{sha(salt)}", content=salt + b"x", headers=BYTES)
    assert (wrong.status_code, wrong.json()["code"]) == (422, "digest_mismatch")
    assert offset_of(user, sha(salt)) == 0
    assert user.put("/v1/blobs/..%2f..%2fetc", content=b"x", headers=BYTES).status_code in (404, 415, 422)
    assert user.put(f"/v1/blobs/{'A' * 64}", content=b"x", headers=BYTES).status_code == 422
    assert user.put(f"/v1/blobs/{sha(salt)}", content=salt, headers={"Content-Type": "text/plain"}).status_code == 415
    for offset in ("-1", "x", str(2**70)):
        assert put(user, salt, **{"Upload-Offset": offset}).status_code == 422


def test_a_chunked_upload_needs_no_length(user: httpx.Client, salt: bytes) -> None:
    data = salt * 10_000
    sent = user.put(f"/v1/blobs/{sha(data)}", content=(data[at : at + 7000] for at in range(0, len(data), 7000)), headers=BYTES)
    assert sent.status_code == 201
    assert user.get(f"/v1/blobs/{sha(data)}").content == data


def test_knowing_a_digest_opens_nothing(user: httpx.Client, stranger: httpx.Client, salt: bytes) -> None:
    put(user, salt)
    unknown = stranger.get(f"/v1/blobs/{'0' * 64}")
    other = stranger.get(f"/v1/blobs/{sha(salt)}")
    assert other.status_code == 404
    assert {k: v for k, v in other.json().items() if k != "request_id"} == {
        k: v for k, v in unknown.json().items() if k != "request_id"
    }
    assert stranger.head(f"/v1/blobs/{sha(salt)}").status_code == 404
    manifest = {"name": "stolen", "files": [{"path": "a.txt", "bytes": len(salt), "sha256": sha(salt)}]}
    assert stranger.post("/v1/datasets", json=manifest).json()["code"] == "blobs_missing"
    assert put(stranger, salt).status_code == 201  # whoever has the bytes may have them
    assert stranger.get(f"/v1/blobs/{sha(salt)}").content == salt


def test_a_key_that_may_only_read_reads_and_no_more(server: Served, user: httpx.Client, salt: bytes) -> None:
    put(user, salt)
    with server.client(scopes=("read",)) as reader:
        assert reader.get(f"/v1/blobs/{sha(salt)}").content == salt
        assert put(reader, salt + b"x").json()["code"] == "insufficient_scope"


def test_the_quota_holds_before_and_while_bytes_come(server: Served, salt: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with server.client("small") as client:
        used = server.db.read_now(lambda s: used_bytes(s, "small"))
        settings = server.runtime.blobs.settings.model_copy(update={"quota_bytes": used + 100})
        monkeypatch.setattr(server.runtime.blobs, "settings", settings)
        assert put(client, salt * 4).status_code == 201
        announced = put(client, salt * 5)
        assert (announced.status_code, announced.json()["code"]) == (413, "quota_exceeded")
        data = salt * 8000
        unannounced = client.put(f"/v1/blobs/{sha(data)}", content=iter([data]), headers=BYTES)
        assert (unannounced.status_code, unannounced.json()["code"]) == (413, "quota_exceeded")
        assert offset_of(client, sha(data)) == 0
        assert put(client, salt[:8] + salt[:8]).status_code == 201  # what still fits is taken
        assert server.db.read_now(lambda s: used_bytes(s, "small")) == used + 80


def test_a_full_disk_is_said_and_heals(server: Served, user: httpx.Client, salt: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as full:
        full.setattr(server.runtime.blobs, "settings", server.runtime.blobs.settings.model_copy(update={"reserve_bytes": 2**62}))
        refused = put(user, salt)
        assert (refused.status_code, refused.json()["code"]) == (507, "storage_full")
        assert "retry-after" in refused.headers
    assert put(user, salt).status_code == 201


def collect(server: Served) -> None:
    housekeep(server.db, server.runtime.blobs)


def exists(server: Served, digest: str) -> bool:
    return server.runtime.blobs.backend.size(digest) is not None


def test_only_what_nothing_names_for_a_day_is_collected(server: Served, user: httpx.Client, salt: bytes) -> None:
    old, young, named, asked = (salt + suffix for suffix in (b"old", b"young", b"named", b"asked"))
    for data in (old, young, named, asked):
        put(user, data)
    server.db.write_now(lambda s: refer(s, "default", f"test:{salt.hex()}", [(sha(named), len(named))]))
    for data in (old, named, asked):
        age(server, sha(data))
    assert user.head(f"/v1/blobs/{sha(asked)}").status_code == 200  # an uploader relies on it
    used = server.db.read_now(lambda s: used_bytes(s, "default"))
    collect(server)
    assert [exists(server, sha(d)) for d in (old, young, named, asked)] == [False, True, True, True]
    assert user.get(f"/v1/blobs/{sha(old)}").status_code == 404
    assert server.db.read_now(lambda s: used_bytes(s, "default")) == used - len(old)
    server.db.write_now(lambda s: release(s, f"test:{salt.hex()}"))
    age(server, sha(named))
    collect(server)
    assert not exists(server, sha(named))
    assert put(user, old).status_code == 201  # and may come again
    assert user.get(f"/v1/blobs/{sha(old)}").content == old


def test_a_doomed_blob_can_neither_be_named_nor_uploaded_until_it_is_gone(
    server: Served, user: httpx.Client, salt: bytes
) -> None:
    """The state between the collector's two writes, also what a crash of it leaves."""
    put(user, salt)

    def doom(session: Session) -> None:
        session.execute(update(Blob).where(col(Blob.sha256) == sha(salt)).values(doomed_at=utcnow()))

    server.db.write_now(doom)
    assert user.head(f"/v1/blobs/{sha(salt)}").status_code == 404
    with pytest.raises(MissingBlob):
        server.db.write_now(lambda s: refer(s, "default", "test:doomed", [(sha(salt), len(salt))]))
    again = put(user, salt)
    assert (again.status_code, again.json()["code"]) == (503, "blob_being_collected")
    collect(server)
    assert put(user, salt).status_code == 201
    assert user.get(f"/v1/blobs/{sha(salt)}").content == salt


def test_keeping_wins_over_collecting_when_it_comes_first(server: Served, user: httpx.Client, salt: bytes) -> None:
    put(user, salt)
    age(server, sha(salt))
    assert server.db.write_now(lambda s: touch(s, "default", [sha(salt)])) == {sha(salt)}
    collect(server)
    assert exists(server, sha(salt))


def test_bytes_whose_row_a_crash_prevented_are_found_and_removed(
    server: Served, salt: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = server.runtime.blobs
    upload = store.begin("default", sha(salt), 0, 0, 100)
    upload.write(salt)
    store.finish(upload)
    upload.close()
    path = store.backend.local(sha(salt))
    os.utime(path, (0, 0))
    monkeypatch.setattr(store, "next_shard", lambda: sha(salt)[:2])
    collect(server)
    assert not exists(server, sha(salt))


def test_lost_bytes_are_said_before_the_answer_begins(server: Served, user: httpx.Client, salt: bytes) -> None:
    put(user, salt)
    server.runtime.blobs.backend.remove(sha(salt))
    lost = user.get(f"/v1/blobs/{sha(salt)}")
    assert (lost.status_code, lost.json()["code"]) == (503, "blob_unavailable")


def test_a_manifest_is_refused_whole_when_one_length_lies(server: Served, user: httpx.Client, salt: bytes) -> None:
    put(user, salt)
    wrong: list[tuple[str, Any]] = [(sha(salt), len(salt) + 1)]
    with pytest.raises(MissingBlob):
        server.db.write_now(lambda s: refer(s, "default", "test:lies", wrong))
