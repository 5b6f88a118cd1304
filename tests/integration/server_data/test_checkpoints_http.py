"""Checkpoints from report to download: committed whole, kept by policy, resumed from, let go; and artifacts beside them."""

import hashlib
import io
import tarfile
from typing import Any

import httpx
import pytest
from sqlmodel import Session

from server.attempts.tables import Attempt
from server.blobs.service import housekeep
from server.checkpoints.service import mark_corrupt, resumable
from server.jobs.tables import Job
from tests.integration.server_data.conftest import Reporter, Served
from tests.integration.server_data.test_blobs_http import age


@pytest.fixture
def reporter(server: Served) -> Reporter:
    return server.start_attempt(server.start_job(checkpoint={"keep_last": 2, "keep_best": 1}))


def listed(user: httpx.Client, job_id: str) -> dict[int, dict[str, Any]]:
    page = user.get(f"/v1/jobs/{job_id}/checkpoints").json()
    return {c["step"]: c for c in page["data"]}


def states(user: httpx.Client, job_id: str) -> dict[int, str]:
    return {step: c["state"] for step, c in sorted(listed(user, job_id).items())}


def steps_to_resume(server: Served, job_id: str) -> list[int]:
    def read(session: Session) -> list[int]:
        job = session.get(Job, job_id)
        assert job is not None
        return [step for step, _ in resumable(session, job)]

    return server.db.read_now(read)


def test_a_checkpoint_is_listed_described_and_downloaded(reporter: Reporter, user: httpx.Client) -> None:
    files = reporter.checkpoint(100, {"validation/loss": 0.5, "train/loss": "NaN"})
    url = f"/v1/jobs/{reporter.job_id}/checkpoints"
    for which in ("100", "best", "last"):
        one = user.get(f"{url}/{which}").json()
        assert (one["step"], one["state"], one["tags"]) == (100, "available", ["best", "last"])
        assert one["files"] == files
        assert one["metrics"] == {"validation/loss": 0.5, "train/loss": "NaN"}
    weights = f"{url}/best/files/model/weights.safetensors"
    whole = user.get(weights)
    assert hashlib.sha256(whole.content).hexdigest() == files[1]["sha256"]
    assert whole.headers["etag"] == f'"{files[1]["sha256"]}"'
    part = user.get(weights, headers={"Range": "bytes=-7", "If-Range": whole.headers["etag"]})
    assert (part.status_code, part.content) == (206, whole.content[-7:])
    assert user.get(f"{url}/best/files/nothing").status_code == 404
    assert user.get(f"{url}/final").status_code == 404
    assert user.get(f"{url}/77").status_code == 404
    assert user.get(f"{url}/newest").status_code == 422
    events = user.get(f"/v1/jobs/{reporter.job_id}/events").json()["data"]
    assert [e["data"]["step"] for e in events if e["type"] == "checkpoint"] == [100]


def test_the_tar_is_every_file_and_always_the_same(reporter: Reporter, user: httpx.Client) -> None:
    reporter.checkpoint(7)
    url = f"/v1/jobs/{reporter.job_id}/checkpoints/7.tar"
    first, second = user.get(url), user.get(url)
    assert first.content == second.content
    assert len(first.content) == int(first.headers["content-length"]) == int(user.head(url).headers["content-length"])
    with tarfile.open(fileobj=io.BytesIO(first.content)) as archive:
        assert archive.getnames() == ["step-00000007/manifest.json", "step-00000007/model/weights.safetensors"]
        member = archive.extractfile("step-00000007/model/weights.safetensors")
        assert member is not None
        assert member.read() == user.get(f"/v1/jobs/{reporter.job_id}/checkpoints/7/files/model/weights.safetensors").content


@pytest.mark.proves("CKPT-03")
def test_the_policy_keeps_the_newest_and_the_best_and_leaves_tombstones(
    server: Served, reporter: Reporter, user: httpx.Client
) -> None:
    for step, loss in ((10, 0.9), (20, 0.1), (30, 0.5), (40, 0.4), (50, 0.3)):
        reporter.checkpoint(step, {"validation/loss": loss})
    assert states(user, reporter.job_id) == {10: "expired", 20: "available", 30: "expired", 40: "available", 50: "available"}
    tags = {step: c["tags"] for step, c in listed(user, reporter.job_id).items()}
    assert tags == {10: [], 20: ["best"], 30: [], 40: [], 50: ["last"]}
    gone = user.get(f"/v1/jobs/{reporter.job_id}/checkpoints/10/files/manifest.json")
    assert (gone.status_code, gone.json()["code"]) == (404, "checkpoint_expired")
    files = user.get(f"/v1/jobs/{reporter.job_id}/checkpoints/10").json()["files"]
    kept = user.get(f"/v1/jobs/{reporter.job_id}/checkpoints/20").json()["files"]
    for file in files + kept:
        age(server, file["sha256"])
    housekeep(server.db, server.runtime.blobs)
    store = server.runtime.blobs.backend
    assert [store.size(f["sha256"]) is None for f in files + kept] == [True, True, False, False]


def test_files_shared_with_a_kept_checkpoint_stay(server: Served, reporter: Reporter, user: httpx.Client) -> None:
    shared = {"path": "tokenizer.json", **reporter.upload(f"the same in all of {reporter.job_id}".encode())}
    for step in (1, 2, 3, 4):
        own = {"path": "weights", **reporter.upload(f"{reporter.job_id} {step}".encode())}
        reporter.report("checkpoint", step=step, metrics={}, final=False, files=[shared, own])
    age(server, shared["sha256"])
    housekeep(server.db, server.runtime.blobs)
    assert user.get(f"/v1/jobs/{reporter.job_id}/checkpoints/last/files/tokenizer.json").status_code == 200


def test_the_final_one_is_kept(reporter: Reporter, user: httpx.Client) -> None:
    reporter.checkpoint(10, final=True)
    for step in (20, 30, 40):
        reporter.checkpoint(step)
    assert states(user, reporter.job_id)[10] == "available"
    assert user.get(f"/v1/jobs/{reporter.job_id}/checkpoints/final").json()["step"] == 10


def test_a_checkpoint_without_its_bytes_changes_nothing(
    server: Served, reporter: Reporter, user: httpx.Client, salt: bytes
) -> None:
    reporter.checkpoint(1)
    reporter.checkpoint(2)
    before = states(user, reporter.job_id)
    missing = [{"path": "weights", "bytes": len(salt), "sha256": hashlib.sha256(salt).hexdigest()}]
    frame = reporter.frame("checkpoint", step=3, metrics={}, final=False, files=missing)
    answer = reporter.send(frame)
    assert answer.status_code == 409, answer.text
    assert states(user, reporter.job_id) == before
    reporter.upload(salt)
    assert reporter.send(frame).status_code == 200  # the same frame, once its bytes are there
    assert states(user, reporter.job_id)[3] == "available"


@pytest.mark.parametrize(
    "change",
    [
        {"step": -1},
        {"step": "1"},
        {"files": []},
        {"files": [{"path": "../x", "bytes": 1, "sha256": "0" * 64}]},
        {"files": [{"path": "/x", "bytes": 1, "sha256": "0" * 64}]},
        {"files": [{"path": "x", "bytes": 1, "sha256": "0"}]},
        {"files": [{"path": "x", "bytes": 1, "sha256": "0" * 64}] * 2},
        {"metrics": {"a": "big"}},
        {"metrics": [1]},
        {"final": "yes"},
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(reporter: Reporter, user: httpx.Client, change: dict[str, Any]) -> None:
    header = {"step": 1, "metrics": {}, "final": False, "files": [{"path": "x", "bytes": 1, "sha256": "0" * 64}]} | change
    answer = reporter.send(reporter.frame("checkpoint", **header))
    assert (answer.status_code, answer.json()["code"]) == (422, "frame_invalid")
    assert states(user, reporter.job_id) == {}


def test_a_job_continues_from_the_newest_of_its_accepted_lineage(server: Served, user: httpx.Client) -> None:
    job_id = server.start_job(checkpoint={"keep_last": 5})
    first = server.start_attempt(job_id)
    for step in (10, 20, 30):
        first.checkpoint(step)
    assert steps_to_resume(server, job_id) == [30, 20, 10]

    def damage(session: Session) -> None:
        job = session.get(Job, job_id)
        assert job is not None
        mark_corrupt(session, job, [30, 99])

    server.db.write_now(damage)
    assert steps_to_resume(server, job_id) == [20, 10]
    refused = user.get(f"/v1/jobs/{job_id}/checkpoints/30/files/manifest.json")
    assert (refused.status_code, refused.json()["code"]) == (409, "checkpoint_corrupt")
    second = server.start_attempt(job_id, resumed_from=10)  # 20 was superseded by what this one trains again
    assert steps_to_resume(server, job_id) == [10]
    second.checkpoint(30)
    assert steps_to_resume(server, job_id) == [30, 10]
    assert user.get(f"/v1/jobs/{job_id}/checkpoints/30").json()["epoch"] == second.epoch
    assert states(user, job_id)[20] == "expired"

    def from_start(session: Session) -> None:
        job = session.get(Job, job_id)
        assert job is not None
        job.start_epoch = job.epoch

    server.db.write_now(from_start)
    assert steps_to_resume(server, job_id) == []


def test_what_a_live_attempt_continues_from_stays(server: Served, user: httpx.Client) -> None:
    job_id = server.start_job(checkpoint={"keep_last": 2, "keep_best": 0})
    server.start_attempt(job_id).checkpoint(10)
    second = server.start_attempt(job_id, resumed_from=10)
    for step in (20, 30, 40):
        second.checkpoint(step)
    assert states(user, job_id) == {10: "available", 20: "expired", 30: "available", 40: "available"}

    def end(session: Session) -> None:
        attempt = session.get(Attempt, second.attempt_id)
        assert attempt is not None
        attempt.state = "ended"

    server.db.write_now(end)
    third = server.start_attempt(job_id, resumed_from=40)
    third.checkpoint(50)
    assert states(user, job_id)[10] == "expired"


def test_an_older_epoch_commits_nothing(server: Served, user: httpx.Client) -> None:
    job_id = server.start_job()
    zombie = server.start_attempt(job_id)
    files = zombie.checkpoint(10)
    server.start_attempt(job_id, resumed_from=10)
    answer = zombie.send(zombie.frame("checkpoint", step=20, metrics={}, final=False, files=files))
    assert (answer.status_code, answer.json()["code"]) == (409, "stale_attempt")
    assert states(user, job_id) == {10: "available"}


def test_pages_and_strangers(reporter: Reporter, user: httpx.Client, stranger: httpx.Client) -> None:
    for step in (1, 2, 3):
        reporter.checkpoint(step)
    url = f"/v1/jobs/{reporter.job_id}/checkpoints"
    page = user.get(url, params={"limit": 2}).json()
    assert ([c["step"] for c in page["data"]], page["has_more"]) == ([3, 2], True)
    rest = user.get(url, params={"after": page["next"]}).json()
    assert ([c["step"] for c in rest["data"]], rest["has_more"]) == ([1], False)
    for path in ("", "/last", "/3/files/manifest.json", "/3.tar"):
        assert stranger.get(url + path).status_code == 404
        assert user.get(url + path).status_code == 200


def test_artifacts_are_attachments_that_no_browser_runs(reporter: Reporter, user: httpx.Client, stranger: httpx.Client) -> None:
    page = b"<script>alert(1)</script>" + reporter.job_id.encode()
    reporter.report("artifact", name="report/index.html", **reporter.upload(page))
    reporter.report("artifact", name="a.json", **reporter.upload(b"{}"))
    url = f"/v1/jobs/{reporter.job_id}/artifacts"
    assert [a["name"] for a in user.get(url).json()["data"]] == ["a.json", "report/index.html"]
    got = user.get(f"{url}/report/index.html")
    assert got.content == page
    assert got.headers["content-disposition"] == 'attachment; filename="index.html"'
    assert got.headers["content-type"] == "application/octet-stream"
    assert "sandbox" in got.headers["content-security-policy"]
    assert user.get(f"{url}/nothing").status_code == 404
    assert stranger.get(f"{url}/a.json").status_code == 404
    newer = reporter.upload(page + b"2")
    reporter.report("artifact", name="report/index.html", **newer)
    assert user.get(f"{url}/report/index.html").content == page + b"2"
    for name in ("../x", "/x", "", "a//b", "x" * 400):
        assert reporter.send(reporter.frame("artifact", name=name, **newer)).json()["code"] == "frame_invalid"
        reporter.seq -= 1
