"""The front door: who comes in, what is refused and how. Through a real socket, on the bytes."""

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Mount

from server.app import create_app
from server.deps import Require, require_attempt, require_uploader
from server.guard import DOCS, PUBLIC
from server.settings import Settings
from tests.support.live import JOB, Live
from tests.support.plain import NO_TLS

PROBLEM = "application/problem+json"


def raw(served: Live, data: bytes, *, finish: bool = True) -> bytes:
    """Send bytes, read until the server closes or answers whole."""
    with closing(socket.create_connection(("127.0.0.1", served.port), timeout=15)) as connection:
        connection.sendall(data)
        if finish:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
        return answer


def check(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM), answer.text
    assert answer.json()["code"] == code


def flat(routes: list[BaseRoute]) -> Iterator[APIRoute]:
    for route in routes:
        if isinstance(route, APIRoute):
            yield route
        elif isinstance(route, Mount):
            yield from flat(list(route.routes))
        elif (inner := getattr(route, "original_router", None)) is not None:
            yield from flat(inner.routes)
        else:
            raise AssertionError(f"a kind of route that nobody guards: {route!r}")


def every_route(served: Live) -> list[APIRoute]:
    found = list(flat(create_app(served.settings).routes))
    assert len(found) > 40
    return found


def test_every_route_refuses_without_a_key(served: Live) -> None:
    with httpx.Client(base_url=served.url, verify=NO_TLS) as nobody:
        for route in every_route(served):
            path = re.sub(r"\{[^}]*\}", "x", route.path)
            for method in route.methods | {"HEAD"}:
                answer = nobody.request(method, path)
                if path in PUBLIC:
                    assert answer.status_code in (200, 405), path
                else:
                    assert answer.status_code == 401, (method, path)
                    assert answer.headers["www-authenticate"] == "Bearer"


def test_every_route_says_what_it_requires(served: Live) -> None:
    """Behind the guard there is a second wall: each endpoint names a scope, or is public by name."""
    for route in every_route(served):
        if route.path in PUBLIC | DOCS:
            continue
        calls, waiting = set[Any](), [route.dependant]
        while waiting:
            dependant = waiting.pop()
            calls.add(dependant.call)
            waiting += dependant.dependencies
        known = (require_attempt, require_uploader)
        assert any(isinstance(c, Require) or c in known or getattr(c, "__name__", "").startswith("require_") for c in calls), (
            route.path
        )


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Basic abc", "Bearer stk_abcdefgh_short", "Bearer " + "x" * 150, "Bearer stk_abcdefgh_" + "A" * 43],
)
def test_wrong_credentials(served: Live, header: str) -> None:
    with httpx.Client(base_url=served.url, verify=NO_TLS) as nobody:
        check(nobody.get("/v1/jobs", headers={"Authorization": header} if header else {}), 401, "unauthenticated")
        check(nobody.get("/v1/jobs?key=stk_abcdefgh_" + "A" * 43), 401, "unauthenticated")


def test_scopes_and_kinds_of_credentials(served: Live) -> None:
    with served.client("read") as reader, served.client("worker") as worker:
        check(reader.post("/v1/jobs", json=JOB), 403, "insufficient_scope")
        check(reader.get("/v1/keys"), 403, "insufficient_scope")
        check(reader.post("/v1/attempts/att_x/report", headers={"Stoker-Epoch": "1"}), 403, "wrong_credential_kind")
        check(worker.get("/v1/jobs"), 403, "insufficient_scope")


def test_a_revoked_key_is_refused_within_a_second(served: Live, user: httpx.Client) -> None:
    made = user.post("/v1/keys", json={"name": "brief", "scopes": ["read"]}, headers={"Idempotency-Key": "brief"}).json()
    again = user.post("/v1/keys", json={"name": "brief", "scopes": ["read"]}, headers={"Idempotency-Key": "brief"}).json()
    assert again == made, "a replay shows the same key"
    assert all(k["key"] is None for k in user.get("/v1/keys").json()["data"])
    with served.client(token=made["key"]) as brief:
        assert brief.get("/v1/jobs").status_code == 200
        assert user.delete(f"/v1/keys/{made['id']}").json()["revoked_at"] is not None
        revoked, refused = time.monotonic(), False
        while not refused and time.monotonic() < revoked + 1.5:
            refused = brief.get("/v1/jobs").status_code == 401
        assert refused, "one second, and half of one for a busy machine"


def test_another_project_s_job_is_nowhere(served: Live, user: httpx.Client) -> None:
    job = user.post("/v1/jobs", json=JOB).json()["id"]
    with served.client("read", "submit", "admin", project="elsewhere") as stranger:
        for verb, path in [
            ("GET", ""),
            ("GET", "/events"),
            ("GET", "/spec"),
            ("GET", "/why"),
            ("POST", "/cancel"),
            ("GET", "/attempts"),
        ]:
            headers = {"X-Request-Id": "same"}
            mine = stranger.request(verb, f"/v1/jobs/{job}{path}", headers=headers)
            none = stranger.request(verb, f"/v1/jobs/job_{'0' * 26}{path}", headers=headers)
            check(mine, 404, "not_found")
            assert mine.content == none.content
        assert stranger.get("/v1/jobs").json()["data"] == []
        check(stranger.post("/v1/jobs", json=JOB | {"project": "default"}), 403, "wrong_project")
        check(stranger.get("/metrics"), 403, "insufficient_scope")
    user.post(f"/v1/jobs/{job}/cancel")


BODIES: list[tuple[bytes, int, str]] = [
    (b'{"a": NaN}', 400, "json_non_finite"),
    (b'{"a": 1e400}', 400, "json_number_out_of_range"),
    (b'{"a": 1000000000000000000000000000000}', 400, "json_number_out_of_range"),
    (b'{"a": 1, "a": 2}', 400, "json_duplicate_key"),
    (b"[" * 33 + b"]" * 33, 400, "json_too_deep"),
    (b"[" * 100_000 + b"]" * 100_000, 400, "json_too_deep"),
    (b'{"a": "\\u0000"}', 400, "json_nul"),
    (b'{"a": "\\ud800"}', 400, "json_invalid_unicode"),
    (b'{"a": "\xff"}', 400, "json_not_utf8"),
    (b"\xef\xbb\xbf{}", 400, "json_bom"),
    (b"{'a': 1}", 400, "json_invalid"),
    (b'{"a": 1,}', 400, "json_invalid"),
    (b"", 400, "json_invalid"),
    (b"   ", 400, "json_invalid"),
    (b"[]", 422, "spec_invalid"),
    (b"{}", 422, "spec_invalid"),
    (b'{"is_admin": true, "state": "succeeded"}', 422, "spec_invalid"),
    (b'{"a": "' + b"x" * (1 << 20) + b'"}', 413, "body_too_large"),
]


@pytest.mark.parametrize(("body", "status", "code"), BODIES, ids=lambda v: None if isinstance(v, bytes) else str(v))
def test_bodies_that_are_refused(user: httpx.Client, body: bytes, status: int, code: str) -> None:
    before = len(user.get("/v1/jobs", params={"limit": 500, "archived": True}).json()["data"])
    check(user.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"}), status, code)
    assert len(user.get("/v1/jobs", params={"limit": 500, "archived": True}).json()["data"]) == before


def spec(**sections: Any) -> dict[str, Any]:
    return json.loads(json.dumps(JOB | sections))


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (spec(model={"type": "mlp", "hidden_sizes": [10**9]}), "spec_invalid"),
        (spec(optimizer={"type": "adamw", "lr": 0}), "spec_invalid"),
        (spec(optimizer={"type": "adamw", "lr": -1}), "spec_invalid"),
        (spec(name="a\nb"), "spec_invalid"),
        (spec(name="\u202eabc"), "spec_invalid"),
        (spec(name="x" * 100_000), "spec_invalid"),
        (spec(model={"type": "mlp", "hidden_sizes": [1_000_000] * 12}), "estimate_exceeds_limit"),
        (spec(data={"source": {"type": "csv", "dataset": "/etc/passwd"}}), "spec_invalid"),
        (spec(data={"source": {"type": "csv", "dataset": "absent"}}), "spec_invalid"),
    ],
    ids=range(9),
)
def test_specs_that_are_refused_and_never_echoed(user: httpx.Client, body: dict[str, Any], code: str) -> None:
    answer = user.post("/v1/jobs", json=body)
    check(answer, 422, code)
    assert len(answer.content) < 4000
    assert "/etc/passwd" not in answer.text


def test_five_mistakes_are_five_pointers(user: httpx.Client) -> None:
    body = spec(
        optimiser={}, optimizer={"type": "adamw", "lr": "fast"}, precision={"mode": "fp7"}, name="no spaces", priority=1000
    )
    found = user.post("/v1/jobs", json=body).json()["errors"]
    assert {f["pointer"] for f in found} >= {"/optimiser", "/optimizer/lr", "/precision/mode", "/name", "/priority"}
    assert any("optimizer" in (f.get("hint") or "") + f["message"] for f in found if f["pointer"] == "/optimiser")


@pytest.mark.parametrize("media", [None, "text/plain", "multipart/form-data", "application/json; charset=latin1"])
def test_media_types_that_are_refused(user: httpx.Client, media: str | None) -> None:
    headers = {} if media is None else {"Content-Type": media}
    check(user.post("/v1/jobs", content=b"{}", headers=headers), 415, "unsupported_media_type")


@pytest.mark.parametrize("path", ["/v1/jobs/", "/nope", "//", "/v1/jobs/x;y=1", "/%2e%2e/etc", "/v1/%252e"])
def test_unknown_paths(user: httpx.Client, path: str) -> None:
    check(user.get(path), 404 if "x;" not in path else 422, "not_found" if "x;" not in path else "validation_failed")


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=9999", "after='or'1", "state=happy", "sort=__class__", "since=yesterday", "metric.a/b>=x"]
)
def test_queries_that_are_refused(user: httpx.Client, query: str) -> None:
    check(user.get(f"/v1/jobs?{query}"), 422, "validation_failed")


def test_methods_hosts_sizes_and_keys(served: Live, user: httpx.Client) -> None:
    answer = user.request("PATCH", "/v1/jobs", json={})
    check(answer, 405, "method_not_allowed")
    assert "GET" in answer.headers["allow"] or "POST" in answer.headers["allow"]
    check(user.get("/v1/jobs", headers={"Host": "evil.example"}), 421, "host_not_allowed")
    check(user.get("/v1/jobs", headers={f"X-{i}": "y" for i in range(120)}), 431, "headers_too_large")
    check(user.get("/v1/jobs", headers={"X-Big": "y" * 40_000}), 431, "headers_too_large")
    check(user.get("/v1/jobs?" + "x" * 9000), 414, "uri_too_long")
    check(user.post("/v1/jobs", json=JOB, headers={"Idempotency-Key": "x" * 256}), 400, "idempotency_key_invalid")
    head, get = user.head("/v1/workers"), user.get("/v1/workers")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == get.headers["content-length"]
    assert "server" not in get.headers
    assert user.get("/version", headers={"X-Request-Id": "mine-1"}).headers["x-request-id"] == "mine-1"
    assert user.get("/version", headers={"X-Request-Id": "a b"}).headers["x-request-id"] != "a b"


def test_lengths_given_twice_and_garbage(served: Live, user: httpx.Client) -> None:
    key = user.headers["authorization"].encode()
    head = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: " + key + b"\r\nContent-Type: application/json\r\n"
    for attack in (
        head + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        head + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        head + b"Content-Length: -2\r\n\r\n{}",
        head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\x16\x03\x01\x02\x00 not http\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
    ):
        answer = raw(served, attack)
        assert answer == b"" or b" 400 " in answer.split(b"\r\n")[0], answer[:200]
    assert user.get("/healthz").status_code == 200


def test_a_header_that_never_ends_is_cut_off(served: Live) -> None:
    from server.http import Protocol

    before, Protocol.deadline = Protocol.deadline, 0.3
    try:
        assert raw(served, b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ", finish=False) == b""
        assert raw(served, b"", finish=False) == b""
    finally:
        Protocol.deadline = before


def test_streams_are_cut_and_resumed_without_loss(served: Live, user: httpx.Client) -> None:
    job = user.post("/v1/jobs", json=JOB).json()["id"]
    for _ in range(3):
        user.post(f"/v1/jobs/{job}/pause")
        user.post(f"/v1/jobs/{job}/resume")
    user.post(f"/v1/jobs/{job}/cancel")
    expected = [e["seq"] for e in user.get(f"/v1/jobs/{job}/events", params={"limit": 500}).json()["data"]]
    seen: list[int] = []
    while len(seen) < len(expected):
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": str(seen[-1])} if seen else {})
        with user.stream("GET", f"/v1/jobs/{job}/events", headers=headers) as stream:
            for line in stream.iter_lines():
                if line.startswith("id: "):
                    seen.append(int(line[4:]))
                    if len(seen) % 2:
                        break  # the connection is cut
    assert seen == expected
    with user.stream("GET", f"/v1/jobs/{job}/events", headers={"Accept": "text/event-stream"}) as stream:
        lines = [line for line in stream.iter_lines() if line.startswith("event: ")]
    assert lines[-1] == "event: end"


def test_too_many_streams(served: Live, user: httpx.Client) -> None:
    job = user.post("/v1/jobs", json=JOB).json()["id"]
    before, served.settings.max_streams_per_key = served.settings.max_streams_per_key, 1
    try:
        with user.stream("GET", f"/v1/jobs/{job}/events", headers={"Accept": "text/event-stream"}) as stream:
            lines = stream.iter_lines()
            assert next(lines) == "retry: 1000"
            check(user.get(f"/v1/jobs/{job}/events", headers={"Accept": "text/event-stream"}), 429, "too_many_streams")
    finally:
        served.settings.max_streams_per_key = before
    user.post(f"/v1/jobs/{job}/cancel")


def test_the_documents_need_a_key_and_the_settings_may_show_them(served: Live, user: httpx.Client) -> None:
    assert user.get("/openapi.json").json()["openapi"].startswith("3.1")
    check(user.get("/docs"), 404, "not_found")
    assert isinstance(served.settings, Settings)
