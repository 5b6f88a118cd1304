"""One live server per database for the tests that only look at the front door."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.live import Live, beat, live, upload_toy
from tests.support.postgres import Postgres


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    home: Path = tmp_path_factory.mktemp("live")
    url = ""
    if request.param == "postgresql":
        postgres: Postgres = request.getfixturevalue("postgres")
        url = postgres.create_database()
    with live(home, url) as server:
        with server.client("submit") as http:
            upload_toy(http)
        yield server


@pytest.fixture
def user(served: Live) -> Iterator[httpx.Client]:
    with served.client("read", "submit", "admin") as http:
        yield http


@pytest.fixture
def worker(served: Live, user: httpx.Client) -> Iterator[httpx.Client]:
    """The worker named node, ready for work. When the test is over it has nothing left and is given nothing more."""
    with served.client("worker") as http:
        beat(http)
        user.post("/v1/workers/node/resume").raise_for_status()
        yield http
        user.post("/v1/workers/node/drain").raise_for_status()
        for job in user.get("/v1/jobs", params={"limit": 500}).json()["data"]:
            user.post(f"/v1/jobs/{job['id']}/cancel")
        beat(http, boot=uuid.uuid4().hex)
