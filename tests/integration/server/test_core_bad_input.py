"""Classes of bad input through a real socket: each refused with its published code, nothing stored, nothing long repeated."""

import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import closing
from socket import create_connection
from typing import Any

import httpx
import numpy as np
import pytest

from tests.support.live import JOB, Live, claim, live, upload_toy
from tests.support.oracle import judge, texts
from tests.support.plain import NO_TLS
from tests.support.postgres import Postgres
from tests.support.uploads import upload

JSON = {"Content-Type": "application/json"}
YAML = {"Content-Type": "application/yaml"}


@pytest.fixture(scope="module")
def served(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """On the database that refuses more: the fuzzer goes over both."""
    with live(tmp_path_factory.mktemp("bad"), postgres.create_database()) as server:
        with server.client("submit") as http:
            upload_toy(http)
        yield server


def refused(answer: httpx.Response, status: int, *codes: str, sent: Any = None) -> None:
    judge(answer, texts(sent))
    assert (answer.status_code, answer.json()["code"] in codes) == (status, True), answer.text[:500]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/jobs?limit=9223372036854775808",
        "/v1/jobs?limit=-1",
        "/v1/jobs?limit=1e3",
        "/v1/jobs?since=99999-01-01T00:00:00Z",
        "/v1/jobs?state=queued,happy",
        "/v1/jobs?name=a%20b",
        "/v1/jobs?metric.train/loss<=nan",
        "/v1/jobs?filter=(select%201)",
        "/v1/jobs/{job}?timeout=1e400",
        "/v1/jobs/{job}?wait=forever",
        "/v1/jobs/{job}/events?after=9223372036854775808",
        "/v1/jobs/{job}/events?after=-1",
        "/v1/jobs/{job}/metrics?max_points=99999999999999999999",
        "/v1/jobs/{job}/metrics?since=1-2-3",
        "/v1/jobs/{job}/logs?rank=9223372036854775808",
        "/v1/jobs/job'or'1'='1",
        "/v1/jobs/" + "9" * 300,
        "/v1/datasets/toy@99999999999999999999",
        "/v1/explain/optimizer?lang=xx",
    ],
)
def test_parameters_out_of_range(user: httpx.Client, path: str) -> None:
    job = user.post("/v1/jobs", json=JOB).json()["id"]
    refused(user.get(path.format(job=job)), 422, "validation_failed", sent=path)
    user.post(f"/v1/jobs/{job}/cancel")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/jobs/%00",
        "/v1/jobs/%00/events",
        "/v1/workers/%00/drain",
        "/v1/jobs?parent=%00",
        "/v1/jobs?label.a=%00",
        "/v1/jobs?%00=1",
    ],
)
def test_no_target_holds_a_nul(user: httpx.Client, path: str) -> None:
    answer = user.post(path) if path.endswith("drain") else user.get(path)
    judge(answer, [])
    assert answer.status_code in (400, 404, 422)


@pytest.mark.parametrize("method", ["TRACE", "OPTIONS", "CONNECT", "BREW", "DELETE"])
def test_methods_that_a_resource_lacks(served: Live, user: httpx.Client, method: str) -> None:
    if method == "CONNECT":  # no client sends it with a path
        head = f"CONNECT /v1/jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: {user.headers['authorization']}\r\n\r\n"
        with closing(create_connection(("127.0.0.1", served.port), timeout=10)) as wire:
            wire.sendall(head.encode())
            assert wire.recv(65536).split(b" ")[1] in (b"400", b"405")
        return
    answer = user.request(method, "/v1/jobs")
    judge(answer, [])
    assert answer.status_code in (400, 405)
    assert answer.status_code == 400 or "GET" in answer.headers["allow"] or "POST" in answer.headers["allow"]
    assert not [h for h in answer.headers if h.startswith("access-control")], "CORS is closed"


@pytest.mark.parametrize(
    "path", ["/v1/jobs/", "//v1/jobs", "/v1//jobs", "/%2e%2e/v1/jobs", "/v1/%2e%2e/%2e%2e/etc/passwd", "/V1/jobs"]
)
def test_paths_are_taken_as_they_are(served: Live, user: httpx.Client, path: str) -> None:
    """Neither redirected nor tidied: a second way to one resource is a way around a rule for the first."""
    key = user.headers["authorization"]
    head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {key}\r\nConnection: close\r\n\r\n"
    with closing(create_connection(("127.0.0.1", served.port), timeout=10)) as wire:
        wire.sendall(head.encode())
        answer = b"".join(iter(lambda: wire.recv(65536), b""))
    assert answer.split(b" ")[1] == b"404", answer[:300]
    assert b'"code":"not_found"' in answer


@pytest.mark.parametrize("name", ["a b", "a\nb", "\u202eabc", "a\u200bb", "x" * 129, "-a", "é", "a/../b", "<script>", "=cmd()"])
def test_names_that_are_refused(user: httpx.Client, name: str) -> None:
    refused(user.post("/v1/jobs", json=JOB | {"name": name}), 422, "spec_invalid", sent=name)
    if "/" not in name:  # which keys of labels may hold
        refused(user.post("/v1/jobs", json=JOB | {"labels": {name: "x"}}), 422, "spec_invalid", sent=name)
    refused(user.post("/v1/keys", json={"name": name, "scopes": ["read"]}), 422, "validation_failed", sent=name)


@pytest.mark.parametrize(
    "lines",
    [
        "X-A: a\x00b",
        "X-A: a\nX-B: b\r\rc",
        "X A: b",
        ": b",
        " folded: no",
        "Content-Length: 1e3",
        "Content-Length: +2",
        "Content-Length: 99999999999999999999",
        "Host: localhost",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: gzip, chunked",
    ],
)
def test_heads_that_are_refused(served: Live, user: httpx.Client, lines: str) -> None:
    key = user.headers["authorization"]
    head = f"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: {key}\r\n{lines}\r\n\r\n"
    with closing(create_connection(("127.0.0.1", served.port), timeout=15)) as wire:
        wire.sendall(head.encode("latin-1"))
        answer = b""
        while b"\r\n\r\n" not in answer and (piece := wire.recv(65536)):
            answer += piece
    status = int(answer.split(b" ")[1]) if answer else 400
    assert status in (400, 413, 415, 501), answer[:300]


@pytest.mark.parametrize(
    "headers",
    [
        [("Authorization", "Bearer " + "k" * 10_000)],
        [("Authorization", "Bearer stk_ABCDEFGH_" + "a" * 43)],
        [("Authorization", "Bearer sta_" + "0" * 26 + "_" + "a" * 43)],
        [("Authorization", "Basic YTpi")],
        [("Authorization", "bearer")],
        [("Authorization", b"Bearer stk_\xff\xff")],
        [("Authorization", "one"), ("Authorization", "two")],
        [("Cookie", "key=stk_abcdefgh_" + "A" * 43)],
    ],
    ids=range(8),
)
def test_credentials_that_are_refused(served: Live, headers: list[tuple[str, Any]]) -> None:
    with httpx.Client(base_url=served.url, verify=NO_TLS) as nobody:
        answer = nobody.get("/v1/jobs", headers=headers)
        refused(answer, 401, "unauthenticated", sent=[v for _, v in headers if isinstance(v, str)])
        assert answer.headers["www-authenticate"] == "Bearer"


def test_guessing_is_slowed_down(served: Live) -> None:
    guess = {"Authorization": "Bearer stk_guessing_" + "A" * 43}
    guess["Authorization"] = guess["Authorization"].replace("guessing", "gvessjng")
    with httpx.Client(base_url=served.url, verify=NO_TLS) as nobody:
        codes = [nobody.get("/v1/jobs", headers=guess) for _ in range(12)]
    assert [a.status_code for a in codes[:10]] == [401] * 10
    refused(codes[-1], 429, "rate_limited")
    assert 1 <= int(codes[-1].headers["retry-after"]) <= 60


@pytest.mark.parametrize("values", [[""], ["a b"], ["x" * 256], ["é".encode()], ["a", "b"], ["a\tb"]], ids=range(6))
def test_idempotency_keys_that_are_refused(user: httpx.Client, values: list[Any]) -> None:
    headers = [("Idempotency-Key", v) for v in values]
    refused(user.post("/v1/jobs", json=JOB, headers=headers), 400, "idempotency_key_invalid")


def test_credentials_of_another_kind(served: Live, user: httpx.Client, worker: httpx.Client) -> None:
    """A worker's key reads nothing of users; a user's key says nothing for workers; a token serves its own attempt alone."""
    for _ in range(2):
        user.post("/v1/jobs", json=JOB).raise_for_status()
    one, other = claim(served, worker), claim(served, worker, agent_id="agent-00000002")
    bearer = {"Authorization": f"Bearer {one.claimed['token']}"}
    frames = bearer | {"Stoker-Epoch": "1", "Content-Type": "application/x-stoker-frames"}
    body = {"epoch": 1, "reason": "completed", "last_seq": 0}
    with httpx.Client(base_url=served.url, verify=NO_TLS) as agent:
        refused(agent.post(f"/v1/attempts/{other.id}/report", headers=frames), 403, "wrong_credential_kind")
        refused(agent.post(f"/v1/attempts/{other.id}/finish", json=body, headers=bearer), 403, "wrong_credential_kind")
        refused(agent.get("/v1/jobs", headers=bearer), 403, "wrong_credential_kind")
        refused(agent.post("/v1/workers/heartbeat", json={}, headers=bearer), 403, "wrong_credential_kind", "insufficient_scope")
        assert agent.post(f"/v1/attempts/{one.id}/report", headers=frames).status_code == 200
    refused(user.post(f"/v1/attempts/{one.id}/finish", json=body), 403, "wrong_credential_kind")
    refused(user.post(f"/v1/attempts/{one.id}/claim", json=body), 403, "insufficient_scope")
    refused(user.post("/v1/workers/heartbeat", json={}), 403, "insufficient_scope")
    refused(worker.get("/v1/jobs"), 403, "insufficient_scope")
    refused(worker.post("/v1/jobs", json=JOB), 403, "insufficient_scope")
    assert user.get(f"/v1/jobs/{other.claimed['job_id']}").json()["state"] == "starting"
    with served.client("worker", project="elsewhere") as bound:
        refused(bound.post("/v1/workers/heartbeat", json=heartbeat()), 403, "insufficient_scope")


def heartbeat(**more: Any) -> dict[str, Any]:
    return {"name": "w", "boot_id": "b", "version": "1", "capacity": {"cpus": 1, "memory_bytes": 1}} | more


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{n}: &{n} [{', '.join([f'*{chr(ord(n) - 1)}'] * 9)}]\n" for n in "bcdefghi"
)


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        "a: &x 1\nb: *x\n",
        "a: !!python/object/apply:os.system ['true']\n",
        "a: !include /etc/passwd\n",
        "a: 1\na: 2\n",
        "a: 1\n---\nb: 2\n",
        "a: [1, 2\n",
        "\t- x",
        "a: " + "[" * 200 + "]" * 200,
        "a: \x00\n",
        "a: .nan\nb: .inf\n",
        "<<: {a: 1}\n",
        "? [a]\n: 1\n",
    ],
    ids=range(13),
)
def test_yaml_that_is_refused(user: httpx.Client, text: str) -> None:
    for to in ("/v1/plans", "/v1/jobs"):
        refused(user.post(to, content=text.encode(), headers=YAML), 422, "yaml_rejected", "spec_invalid", sent=text)
    refused(user.post("/v1/jobs", content=b"a: \xff", headers=YAML), 422, "yaml_rejected")
    refused(user.post("/v1/jobs", content=b"a" * 70_000 + b": " + b"b" * (1 << 20), headers=YAML), 413, "body_too_large")


def deep(**sections: Any) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(json.dumps(JOB | sections))
    return made


ABSURD: list[tuple[dict[str, Any], str]] = [
    (deep(model={"type": "transformer_decoder", "num_layers": 1_000_000_000}), "spec_invalid"),
    (deep(model={"type": "transformer_decoder", "hidden_size": 10**12}), "spec_invalid"),
    (deep(model={"type": "mlp", "hidden_sizes": [1_000_000] * 64}), "estimate_exceeds_limit"),
    (deep(resources={"max_retries": 10**6}), "spec_invalid"),
    (deep(resources={"time_limit_seconds": 0}), "spec_invalid"),
    (deep(optimizer={"type": "adamw", "lr": 1e-320}), "spec_invalid"),
    (deep(optimizer={"type": "adamw", "lr": -0.0}), "spec_invalid"),
    (deep(priority=2**63 - 1), "spec_invalid"),
    (deep(environment={"LD_PRELOAD": "x"}), "spec_invalid"),
    (deep(task={"type": "__class__"}), "spec_invalid"),
    *[
        (deep(data={"source": {"type": "csv", "dataset": p}}), "spec_invalid")
        for p in ("../x", "..\\x", "C:\\x", "\\\\host\\x", "file:///etc/passwd", "~", "http://169.254.169.254/x", "a\u0001")
    ],
    (deep(extends="/etc/passwd"), "spec_invalid"),
    (deep(extends="job_" + "0" * 26), "spec_invalid"),
]


@pytest.mark.parametrize(("spec", "code"), ABSURD, ids=range(len(ABSURD)))
def test_absurd_specs_are_refused_by_arithmetic(served: Live, user: httpx.Client, spec: dict[str, Any], code: str) -> None:
    with served.client(token=user.headers["authorization"].split()[1]) as quick:
        for to in ("/v1/plans", "/v1/jobs"):
            answer = quick.post(to, json=spec, timeout=2)
            refused(answer, 422, code, sent=spec)
            assert "/etc/passwd" not in answer.text


@pytest.mark.parametrize(("gib", "told"), [(0.01, True), (64.0, False)])
def test_a_reserve_below_the_plan_is_told(user: httpx.Client, gib: float, told: bool) -> None:
    answer = user.post("/v1/plans", json=deep(resources={"memory_gb": gib})).json()
    found = [finding for finding in answer["warnings"] if finding["code"] == "reserves-too-little"]
    assert [(one["pointer"], one["severity"]) for one in found] == ([("/resources/memory_gb", "warning")] if told else [])
    assert answer["plan"]["fits"] is not told


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "/v1/jobs/{job}", {"state": "succeeded"}),
        ("PATCH", "/v1/jobs/{job}", {"priority": 1, "project": "other"}),
        ("PATCH", "/v1/jobs/{job}", {"priority": 2**62}),
        ("PATCH", "/v1/jobs/{job}", {"labels": {"a": {"b": 1}}}),
        ("POST", "/v1/jobs/{job}/retry", {"from_start": "yes"}),
        ("POST", "/v1/jobs/{job}/retry", {"epoch": 7}),
        ("POST", "/v1/keys", {"name": "k", "scopes": ["root"]}),
        ("POST", "/v1/keys", {"name": "k", "scopes": ["read"], "key": "stk_mine"}),
        ("POST", "/v1/keys", {"name": "k", "scopes": ["read"], "expires_in_days": 10**6}),
        ("POST", "/v1/datasets", {"name": "d", "files": [], "version": 9}),
    ],
)
def test_nothing_is_assigned_that_is_not_offered(user: httpx.Client, method: str, path: str, body: dict[str, Any]) -> None:
    job = user.post("/v1/jobs", json=JOB).json()["id"]
    before = user.get(f"/v1/jobs/{job}")
    headers = {"If-Match": before.headers["etag"]}
    refused(user.request(method, path.format(job=job), json=body, headers=headers), 422, "validation_failed", sent=body)
    assert user.get(f"/v1/jobs/{job}").json()["state"] in ("queued", "starting")
    user.post(f"/v1/jobs/{job}/cancel")


@pytest.mark.parametrize(
    "body",
    [
        heartbeat(name="a b"),
        heartbeat(name="x" * 200),
        heartbeat(project="other"),
        heartbeat(capacity={"cpus": -1, "memory_bytes": 1}),
        heartbeat(capacity={"cpus": 10**9, "memory_bytes": 1}),
        heartbeat(capacity={"cpus": 1, "memory_bytes": 2**63 - 1}),
        heartbeat(held=[{"attempt_id": "x" * 65, "epoch": 1, "alive": True}]),
        heartbeat(held=[{"attempt_id": "x", "epoch": 1, "alive": True}] * 2000),
        heartbeat(load={f"k{i}": 1.0 for i in range(100)}),
        {},
        [],
    ],
    ids=range(11),
)
def test_heartbeats_that_are_refused(user: httpx.Client, worker: httpx.Client, body: Any) -> None:
    refused(worker.post("/v1/workers/heartbeat", json=body), 422, "validation_failed", sent=body)
    assert {w["name"] for w in user.get("/v1/workers").json()["data"]} == {"node"}


def test_bodies_without_a_length_are_bounded(served: Live, user: httpx.Client) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(40):
            yield b" " * 65_536

    refused(user.post("/v1/jobs", content=pieces(), headers=JSON), 413, "body_too_large")
    refused(
        user.post("/v1/jobs", content=b"{}", headers=JSON | {"Content-Encoding": "gzip"}), 415, "unsupported_content_encoding"
    )
    assert user.get("/healthz").status_code == 200


def archive() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("bomb.csv", b"0" * 5_000_000)
    return out.getvalue()


def objects() -> bytes:
    out = io.BytesIO()
    np.save(out, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return out.getvalue()


@pytest.mark.parametrize(
    ("path", "data", "status", "code"),
    [
        ("t.csv", archive(), 415, "format_not_allowed"),
        ("t.npy", objects(), 415, "format_not_allowed"),
        ("t.csv", b"a,b\n" + b"x" * (2 << 20) + b",1\n", 422, "dataset_rejected"),
        ("t.csv", b",".join(b"c%d" % i for i in range(5000)) + b"\n", 422, "dataset_rejected"),
        ("t.csv", b'a,b\n"never closed,1\n', 422, "dataset_rejected"),
        ("t.csv", b"a,b\n\x00,1\n", 422, "dataset_rejected"),
        ("t.parquet", b"PAR1" + b"\xff" * 64 + b"PAR1", 422, "dataset_rejected"),
        (
            "t.npy",
            b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}",
            422,
            "dataset_rejected",
        ),
    ],
    ids=["zip", "objects", "cell", "columns", "quote", "nul", "footer", "claims"],
)
def test_uploads_that_are_refused(user: httpx.Client, path: str, data: bytes, status: int, code: str) -> None:
    refused(upload(user, "hostile", {path: data}), status, code, "format_not_allowed")
    assert user.get("/v1/datasets/hostile").status_code == 404


def test_an_unknown_type_of_answer_is_json(user: httpx.Client) -> None:
    answer = user.get("/v1/jobs", headers={"Accept": "application/xml", "Origin": "https://evil.example"})
    assert answer.headers["content-type"] == "application/json"
    assert not [h for h in answer.headers if h.startswith("access-control")]
    beat_is_no_get = user.get("/v1/workers/heartbeat")
    assert beat_is_no_get.status_code == 405
