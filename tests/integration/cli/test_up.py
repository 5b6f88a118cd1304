"""`stoker up` with a stand-in server and worker: what it starts, what it starts again, what it leaves behind."""

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.stack import ROOT, alive, until

SERVER = """
import json, os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
if sys.argv[1:2] == ["create-key"]:
    print("stk_" + "a" * 40)
    sys.exit(0)
class Handler(BaseHTTPRequestHandler):
    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def do_GET(self):
        self.answer(200, {"data": [{"name": "local", "state": "active"}]})
    def do_POST(self):
        self.answer(201, {"key": "stk_" + "b" * 40})
ThreadingHTTPServer((os.environ["STOKER_HOST"], int(os.environ["STOKER_PORT"])), Handler).serve_forever()
"""


def stoker(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("STOKER_")}
    env = clean | {"HOME": str(home), "PYTHONPATH": str(home)}
    command = [sys.executable, "-P", "-m", "stoker.cli", "up", *arguments]
    return subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, timeout=120)


def status(home: Path) -> dict[str, Any]:
    return dict(json.loads(stoker(home, "--status", "--json").stdout))


def pids(home: Path) -> dict[str, int]:
    record = json.loads((home / ".stoker/stack.json").read_text())
    return {name: child["pid"] for name, child in record["children"].items()}


@pytest.fixture
def home(tmp_path: Path) -> Any:
    for name, text in (("server", SERVER), ("worker", "import signal; signal.pause()")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
        (tmp_path / name / "__main__.py").write_text(text)
    (tmp_path / "stoker").symlink_to(ROOT / "stoker")  # a checkout whose server and worker are the stand-ins
    yield tmp_path
    stoker(tmp_path, "--stop")


def test_a_stack_comes_up_survives_the_death_of_each_child_and_stops(home: Path) -> None:
    assert stoker(home, "--detach").returncode == 0
    first = status(home)
    assert (first["running"], first["state"]) == (True, "ready")
    for path in ("config.toml", "worker.key", "stack.json", "broker/valkey.conf"):
        assert stat.S_IMODE((home / ".stoker" / path).stat().st_mode) == 0o600
    for name in ("broker", "server", "worker"):
        before = pids(home)[name]
        os.kill(before, signal.SIGKILL)
        until(lambda n=name, b=before: pids(home)[n] != b and alive(pids(home)[n]), timeout=30, what=f"{name} again")
    after = status(home)
    assert (after["port"], after["broker_port"]) == (first["port"], first["broker_port"])
    assert [after["children"][n]["restarts"] for n in ("broker", "server", "worker")] == [1, 1, 1]
    assert stoker(home, "--detach").returncode == 0, "what was asked for is there"
    assert status(home)["pid"] == after["pid"]
    assert stoker(home).returncode == 2, "a second one is refused"
    last = pids(home)
    assert stoker(home, "--stop").returncode == 0
    assert not any(map(alive, last.values()))
    assert stoker(home, "--status").returncode == 7


def test_what_a_killed_supervisor_left_is_cleared_and_the_port_is_kept(home: Path) -> None:
    assert stoker(home, "--detach").returncode == 0
    first, left = status(home), pids(home)
    os.kill(first["pid"], signal.SIGKILL)
    until(lambda: not alive(first["pid"]), timeout=10, what="supervisor gone")
    assert stoker(home, "--detach").returncode == 0
    assert not any(map(alive, left.values()))
    assert status(home)["port"] == first["port"]


def test_a_server_that_does_not_start_is_shown(home: Path) -> None:
    (home / "server/__main__.py").write_text("import sys; print('no disk left', file=sys.stderr); sys.exit(3)")
    done = stoker(home, "--detach")
    assert done.returncode == 1
    assert "no disk left" in done.stderr
    assert not status(home)["running"]
