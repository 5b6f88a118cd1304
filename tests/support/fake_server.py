"""A small real HTTP server that speaks `stoker.protocol`, with faults to order, for tests of agents and workers."""

import hashlib
import json
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from stoker.frames import Frame, decode
from stoker.protocol import Assignment, BlobFile, Claim, ClaimReply, DatasetFiles, Finish, Heartbeat, Resume, Timers

Fault = Literal["lose_answer", "cut_request", "unavailable", "garbage"]
"""lose_answer: the request is applied and the connection cut; cut_request: cut before anything is applied."""


@dataclass
class FakeAttempt:
    """An attempt as the server knows it."""

    id: str
    spec: dict[str, Any]
    timers: Timers
    epoch: int = 1
    devices: dict[str, Any] = field(default_factory=lambda: {"cpus": 1, "gpus": []})
    datasets: tuple[DatasetFiles, ...] = ()
    resume: tuple[Resume, ...] = ()
    agent_id: str | None = None
    frames: dict[int, Frame] = field(default_factory=dict)
    sent: Counter[int] = field(default_factory=Counter)
    desired: str = "run"
    stop_reason: str | None = None
    superseded: bool = False
    finish: Finish | None = None
    finishes: int = 0
    refused: int = 0
    """Requests that were answered with 409."""

    @property
    def token(self) -> str:
        return f"tok-{self.id}-{self.epoch}"

    @property
    def acked(self) -> int:
        number = 0
        while number + 1 in self.frames:
            number += 1
        return number

    def of(self, kind: str) -> list[Frame]:
        return [self.frames[seq] for seq in sorted(self.frames) if self.frames[seq].kind == kind]


class FakeServer:
    """Serves until closed; `changed` is notified after each request, so that tests wait for facts, not for time."""

    def __init__(self) -> None:
        self.attempts: dict[str, FakeAttempt] = {}
        self.blobs: dict[str, bytes] = {}
        self.partial: dict[str, bytes] = {}
        self.heartbeats: list[Heartbeat] = []
        self.assigned: list[Assignment] = []
        self.stale: list[Assignment] = []
        self.interval = 0.2
        self.faults: dict[str, list[Fault]] = {}
        """By route (claim, report, finish, blob_head, blob_put, blob_get, heartbeat): faults of the next requests."""
        self.down = False
        self.cut_upload_after: int | None = None
        """Cuts the next PUT after so many bytes, which are kept."""
        self.requests: Counter[str] = Counter()
        self.changed = threading.Condition()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def add_blob(self, data: bytes, path: str) -> BlobFile:
        sha = hashlib.sha256(data).hexdigest()
        self.blobs[sha] = data
        return BlobFile(path=path, bytes=len(data), sha256=sha)

    def wait_for(self, condition: Any, timeout: float = 30.0) -> None:
        """Until a condition holds. Raises TimeoutError with what was seen."""
        with self.changed:
            if not self.changed.wait_for(condition, timeout):
                state = {a.id: (a.acked, a.finish, [f.kind for f in a.frames.values()][-5:]) for a in self.attempts.values()}
                raise TimeoutError(f"{state} {dict(self.requests)}")

    @contextmanager
    def outage(self) -> Iterator[None]:
        self.down = True
        try:
            yield
        finally:
            self.down = False

    def take_fault(self, route: str) -> Fault | None:
        if self.down:
            return "cut_request"
        waiting = self.faults.get(route)
        return waiting.pop(0) if waiting else None


def _handler(fake: FakeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def log_message(self, *_: object) -> None: ...

        def _route(self) -> None:
            for pattern, route, method in _ROUTES:
                if self.command in method and (match := re.fullmatch(pattern, self.path)):
                    self._serve(route, *match.groups())
                    return
            self._problem(404, "not_found")

        do_GET = do_HEAD = do_PUT = do_POST = _route

        def _serve(self, route: str, *names: str) -> None:
            fault = fake.take_fault(route)
            with fake.changed:
                fake.requests[route] += 1
            if fault == "cut_request":
                self._cut()
                return
            if fault == "unavailable":
                self._read()
                self._problem(503, "unavailable")
                return
            if fault == "garbage":
                self._read()
                self._answer(200, b"<html>a proxy</html>")
                return
            self._losing = fault == "lose_answer"
            getattr(self, f"_{route}")(*names)
            with fake.changed:
                fake.changed.notify_all()

        def _read(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def _cut(self) -> None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

        def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            if getattr(self, "_losing", False):
                self._losing = False
                self._cut()
                return
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            if "Content_Length" not in headers:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def _problem(self, status: int, code: str, **headers: str) -> None:
            body = json.dumps({"type": code, "title": code, "status": status, "detail": "", "code": code}).encode()
            self._answer(status, body, **headers)

        def _of_token(self, attempt_id: str) -> FakeAttempt | None:
            attempt = fake.attempts.get(attempt_id)
            if attempt is None or self.headers.get("Authorization") != f"Bearer {attempt.token}":
                self._problem(401, "unauthorized")
                return None
            return attempt

        def _stale(self, attempt: FakeAttempt) -> None:
            attempt.refused += 1
            self._problem(409, "stale_attempt")

        def _heartbeat(self) -> None:
            beat = Heartbeat.model_validate_json(self._read())
            with fake.changed:
                fake.heartbeats.append(beat)
            body = {
                "worker_id": "w1",
                "state": "active",
                "interval_seconds": fake.interval,
                "assigned": [a.model_dump() for a in fake.assigned],
                "stale": [a.model_dump() for a in fake.stale],
            }
            self._answer(200, json.dumps(body).encode())

        def _claim(self, attempt_id: str) -> None:
            claim = Claim.model_validate_json(self._read())
            attempt = fake.attempts.get(attempt_id)
            if attempt is None:
                self._problem(404, "not_found")
                return
            with fake.changed:
                mine = attempt.agent_id in (None, claim.agent_id) and claim.epoch == attempt.epoch and not attempt.superseded
                if mine:
                    attempt.agent_id = claim.agent_id
                    fake.assigned[:] = [a for a in fake.assigned if a.attempt_id != attempt_id]
            if not mine:
                self._stale(attempt)
                return
            reply = ClaimReply(
                job_id="job",
                attempt_id=attempt.id,
                epoch=attempt.epoch,
                number=1,
                token=attempt.token,
                spec=attempt.spec,
                devices=attempt.devices,
                datasets=attempt.datasets,
                resume=attempt.resume,
                desired=attempt.desired,
                timers=attempt.timers,
            )
            self._answer(200, reply.model_dump_json().encode())

        def _report(self, attempt_id: str) -> None:
            body = self._read()
            attempt = self._of_token(attempt_id)
            if attempt is None:
                return
            if attempt.superseded or attempt.finish or self.headers["Stoker-Epoch"] != str(attempt.epoch):
                self._stale(attempt)
                return
            with fake.changed:
                for frame in decode(body):
                    attempt.sent[frame.seq] += 1
                    before = attempt.frames.setdefault(frame.seq, frame)
                    assert before.encode() == frame.encode(), f"frame {frame.seq} changed after it was numbered"
            reply = {"acked_through": attempt.acked, "desired": attempt.desired, "stop_reason": attempt.stop_reason}
            self._answer(200, json.dumps(reply).encode())

        def _finish(self, attempt_id: str) -> None:
            finish = Finish.model_validate_json(self._read())
            attempt = self._of_token(attempt_id)
            if attempt is None:
                return
            if attempt.superseded or (attempt.finish and attempt.finish.reason != finish.reason):
                self._stale(attempt)
                return
            if finish.last_seq > attempt.acked:
                self._problem(409, "frames_missing")
                return
            with fake.changed:
                attempt.finish = attempt.finish or finish
                attempt.finishes += 1
            self._answer(200, b'{"state": "succeeded"}')

        def _blob_head(self, sha: str) -> None:
            if sha in fake.blobs:
                self._answer(200, Content_Length=str(len(fake.blobs[sha])))
            else:
                self._problem(404, "not_found", Upload_Offset=str(len(fake.partial.get(sha, b""))))

        def _blob_put(self, sha: str) -> None:
            have = fake.partial.get(sha, b"")
            if int(self.headers.get("Upload-Offset", "0")) != len(have):
                self._read()
                self._problem(409, "upload_offset", Upload_Offset=str(len(have)))
                return
            if fake.cut_upload_after is not None:
                have += self.rfile.read(min(fake.cut_upload_after, int(self.headers["Content-Length"])))
                fake.partial[sha], fake.cut_upload_after = have, None
                self._cut()
                return
            have += self._read()
            fake.partial.pop(sha, None)
            if hashlib.sha256(have).hexdigest() != sha:
                self._problem(422, "digest_mismatch")
                return
            with fake.changed:
                fake.blobs[sha] = have
            self._answer(201)

        def _blob_get(self, sha: str) -> None:
            data = fake.blobs.get(sha)
            if data is None:
                self._problem(404, "not_found")
                return
            start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
            self._answer(206 if start else 200, data[start:])

    return Handler


_ROUTES = (
    (r"/v1/workers/heartbeat", "heartbeat", ("POST",)),
    (r"/v1/attempts/([^/]+)/claim", "claim", ("POST",)),
    (r"/v1/attempts/([^/]+)/report", "report", ("POST",)),
    (r"/v1/attempts/([^/]+)/finish", "finish", ("POST",)),
    (r"/v1/blobs/([0-9a-f]{64})", "blob_head", ("HEAD",)),
    (r"/v1/blobs/([0-9a-f]{64})", "blob_put", ("PUT",)),
    (r"/v1/blobs/([0-9a-f]{64})", "blob_get", ("GET",)),
)


def until(condition: Any, timeout: float = 30.0) -> None:
    """Waits for something outside the server, a process or a file. Raises TimeoutError."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(str(condition))
        time.sleep(0.01)
