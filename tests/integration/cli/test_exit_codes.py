"""Refusals of a real server that a whole installation would take long to provoke: a wait without end, a full queue."""

import json
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support.live import JOB, Live, live, upload_toy
from tests.support.shell import Shell


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Keeps one waiting job per project, and has no worker."""
    with live(tmp_path_factory.mktemp("server"), max_queued_jobs=1) as server:
        yield server


@pytest.fixture
def shell(server: Live, tmp_path: Path) -> Shell:
    with server.client("read", "submit") as http:
        upload_toy(http)
    (tmp_path / "job.json").write_text(json.dumps(JOB))
    return Shell(tmp_path, server.url, server.key("read", "submit"))


def test_a_wait_that_ends_early_is_6_and_its_reports_say_that_the_job_goes_on(shell: Shell) -> None:
    done = shell.done(
        "submit", "job.json", "--timeout", "0.1", "--junit", "j.xml", "--summary", "s.md", "--require", "test/loss<1"
    )
    assert (done.returncode, done.stdout) == (6, ""), done.stderr
    job = shell.out("ls", "-q", "-s", "queued")
    cases = ElementTree.parse(shell.folder / "j.xml").getroot().findall(".//testcase")
    assert [(case.get("name"), [part.tag for part in case]) for case in cases] == [
        ("submit", []),
        ("train", ["error"]),
        ("test/loss<1", ["skipped"]),
    ]
    assert (shell.folder / "s.md").read_text().startswith(f"# ❌ Stoker: {job} was not waited for to its end")
    shell.out("cancel", job)


def test_a_full_queue_is_8_and_its_reports_say_that_nothing_was_submitted(shell: Shell) -> None:
    waiting = shell.out("submit", "job.json", "-q")
    told = shell.refused("submit", "job.json", "--junit", "j.xml", "--summary", "s.md", code=8)
    assert told.startswith("error[queue_full]: ")
    assert [case.get("name") for case in ElementTree.parse(shell.folder / "j.xml").iter("testcase")] == ["submit"]
    assert (shell.folder / "s.md").read_text().startswith("# ❌ Stoker: not submitted")
    shell.out("cancel", waiting)


def test_a_report_that_cannot_be_written_is_said_before_anything_runs(shell: Shell) -> None:
    (shell.folder / "file").touch()
    assert "file" in shell.refused("submit", "job.json", "--junit", "file/j.xml", code=2)
    assert "no job" in shell.refused("submit", "job.json", "--summary", "s.md", "--baseline", "none", code=10)
    assert shell.out("ls", "-q", "-s", "queued") == ""
