"""Data sets through the front door: blobs first, then a version; facts measured; refusals with what to do."""

import hashlib
import io
import json
import pickle
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from server.datasets.service import facts_of, files_of
from server.errors import Refusal
from stoker.facts import DatasetFacts, TableFacts
from tests.integration.server_data.conftest import Served

CSV = b"x,label\n1,a\n2,b\n3,a\n"
BYTES = {"Content-Type": "application/octet-stream"}


def manifest(**contents: bytes) -> list[dict[str, Any]]:
    return [{"path": path, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for path, data in contents.items()]


def upload(client: httpx.Client, name: str, hints: dict[str, Any] | None = None, **contents: bytes) -> httpx.Response:
    for data in contents.values():
        client.put(f"/v1/blobs/{hashlib.sha256(data).hexdigest()}", content=data, headers=BYTES)
    return client.post("/v1/datasets", json={"name": name, "files": manifest(**contents), **(hints or {})})


def test_a_version_is_its_files(user: httpx.Client, salt: bytes) -> None:
    name = f"d{salt.hex()}"
    first = upload(user, name, **{"t.csv": CSV})
    assert first.status_code == 201, first.text
    assert first.headers["location"] == f"/v1/datasets/{name}@1"
    assert first.json()["facts"]["rows"] == 3
    again = upload(user, name, **{"t.csv": CSV})
    assert (again.status_code, again.json()["version"]) == (200, 1)
    changed = upload(user, name, **{"t.csv": CSV + b"4,b\n"})
    assert (changed.status_code, changed.json()["version"]) == (201, 2)
    as_text = upload(user, name, {"format": "text"}, **{"t.csv": CSV})
    assert (as_text.json()["version"], as_text.json()["facts"]["kind"]) == (3, "text")
    assert as_text.json()["digest"] == first.json()["digest"]
    expected = hashlib.sha256(
        json.dumps([["t.csv", len(CSV), hashlib.sha256(CSV).hexdigest()]], separators=(",", ":")).encode()
    ).hexdigest()
    assert first.json()["digest"] == expected
    assert user.get(f"/v1/datasets/{name}").json()["version"] == 3
    assert user.get(f"/v1/datasets/{name}@2").json()["facts"]["rows"] == 4
    assert user.get(f"/v1/datasets/{name}@9").status_code == 404


def test_missing_bytes_are_listed_so_that_only_they_are_sent(user: httpx.Client, salt: bytes) -> None:
    have, lack = CSV, CSV + salt.hex().encode() + b",a\n"
    user.put(f"/v1/blobs/{hashlib.sha256(have).hexdigest()}", content=have, headers=BYTES)
    answer = user.post("/v1/datasets", json={"name": "missing", "files": manifest(**{"a.csv": have, "b.csv": lack})})
    assert (answer.status_code, answer.json()["code"]) == (409, "blobs_missing")
    assert [(e["pointer"], e["hint"]) for e in answer.json()["errors"]] == [("/files/1", hashlib.sha256(lack).hexdigest())]
    assert user.get("/v1/datasets/missing").status_code == 404


def test_one_key_one_answer(user: httpx.Client, salt: bytes) -> None:
    body = {"name": f"i{salt.hex()}", "files": manifest(**{"t.csv": CSV})}
    upload(user, body["name"] + "x", **{"t.csv": CSV})
    key = {"Idempotency-Key": salt.hex()}
    first, second = user.post("/v1/datasets", json=body, headers=key), user.post("/v1/datasets", json=body, headers=key)
    assert (first.status_code, first.content) == (second.status_code, second.content)
    assert second.headers["idempotency-replayed"] == "true"


@pytest.mark.parametrize(
    "path",
    [
        "../a",
        "a/../../b",
        "/etc/passwd",
        "CON",
        "con.csv",
        "a\\b",
        ".",
        "..",
        ".hidden",
        "a/b/c",
        "a//b",
        "a b",
        "\u202ea",
        "é.csv",
        "x" * 129,
        "a..b",
        "a.",
    ],
)
def test_names_that_are_no_file_names_are_refused(user: httpx.Client, path: str) -> None:
    answer = upload(user, "names", **{path: CSV})
    assert (answer.status_code, answer.json()["code"]) == (422, "file_name_invalid")
    assert answer.json()["errors"][0]["pointer"] == "/files/0/path"
    assert path not in answer.text or len(path) < 4


def test_names_that_differ_in_case_alone_are_refused(user: httpx.Client) -> None:
    answer = upload(user, "names", **{"a.csv": CSV, "A.csv": CSV})
    assert (answer.json()["code"], answer.json()["errors"][0]["pointer"]) == ("file_name_invalid", "/files/1/path")


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../x"},
        {"name": "x" * 200},
        {"files": []},
        {"files": [{"path": "a.csv", "bytes": -1, "sha256": "0" * 64}]},
        {"files": [{"path": "a.csv", "bytes": 1, "sha256": "0" * 63}]},
        {"files": [{"path": "a.csv", "bytes": "1", "sha256": "0" * 64}]},
        {"url": "http://169.254.169.254/"},
        {"project": "other"},
        {"format": "pickle"},
        {"delimiter": "\n"},
        {"version": 7},
    ],
)
def test_a_body_that_does_not_fit_is_refused(user: httpx.Client, change: dict[str, Any]) -> None:
    answer = user.post("/v1/datasets", json={"name": "x", "files": manifest(**{"t.csv": CSV})} | change)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")


def test_files_that_are_refused_say_where(user: httpx.Client) -> None:
    ragged = upload(user, "bad", **{"t.csv": b"a,b\n1,2\n1,2,3\n"})
    assert (ragged.status_code, ragged.json()["code"]) == (422, "dataset_rejected")
    assert ragged.json()["errors"][0]["hint"] == "t.csv, line 3"
    evil = upload(user, "bad", **{"t.csv": pickle.dumps({"x": 1})})
    assert (evil.status_code, evil.json()["code"]) == (415, "format_not_allowed")
    assert user.get("/v1/datasets/bad").status_code == 404


def test_pictures_and_arrays(user: httpx.Client, salt: bytes) -> None:
    out = io.BytesIO()
    Image.new("L", (8, 8), salt[0]).save(out, "PNG")
    pictures = upload(user, "pictures", **{"cat/1.png": out.getvalue(), "dog/1.png": out.getvalue()})
    assert pictures.status_code in (200, 201), pictures.text
    assert pictures.json()["facts"] == {"kind": "images", "counts": {"cat": 1, "dog": 1}, "height": 8, "width": 8}
    out = io.BytesIO()
    np.save(out, np.arange(10))
    arrays = upload(user, "arrays", **{"y.npy": out.getvalue()})
    assert arrays.json()["facts"]["files"]["y.npy"]["distinct"] == 10


def test_lists_pages_and_downloads(server: Served, salt: bytes) -> None:
    with server.client(f"p{salt.hex()[:8]}") as client:
        for name in ("b", "a", "c"):
            upload(client, name, **{"t.csv": CSV})
        upload(client, "b", **{"t.csv": CSV + b"9,z\n"})
        page = client.get("/v1/datasets", params={"limit": 2}).json()
        assert [(d["name"], d["version"]) for d in page["data"]] == [("a", 1), ("b", 2)]
        assert page["has_more"]
        rest = client.get("/v1/datasets", params={"limit": 2, "after": page["next"]}).json()
        assert [d["name"] for d in rest["data"]] == ["c"]
        assert not rest["has_more"]
        versions = client.get("/v1/datasets", params={"name": "b", "limit": 1}).json()
        assert [d["version"] for d in versions["data"]] == [2]
        older = client.get("/v1/datasets", params={"name": "b", "after": versions["next"]}).json()
        assert [d["version"] for d in older["data"]] == [1]
        url = "/v1/datasets/b@1/files/t.csv"
        assert client.get(url).content == CSV
        part = client.get(url, headers={"Range": "bytes=2-6"})
        assert (part.status_code, part.content) == (206, CSV[2:7])
        assert client.head(url).headers["content-length"] == str(len(CSV))
        assert 'filename="t.csv"' in client.get(url).headers["content-disposition"]
        assert client.get("/v1/datasets/b@1/files/other.csv").status_code == 404


def test_another_project_sees_nothing(user: httpx.Client, stranger: httpx.Client, salt: bytes) -> None:
    name = f"s{salt.hex()}"
    upload(user, name, **{"t.csv": CSV})
    for url in (f"/v1/datasets/{name}", f"/v1/datasets/{name}@1", f"/v1/datasets/{name}@1/files/t.csv"):
        mine, theirs = user.get(url), stranger.get(url)
        nothing = stranger.get(url.replace(name, "s" + "0" * 32))
        assert mine.status_code == 200
        assert theirs.status_code == 404
        assert theirs.json() | {"request_id": ""} == nothing.json() | {"request_id": ""}
    assert name not in stranger.get("/v1/datasets", params={"limit": 500}).text


def test_what_submit_asks(server: Served, user: httpx.Client, salt: bytes) -> None:
    name = f"q{salt.hex()}"
    upload(user, name, **{"t.csv": CSV})
    facts = server.db.read_now(lambda s: facts_of(s, "default", name))
    assert isinstance(facts, DatasetFacts)
    assert (facts.name, facts.version, facts.bytes) == (name, 1, len(CSV))
    assert isinstance(facts.content, TableFacts)
    assert facts.content.columns[1].counts == {"a": 2, "b": 1}
    (file,) = server.db.read_now(lambda s: files_of(s, "default", f"{name}@1"))
    assert (file.path, file.sha256) == ("t.csv", hashlib.sha256(CSV).hexdigest())
    for ref in (f"{name}@2", "nothing", f"{name}@", f"{name}@x", "@", ""):
        if ref == f"{name}@":
            continue
        with pytest.raises(Refusal):
            server.db.read_now(lambda s, r=ref: facts_of(s, "default", r))  # type: ignore[misc]
