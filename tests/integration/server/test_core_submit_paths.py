"""A submit has one route. A plain request passes by the framework's checks of queries and headers, and means the same, on both databases."""

import asyncio
import contextlib
import csv
import hashlib
import io
import json
import threading
import uuid
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from sqlalchemy import event, select
from sqlmodel import Session
from starlette.types import ASGIApp, Receive, Scope, Send

from server import idempotency
from server.app import create_app, guarded, running
from server.datasets.tables import Dataset
from server.db import Database, new_id
from server.db.migrate import migrate
from server.errors import Refusal
from server.settings import Settings
from tests.support.live import CSV, JOB, Live, live, upload_toy
from tests.support.oracle import judge
from tests.support.plain import NO_TLS
from tests.support.postgres import Postgres

pytestmark = pytest.mark.databases("sqlite", "postgresql")

JSON, YAML = {"Content-Type": "application/json"}, {"Content-Type": "application/yaml"}
ROUTED: dict[str, dict[str, Any]] = {
    "project header": {"headers": {"Stoker-Project": "default"}},
    "gate": {"params": {"require": "validation/loss<=9"}},
    "yaml": {"headers": YAML},
}
"""What makes a submit go through the framework: each asks for the same job."""
VOLATILE = {"date", "location", "x-request-id", "content-length"}


def post(http: httpx.Client, body: Any, way: dict[str, Any] | None = None, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = way or {}
    return http.post("/v1/jobs", content=content, params=given.get("params"), headers=JSON | given.get("headers", {}) | headers)


def heads(answer: httpx.Response) -> dict[str, str]:
    return {k: v for k, v in answer.headers.items() if k not in VOLATILE}


def same(one: dict[str, Any], other: dict[str, Any]) -> None:
    """The views differ in what names the job and when it came, and in nothing else."""
    own = {"id", "created_at", "queued_at", "links"}
    assert list(one) == list(other)
    assert {k: v for k, v in one.items() if k not in own} == {k: v for k, v in other.items() if k not in own}
    assert {k: v.replace(one["id"], "ID") for k, v in one["links"].items()} == {
        k: v.replace(other["id"], "ID") for k, v in other["links"].items()
    }


@pytest.mark.parametrize("way", ROUTED)
def test_both_ways_make_the_same_job(user: httpx.Client, way: str) -> None:
    body = JOB | {"name": "twin", "labels": {"team": "a", "run": "1"}, "priority": 3}
    short, routed = post(user, body), post(user, body, ROUTED[way])
    assert (short.status_code, routed.status_code) == (202, 202), routed.text
    assert heads(short) == heads(routed)
    same(short.json(), routed.json())
    for answer in (short, routed):
        made = answer.json()
        assert answer.headers["location"] == f"/v1/jobs/{made['id']}"
        seen = user.get(f"/v1/jobs/{made['id']}")
        assert seen.json() == made, "the answer is the view that a reader gets"
        assert seen.headers["etag"] == answer.headers["etag"]
        found = user.get("/v1/jobs", params={"label.team": "a", "label.run": "1", "limit": 500}).json()["data"]
        assert made["id"] in [j["id"] for j in found]
        assert [e["seq"] for e in user.get(f"/v1/jobs/{made['id']}/events").json()["data"]] == [1]
    specs = [user.get(f"/v1/jobs/{a.json()['id']}/spec", params={"resolved": r}).json() for r in (0, 1) for a in (short, routed)]
    assert specs[0] == specs[1] == body
    assert specs[2] == specs[3]
    for answer in (short, routed):
        user.post(f"/v1/jobs/{answer.json()['id']}/cancel")


def test_both_ways_are_counted_under_one_route(user: httpx.Client) -> None:
    def counted() -> float:
        name = 'stoker_http_request_seconds_count{method="POST",route="/v1/jobs",status="202"} '
        lines = [line for line in user.get("/metrics").text.splitlines() if line.startswith(name)]
        return float(lines[0].split()[-1]) if lines else 0.0

    before = counted()
    for way in (None, *ROUTED.values()):
        user.post(f"/v1/jobs/{post(user, JOB, way).json()['id']}/cancel")
    assert counted() == before + 4


BAD: dict[str, tuple[bytes, dict[str, str], int, str]] = {
    "nan": (b'{"training": {"max_steps": NaN}}', {}, 400, "json_non_finite"),
    "duplicate key": (b'{"task": {}, "task": {}}', {}, 400, "json_duplicate_key"),
    "not json": (b"{'task': 1}", {}, 400, "json_invalid"),
    "nothing": (b"", {}, 400, "json_invalid"),
    "a list": (b"[]", {}, 422, "spec_invalid"),
    "empty": (b"{}", {}, 422, "spec_invalid"),
    "unknown key": (json.dumps(JOB | {"optimiser": {}}).encode(), {}, 422, "spec_invalid"),
    "wrong type": (json.dumps(JOB | {"priority": "high"}).encode(), {}, 422, "spec_invalid"),
    "project is a number": (json.dumps(JOB | {"project": 7}).encode(), {}, 422, "spec_invalid"),
    "unknown data set": (
        json.dumps(JOB | {"data": {"source": {"type": "csv", "dataset": "none"}}}).encode(),
        {},
        422,
        "spec_invalid",
    ),
    "unknown version": (
        json.dumps(JOB | {"data": {"source": {"type": "csv", "dataset": "toy@9"}}}).encode(),
        {},
        422,
        "spec_invalid",
    ),
    "data set is a list": (
        json.dumps(JOB | {"data": {"source": {"type": "csv", "dataset": ["toy"]}}}).encode(),
        {},
        422,
        "spec_invalid",
    ),
    "data is a word": (json.dumps(JOB | {"data": "toy"}).encode(), {}, 422, "spec_invalid"),
    "extends nothing": (json.dumps({"extends": "job:job_" + "0" * 26}).encode(), {}, 422, "spec_invalid"),
    "absurd": (
        json.dumps(JOB | {"model": {"type": "mlp", "hidden_sizes": [10**6] * 12}}).encode(),
        {},
        422,
        "estimate_exceeds_limit",
    ),
    "wrong media type": (json.dumps(JOB).encode(), {"Content-Type": "text/plain"}, 415, "unsupported_media_type"),
    "compressed": (json.dumps(JOB).encode(), {"Content-Encoding": "gzip"}, 415, "unsupported_content_encoding"),
    "oversized": (b'{"a": "' + b"x" * (1 << 20) + b'"}', {}, 413, "body_too_large"),
    "idempotency key": (json.dumps(JOB).encode(), {"Idempotency-Key": "a b"}, 400, "idempotency_key_invalid"),
    "empty idempotency key": (json.dumps(JOB).encode(), {"Idempotency-Key": ""}, 400, "idempotency_key_invalid"),
}


@pytest.mark.parametrize("case", BAD)
def test_both_ways_refuse_alike(user: httpx.Client, case: str) -> None:
    body, headers, status, code = BAD[case]
    count = len(user.get("/v1/jobs", params={"limit": 500, "archived": True}).json()["data"])
    ways = (None, ROUTED["project header"], ROUTED["gate"])
    answers = [post(user, body, way, **headers, **{"X-Request-Id": "same"}) for way in ways]
    for answer in answers:
        judge(answer, [])
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
        assert (answer.content, heads(answer)) == (answers[0].content, heads(answers[0]))
    assert len(user.get("/v1/jobs", params={"limit": 500, "archived": True}).json()["data"]) == count


@pytest.mark.parametrize(
    ("scopes", "project", "body", "status", "code"),
    [
        ((), None, JOB, 401, "unauthenticated"),
        (("read",), None, JOB, 403, "insufficient_scope"),
        (("worker",), None, JOB, 403, "insufficient_scope"),
        (("submit",), "elsewhere", JOB | {"project": "default"}, 403, "wrong_project"),
        (("submit",), "elsewhere", JOB, 422, "spec_invalid"),
    ],
    ids=["no key", "reader", "worker", "another project's", "another project's data"],
)
def test_both_ways_ask_for_the_same_rights(
    served: Live, scopes: tuple[str, ...], project: str | None, body: Any, status: int, code: str
) -> None:
    with served.client(*scopes, project=project) if scopes else httpx.Client(base_url=served.url, verify=NO_TLS) as http:
        ways = (None, {"headers": {"Stoker-Project": project or "default"}}, ROUTED["gate"])
        answers = [post(http, body, way, **{"X-Request-Id": "same"}) for way in ways]
    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
        assert (answer.content, heads(answer)) == (answers[0].content, heads(answers[0]))


@pytest.mark.parametrize("way", ["project header", "yaml"])
@pytest.mark.parametrize("first", ["short", "routed"])
def test_an_idempotency_key_is_one_for_both_ways(user: httpx.Client, way: str, first: str) -> None:
    key, ways = {"Idempotency-Key": uuid.uuid4().hex}, [None, ROUTED[way]]
    if first == "routed":
        ways.reverse()
    made, again = (post(user, JOB, each, **key) for each in ways)
    assert (made.status_code, again.status_code) == (202, 202), again.text
    assert again.content == made.content
    assert again.headers["location"] == made.headers["location"]
    assert again.headers["idempotency-replayed"] == "true"
    assert {k: v for k, v in heads(again).items() if k != "idempotency-replayed"} == heads(made)
    for each in (*ways, ROUTED["gate"]):
        other = post(user, JOB | ({} if each is ROUTED["gate"] else {"priority": 1}), each, **key)
        assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    user.post(f"/v1/jobs/{made.json()['id']}/cancel")


def test_a_key_of_every_project_has_its_idempotency_keys_in_each(user: httpx.Client) -> None:
    """The same request for another project is another job, whichever way the first one went."""
    there, key = {"headers": {"Stoker-Project": "second"}}, {"Idempotency-Key": uuid.uuid4().hex}
    with httpx.Client(
        base_url=user.base_url, headers={**user.headers, "Stoker-Project": "second"}, timeout=30, verify=NO_TLS
    ) as http:
        upload_toy(http)
    answers = [post(user, JOB, None, **key), post(user, JOB, there, **key), post(user, JOB, there, **key)]
    assert [a.json()["project"] for a in answers] == ["default", "second", "second"]
    assert [a.headers.get("idempotency-replayed") for a in answers] == [None, None, "true"]
    for answer in answers:
        user.post(f"/v1/jobs/{answer.json()['id']}/cancel")


def upload(http: httpx.Client, name: str, rows: int) -> str:
    text = io.StringIO()
    csv.writer(text).writerows([("a", "b", "label"), *((i, i * i % 7, i % 2) for i in range(rows))])
    data = text.getvalue().encode()
    digest = hashlib.sha256(data).hexdigest()
    http.put(f"/v1/blobs/{digest}", content=data, headers={"Content-Type": "application/octet-stream"}).raise_for_status()
    files = [{"path": "x.csv", "bytes": len(data), "sha256": digest}]
    made = http.post("/v1/datasets", json={"name": name, "files": files})
    assert made.status_code == 201, made.text
    return f"{name}@{made.json()['version']}"


@pytest.mark.parametrize("way", [None, "project header", "yaml"])
def test_the_same_body_means_the_newest_data_set(user: httpx.Client, way: str | None) -> None:
    name = f"moving-{uuid.uuid4().hex[:8]}"
    body = JOB | {"data": {"source": {"type": "csv", "dataset": name}}}
    pinned, digests, given = [], [], ROUTED[way] if way else None
    for rows in (100, 120, 140):
        expected = upload(user, name, rows)
        for _ in range(3):
            made = post(user, body, given)
            assert made.status_code == 202, made.text
            resolved = user.get(f"/v1/jobs/{made.json()['id']}/spec", params={"resolved": 1}).json()
            pinned.append(resolved["spec"]["data"]["source"]["dataset"] == expected)
            digests.append(made.json()["spec_digest"])
            user.post(f"/v1/jobs/{made.json()['id']}/cancel")
    assert all(pinned)
    assert [digests.index(d) for d in digests] == [0, 0, 0, 3, 3, 3, 6, 6, 6], "other data is another experiment"
    exact = post(user, JOB | {"data": {"source": {"type": "csv", "dataset": f"{name}@1"}}}, given)
    assert exact.json()["spec_digest"] == digests[0], "who names a version keeps it"
    user.post(f"/v1/jobs/{exact.json()['id']}/cancel")


def test_the_queue_is_full_for_both_ways(served: Live) -> None:
    project, before = f"full-{uuid.uuid4().hex[:8]}", served.settings.max_queued_jobs
    with served.client("submit", project=project) as http:
        upload_toy(http)
        served.settings.max_queued_jobs = 3
        try:
            assert [post(http, JOB).status_code for _ in range(3)] == [202] * 3
            ways = (None, {"headers": {"Stoker-Project": project}}, ROUTED["gate"], ROUTED["yaml"])
            answers = [post(http, JOB, way, **{"X-Request-Id": "same"}) for way in ways]
        finally:
            served.settings.max_queued_jobs = before
        for answer in answers:
            assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (429, "queue_full", "60")
            assert (answer.content, heads(answer)) == (answers[0].content, heads(answers[0]))
        for job in http.get("/v1/jobs").json()["data"]:
            http.post(f"/v1/jobs/{job['id']}/cancel")


def test_the_rate_of_a_key_counts_both_ways(tmp_path: Path) -> None:
    with live(tmp_path, requests_per_second=0.02, request_burst=6) as server:
        with server.client("submit") as http:
            upload_toy(http)
        with server.client("submit") as http:
            ways = [None, ROUTED["project header"]]
            assert [post(http, JOB, ways[n % 2]).status_code for n in range(6)] == [202] * 6
            answers = [post(http, JOB, way, **{"X-Request-Id": "same"}) for way in ways]
        for answer in answers:
            assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
            assert 1 <= int(answer.headers["retry-after"]) <= 50
        assert answers[0].content == answers[1].content


class Recorder:
    """The targets of requests that reach the framework."""

    def __init__(self, app: ASGIApp, seen: list[str]) -> None:
        self._app, self._seen = app, seen

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self._seen.append(scope["path"])
        await self._app(scope, receive, send)


@dataclass
class Inside:
    """A server without a socket in this event loop, whose writer the test can keep busy."""

    db: Database
    http: httpx.AsyncClient
    routed: list[str]
    savepoints: int = 0
    """Since the writer was last kept busy."""

    async def at_once(self, requests: list[dict[str, Any]], *, before: Callable[[Session], None] | None = None) -> list[Any]:
        """Answers to submits that all wait for the writer at one moment, which first does what comes `before`."""
        began, go = threading.Event(), threading.Event()

        def busy(session: Session) -> None:
            began.set()
            assert go.wait(60)
            if before is not None:
                before(session)

        thread = threading.Thread(target=self.db.write_now, args=(busy,))
        thread.start()
        try:
            assert await asyncio.to_thread(began.wait, 60)
            asked = [asyncio.create_task(self.http.post("/v1/jobs", **r)) for r in requests]
            quiet, before_now = 0, -1
            async with asyncio.timeout(60):
                while quiet < 20:  # the scheduler writes too, so a number alone does not say that all have come
                    await asyncio.sleep(0.005)
                    come = self.db._inbox.qsize() + sum(t.done() for t in asked)
                    still = come == before_now and come >= len(asked) and not self.db._gathering
                    quiet, before_now = quiet + 1 if still else 0, come
            self.savepoints = 0
        finally:
            go.set()
            await asyncio.to_thread(thread.join, 60)
        async with asyncio.timeout(60):
            return await asyncio.gather(*asked)


@contextlib.asynccontextmanager
async def inside(home: Path, url: str) -> AsyncIterator[Inside]:
    settings = Settings(state_dir=home / "state", database_url=url, access_log=False)
    settings.check()
    migrate(settings.database)
    app, seen = create_app(settings), list[str]()
    app.add_middleware(Recorder, seen=seen)
    key = {"Authorization": f"Bearer {Live(settings, 0).key('read', 'submit', 'admin')}"}
    async with (
        running(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app=guarded(app)), base_url="http://localhost", headers=key, timeout=60, verify=NO_TLS
        ) as http,
    ):
        made = Inside(app.state.runtime.db, http, seen)

        def counted(*_: Any) -> None:
            made.savepoints += 1

        event.listen(made.db.engine, "savepoint", counted)
        digest = hashlib.sha256(CSV).hexdigest()
        await http.put(f"/v1/blobs/{digest}", content=CSV, headers={"Content-Type": "application/octet-stream"})
        files = [{"path": "toy.csv", "bytes": len(CSV), "sha256": digest}]
        (await http.post("/v1/datasets", json={"name": "toy", "files": files})).raise_for_status()
        seen.clear()
        yield made


def test_every_submit_goes_through_the_route(database_url: str, tmp_path: Path) -> None:
    async def all_ways() -> None:
        async with inside(tmp_path, database_url) as server:
            plain: list[dict[str, Any]] = [{}, {"headers": {"Idempotency-Key": "k"}}, {"headers": {"X-Other": "1"}}]
            for more in plain:
                assert (await server.http.post("/v1/jobs", json=JOB, **more)).status_code == 202
            assert server.routed == ["/v1/jobs"] * len(plain)
            odd: list[dict[str, Any]] = [
                {"json": JOB, "headers": {"Stoker-Project": "default"}},
                {"json": JOB, "headers": [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]},
                {"json": JOB, "headers": {"Idempotency-Key": "a b"}},
                {"json": JOB, "params": {"require": "validation/loss<=9"}},
                {"json": JOB, "params": {"other": "1"}},
                {"json": []},
                {"content": json.dumps(JOB), "headers": YAML},
            ]
            for request in odd:
                await server.http.post("/v1/jobs", **request)
            assert server.routed == ["/v1/jobs"] * (len(plain) + len(odd))

    asyncio.run(all_ways())


def numbered(number: int, **more: Any) -> dict[str, Any]:
    return (
        JOB
        | {"name": f"job-{number}", "labels": {"n": str(number)}, "training": {"max_steps": 10 + number, "batch_size": 8}}
        | more
    )


def test_forty_documents_at_once_and_the_bad_ones_among_them(database_url: str, tmp_path: Path) -> None:
    """One batch holds forty jobs, a document that is wrong, a key that was used, and the same request twice."""

    async def all_at_once() -> None:
        async with inside(tmp_path, database_url) as server:
            (await server.http.post("/v1/jobs", json=JOB, headers={"Idempotency-Key": "used"})).raise_for_status()
            requests: list[dict[str, Any]] = [{"json": numbered(n)} for n in range(40)]
            requests[7]["params"] = {"require": "validation/loss<=9"}
            requests.insert(20, {"json": numbered(99, priority="high")})
            requests.insert(21, {"json": numbered(98), "headers": {"Idempotency-Key": "used"}})
            requests += [{"json": numbered(97), "headers": {"Idempotency-Key": "twice"}}] * 2
            answers = await server.at_once(requests)
            assert server.savepoints < 10, "written together"
            wrong, used, once, twice = answers.pop(20), answers.pop(20), answers.pop(), answers.pop()
            assert (wrong.status_code, [e["pointer"] for e in wrong.json()["errors"]]) == (422, ["/priority"])
            assert (used.status_code, used.json()["code"]) == (422, "idempotency_key_reused")
            assert (once.status_code, once.content) == (202, twice.content)
            assert {once.headers.get("idempotency-replayed"), twice.headers.get("idempotency-replayed")} == {None, "true"}
            assert [a.status_code for a in answers] == [202] * 40
            await check_jobs(server, [a.json() for a in answers])
            listed = (await server.http.get("/v1/jobs", params={"limit": 500})).json()["data"]
            assert len(listed) == 42, "the forty, the one made twice, the one before; nothing of those refused"

    asyncio.run(all_at_once())


async def check_jobs(server: Inside, jobs: list[dict[str, Any]]) -> None:
    """Each caller has his own job, whole, with a log without gaps."""
    assert [j["name"] for j in jobs] == [f"job-{n}" for n in range(40)]
    assert len({j["id"] for j in jobs}) == len({j["spec_digest"] for j in jobs}) == 40
    for number, job in enumerate(jobs):
        at = f"/v1/jobs/{job['id']}"
        assert (await server.http.get(at)).json() == job
        assert (await server.http.get(f"{at}/spec")).json() == numbered(number)
        gates = (await server.http.get(f"{at}/verdict")).json()["gates"]
        assert [g["expression"] for g in gates] == (["validation/loss<=9"] if number == 7 else [])
        found = (await server.http.get("/v1/jobs", params={"label.n": str(number)})).json()["data"]
        assert [j["id"] for j in found] == [job["id"]]
        if number % 10 == 0:
            (await server.http.post(f"{at}/cancel")).raise_for_status()
        log = (await server.http.get(f"{at}/events")).json()["data"]
        assert [e["seq"] for e in log] == list(range(1, len(log) + 1))
        assert [e["data"]["to"] for e in log if e["type"] == "state"] == ["queued", "cancelled"][: 1 + (number % 10 == 0)]


def test_one_that_spoils_the_batch_spoils_only_itself(postgres: Postgres, tmp_path: Path) -> None:
    """Another server process is just answering under one of the keys: the statement that keeps all answers fails."""

    async def spoiled() -> None:
        url = postgres.create_database()
        async with inside(tmp_path, url) as server:
            with psycopg.connect(postgres.dsn(url.rpartition("/")[2])) as other:
                other.execute(
                    "INSERT INTO idempotent_answers (project, key, request_digest, status, headers, body, created_at)"
                    " VALUES ('default', 'k3', 'x', 202, '{}', '', 0)"
                )
                requests: list[dict[str, Any]] = [
                    {"json": numbered(n), "headers": {"Idempotency-Key": f"k{n}"}} for n in range(6)
                ]
                answers = await server.at_once(requests)
                other.rollback()
            assert [a.status_code for a in answers] == [202, 202, 202, 409, 202, 202]
            assert (answers[3].json()["code"], answers[3].headers["retry-after"]) == ("idempotency_in_progress", "1")
            again = [await server.http.post("/v1/jobs", **r) for r in requests]
            assert [a.headers.get("idempotency-replayed") for a in again] == ["true"] * 3 + [None] + ["true"] * 2
            assert [a.content == b.content for a, b in zip(answers, again, strict=True)] == [True] * 3 + [False] + [True] * 2
            assert len((await server.http.get("/v1/jobs")).json()["data"]) == 6

    asyncio.run(spoiled())


def test_a_data_set_that_moves_between_preparing_and_writing(database_url: str, tmp_path: Path) -> None:
    """Remembered documents are worked out again; one that was just worked out, in the same batch, is stored as it is."""
    table = Dataset.metadata.tables["datasets"]

    def second_version(session: Session) -> None:
        row = dict(session.execute(select(table).where(table.c.name == "toy")).one()._mapping)
        session.execute(table.insert().values(row | {"id": new_id("dst"), "version": 2}))

    async def moved() -> None:
        async with inside(tmp_path, database_url) as server:
            (await server.http.post("/v1/jobs", json=numbered(0))).raise_for_status()
            requests = [{"json": numbered(n % 2)} for n in (0, 1, 0)]
            answers = await server.at_once(requests, before=second_version)
            assert [a.status_code for a in answers] == [202] * 3, [a.text for a in answers]
            specs = [await server.http.get(f"/v1/jobs/{a.json()['id']}/spec", params={"resolved": 1}) for a in answers]
            pinned = [s.json()["spec"]["data"]["source"]["dataset"] for s in specs]
            assert (pinned[0], pinned[2]) == ("toy@2", "toy@2")
            assert pinned[1] in ("toy@1", "toy@2"), "asked for before there was a second one, answered after"
            after = await server.http.post("/v1/jobs", json=numbered(1))
            spec = await server.http.get(f"/v1/jobs/{after.json()['id']}/spec", params={"resolved": 1})
            assert spec.json()["spec"]["data"]["source"]["dataset"] == "toy@2"

    asyncio.run(moved())


def test_two_that_wait_for_each_other_s_key_are_both_answered(postgres: Postgres) -> None:
    """Two server processes keep answers under the same two keys, each in another order: one is told to ask again."""
    url = postgres.create_database()
    migrate(url)
    both, sides = threading.Barrier(2), [Database(url, readers=1) for _ in range(2)]
    answer = idempotency.Answer(202, b"{}")

    def keep(number: int) -> str:
        def work(session: Session) -> str:
            keys = ["a", "b"][:: 1 if number else -1]
            for key in keys:
                idempotency.keep(session, [(idempotency.Claim("default", key, "f"), answer)])
                if key == keys[0]:
                    both.wait(30)
            return "kept"

        try:
            return sides[number].write_now(work)
        except Refusal as refusal:
            return refusal.code

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(keep, range(2))) == ["idempotency_in_progress", "kept"]
    for side in sides:
        side.close()
