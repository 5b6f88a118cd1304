"""The clients over real connections that break: each event once, each byte verified, nothing sent twice."""

import asyncio
import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from stoker import AsyncClient, Client
from stoker.client import _stream
from stoker.errors import DownloadError, Invalid, ServerUnreachable
from tests.support.scripted import event, job, problem, ranged, serve, sse

EVENTS = [event(n) for n in range(1, 8)] + [event(8, "end", state="succeeded")]


def one_event_a_connection(request: Request) -> Response:
    """Each connection brings one event and breaks in the middle of the next."""
    if request.url.path != "/v1/jobs/job_1/events":
        return JSONResponse(job("succeeded", last_event=8))
    after = int(request.headers["last-event-id"])
    return sse(EVENTS[after : after + 1], cut=after + 1 < len(EVENTS))


def test_a_stream_cut_at_every_event_gives_each_once_and_ends() -> None:
    with serve(one_event_a_connection) as server, Client(server.url, "k") as client:
        assert [e.seq for e in client.watch("job_1")] == list(range(1, 9))
        assert sum(r.url.path.endswith("/events") for r in server.seen) == 8


def test_the_asyncio_client_does_the_same() -> None:
    async def seen(url: str) -> list[int]:
        async with AsyncClient(url, "k") as client:
            return [e.seq async for e in client.watch("job_1", after=5)]

    with serve(one_event_a_connection) as server:
        assert asyncio.run(seen(server.url)) == [6, 7, 8]


def test_an_end_in_the_middle_of_a_retried_jobs_log_does_not_end_it() -> None:
    log = [event(1), event(2, "end", state="failed"), event(3, "state", to="queued"), event(4, "end", state="succeeded")]

    def answer(request: Request) -> Response:
        if not request.url.path.endswith("/events"):
            return JSONResponse(job("succeeded", last_event=4))
        return sse(log[int(request.headers["last-event-id"]) :], cut=False)

    with serve(answer) as server, Client(server.url, "k") as client:
        assert [e.seq for e in client.watch("job_1")] == [1, 2, 3, 4]


def test_a_stream_that_closes_without_an_end_is_not_an_end() -> None:
    rounds = itertools.count()

    def answer(request: Request) -> Response:
        if not request.url.path.endswith("/events"):
            return JSONResponse(job("failed", last_event=1))
        return sse([], cut=False) if next(rounds) < 2 else sse([event(1, "end", state="failed")], cut=False)

    with serve(answer) as server, Client(server.url, "k") as client:
        assert [e.type for e in client.watch("job_1")] == ["end"]
    assert _stream.READ_TIMEOUT > 15


FILES = {"model.safetensors": bytes(range(256)) * 4000, "spec.json": b"{}", "empty": b""}


def manifest(files: dict[str, bytes]) -> dict[str, Any]:
    listed = [{"path": p, "bytes": len(d), "sha256": hashlib.sha256(d).hexdigest()} for p, d in files.items()]
    return {"step": 7, "epoch": 1, "state": "available", "bytes": 1, "metrics": {}, "tags": ["best"],
            "created_at": "2026-01-01T00:00:00Z", "files": listed}  # fmt: skip


def test_a_download_cut_again_and_again_goes_on_where_it_was(tmp_path: Path) -> None:
    def answer(request: Request) -> Response:
        name = request.url.path.partition("/files/")[2]
        if not name:
            return JSONResponse(manifest(FILES))
        return ranged(request, FILES[name], stop=300_000)

    told: list[tuple[int, int]] = []
    with serve(answer) as server, Client(server.url, "k") as client:
        place = client.download("job_1", "best", tmp_path / "out", progress=lambda done, total: told.append((done, total)))
        asked = [r.headers.get("range") for r in server.seen if r.url.path.endswith("model.safetensors")]
        before = len(server.seen)
        assert client.download("job_1", "best", tmp_path / "out") == place
        assert len(server.seen) == before + 1, "what is whole is not fetched again"
    assert {p.name: p.read_bytes() for p in place.iterdir()} == FILES
    assert asked == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]
    assert told[-1][0] == told[-1][1] == sum(map(len, FILES.values()))
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_bytes_that_stay_wrong_are_refused_and_never_shown(tmp_path: Path) -> None:
    def answer(request: Request) -> Response:
        name = request.url.path.partition("/files/")[2]
        return ranged(request, b"x" * len(FILES[name])) if name else JSONResponse(manifest(FILES))

    with serve(answer) as server, Client(server.url, "k") as client, pytest.raises(DownloadError, match="digest"):
        client.download("job_1", "best", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bytes_that_were_damaged_once_are_fetched_again(tmp_path: Path) -> None:
    rounds = itertools.count()

    def answer(request: Request) -> Response:
        if "/files/" not in request.url.path:
            return JSONResponse(manifest({"a": b"good"}))
        return Response(b"evil" if next(rounds) == 0 else b"good")

    with serve(answer) as server, Client(server.url, "k") as client:
        assert (client.download("job_1", "best", tmp_path / "out") / "a").read_bytes() == b"good"


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("precious")
    with (
        serve(lambda _: JSONResponse(manifest(FILES))) as server,
        Client(server.url, "k") as client,
        pytest.raises(DownloadError, match="something else"),
    ):
        client.download("job_1", "best", tmp_path / "out")
    assert (tmp_path / "out/mine").read_text() == "precious"


class Store:
    """Blobs that lose the connection after 200 kB of each upload, and a data set that wants them all."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.received = 0

    async def __call__(self, request: Request) -> Response:
        name = request.url.path.rpartition("/")[2]
        if request.url.path == "/v1/datasets":
            return await self._dataset(request)
        have = self.blobs.get(name, b"")
        whole = hashlib.sha256(have).hexdigest() == name
        if request.method == "HEAD":
            return Response(status_code=200) if whole else Response(status_code=404, headers={"Upload-Offset": str(len(have))})
        assert int(request.headers.get("upload-offset", "0")) == len(have)
        body = await request.body()
        self.received += len(body)
        if len(body) > 200_000:
            self.blobs[name] = have + body[:200_000]
            return problem(503, "overloaded")
        self.blobs[name] = have + body
        return Response(status_code=201)

    async def _dataset(self, request: Request) -> Response:
        asked = json.loads(await request.body())
        if any(hashlib.sha256(self.blobs.get(f["sha256"], b"?")).hexdigest() != f["sha256"] for f in asked["files"]):
            return problem(409, "blobs_missing")
        return JSONResponse(
            {"name": asked["name"], "version": 1, "digest": "d", "bytes": 1, "created_at": "2026-01-01T00:00:00Z"}
        )


def test_an_upload_that_breaks_off_sends_only_the_rest_and_the_same_bytes_once(tmp_path: Path) -> None:
    for name, data in {"a.bin": b"a" * 500_000, "b/same.bin": b"a" * 500_000, "c.txt": b"small"}.items():
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(data)
    store = Store()
    with serve(store) as server, Client(server.url, "k") as client:
        assert client.upload("data", tmp_path / "data").version == 1
        sent = store.received
        assert client.upload("data", tmp_path / "data").version == 1
        assert store.received == sent, "a second upload sends no bytes"
    assert sorted(map(len, store.blobs.values())) == [5, 500_000]
    assert sent == 500_000 + 300_000 + 100_000 + 5


def test_an_empty_path_uploads_nothing(tmp_path: Path) -> None:
    with serve(lambda _: Response(status_code=500)) as server, Client(server.url, "k") as client:
        with pytest.raises(Exception, match="no such file"):
            client.upload("x", tmp_path / "absent")
        assert not server.seen


def test_a_submit_is_repeated_under_one_key_until_it_is_answered() -> None:
    rounds = itertools.count()

    def answer(_: Request) -> Response:
        return JSONResponse(job("queued"), 202) if next(rounds) == 2 else problem(503, "overloaded")

    with serve(answer) as server, Client(server.url, "k") as client:
        assert client.submit({"a": 1}).id == "job_1"
        assert len({r.headers["idempotency-key"] for r in server.seen}) == 1
        assert len(server.seen) == 3


def test_a_refusal_is_an_error_with_every_pointer_and_is_not_repeated() -> None:
    errors = [{"pointer": f"/{n}", "code": "unknown-key", "message": "no"} for n in range(5)]
    with serve(lambda _: problem(422, "spec_invalid", errors=errors)) as server, Client(server.url, "k") as client:
        with pytest.raises(Invalid) as caught:
            client.submit({})
        assert [e.pointer for e in caught.value.problem.errors] == [f"/{n}" for n in range(5)]
        assert len(server.seen) == 1


def test_no_server_is_said_so() -> None:
    with Client("http://127.0.0.1:9", "k", retries=0) as client, pytest.raises(ServerUnreachable, match=r"127\.0\.0\.1:9"):
        client.job("job_1")


def test_waiting_goes_on_over_a_restart_and_ends_with_the_state() -> None:
    rounds = itertools.count()

    def answer(_: Request) -> Response:
        match next(rounds):
            case 0:
                return JSONResponse(job("running"))
            case 1:
                return problem(503, "starting")
            case _:
                return JSONResponse(job("failed"))

    with serve(answer) as server, Client(server.url, "k", retries=0) as client:
        assert client.wait("job_1").state == "failed"
        assert {r.query_params["wait"] for r in server.seen} == {"terminal"}


def test_pages_are_followed_to_the_end() -> None:
    def answer(request: Request) -> Response:
        after = int(request.query_params.get("after", "0"))
        more = after < 2
        return JSONResponse({"data": [job(id=f"job_{after}")], "has_more": more, "next": str(after + 1) if more else None})

    async def listed(url: str) -> list[str]:
        async with AsyncClient(url, "k", "p") as client:
            return [j.id async for j in client.jobs(state=["running", "queued"])]

    with serve(answer) as server:
        assert asyncio.run(listed(server.url)) == ["job_0", "job_1", "job_2"]
        assert server.seen[0].query_params.getlist("state") == ["running", "queued"]
        assert server.seen[0].headers["stoker-project"] == server.seen[0].query_params["project"] == "p"
