"""A broker that refuses, or swallows everything, delays no request and loses no job."""

import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.live import JOB, Live, assigned, beat, live, upload_toy


@pytest.fixture(params=["refuses", "swallows"])
def served_without_broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Live]:
    with closing(socket.socket()) as hole:
        hole.bind(("127.0.0.1", 0))
        if request.param == "swallows":
            hole.listen(100)
        url = f"redis://127.0.0.1:{hole.getsockname()[1]}/0"
        with live(tmp_path, redis_url=url) as server:
            yield server


def test_submits_answer_and_jobs_start(served_without_broker: Live) -> None:
    server = served_without_broker
    with server.client("submit") as user, server.client("worker") as worker:
        upload_toy(user)
        beat(worker, cpus=50)
        began = time.perf_counter()
        for _ in range(20):
            assert user.post("/v1/jobs", json=JOB).status_code == 202
        # Had each waited for the broker, whose sockets time out after 2 s, it would be 40 s.
        assert time.perf_counter() - began < 38
        assert assigned(worker, cpus=50)["epoch"] == 1
        assert user.get("/readyz").json()["status"] == "ready"
