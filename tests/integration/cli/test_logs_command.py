"""`stoker logs` and Ctrl-C over a real server, where an agent says what a test makes it say."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker.frames import MEDIA_TYPE, Frame
from tests.support.live import JOB, Agent, Live, claim, live, upload_toy
from tests.support.shell import Shell


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("server"), scale=1.0) as server:
        yield server


@pytest.fixture
def shell(server: Live, tmp_path: Path) -> Shell:
    with server.client("read", "submit") as http:
        upload_toy(http)
    (tmp_path / "job.json").write_text(json.dumps(JOB))
    return Shell(tmp_path, server.url, server.key("read", "submit"))


def say(agent: Agent, data: bytes, offset: int, rank: int = 0) -> None:
    frame = Frame(agent.seq + 1, "logs", {"rank": rank, "stream": "out", "offset": offset}, data)
    headers = {"Stoker-Epoch": str(agent.epoch), "Content-Type": MEDIA_TYPE}
    answer = agent.post("report", content=frame.encode(), headers=headers)
    assert answer.status_code == 200, answer.text
    agent.seq = answer.json()["acked_through"]


def test_lines_of_ranks_tails_searches_and_what_is_still_to_come(server: Live, shell: Shell) -> None:
    job = shell.out("submit", "job.json", "-q")
    with server.client("worker") as worker:
        agent = claim(server, worker)
        agent.started()
        say(agent, b"zero\n50%\r100%\nsplit ", 0)
        say(agent, b"one\n", 0, rank=1)
        assert shell.out("logs", job).splitlines() == ["[0] zero", "[0] 100%", "[1] one", "[0] split"]
        assert shell.out("logs", "--rank", "1") == "one"
        assert shell.out("logs", job, "--grep", "zer", "--rank", "0") == "zero"
        assert shell.out("logs", job, "-n", "1", "--rank", "0") == "split"
        command = [sys.executable, "-u", "-m", "stoker.cli", "logs", job, "--follow", "--rank", "0"]
        pipe, env = subprocess.PIPE, shell.environment()
        with subprocess.Popen(command, cwd=shell.folder, env=env, stdout=pipe, text=True) as following:
            assert following.stdout is not None
            first = following.stdout.readline()
            code, said = shell.interrupted("watch", job, "--progress", "plain", after="running")
            assert (code, f"stoker watch {job}" in said) == (130, True)
            say(agent, b"line\nlast", 20)
            agent.finish()
            lines = [first, *following.stdout]
    assert following.returncode == 0
    assert "".join(lines) == "zero\n100%\nsplit line\nlast\n"
    found = subprocess.run(
        [*command, "--tail", "2"], cwd=shell.folder, env=shell.environment(), capture_output=True, text=True, timeout=60
    )
    assert found.stdout.splitlines() == ["split line", "last"]


def test_a_job_that_has_written_nothing_says_so_to_a_person_alone(shell: Shell) -> None:
    job = shell.out("submit", "job.json", "-q")
    assert shell.out("logs", job) == ""
    assert shell.terminal("logs", job) == (0, f"{job} wrote nothing\n")
    shell.out("cancel", job)
