"""Rules without IO: when to ask again, how long to wait, what columns and manifests are."""

import hashlib
import math
from pathlib import Path

import pytest

from stoker.client import _calls, columns
from stoker.client._hashing import inside, manifest
from stoker.client._retry import Retries
from stoker.client._waiting import PATIENCE, Wait
from stoker.client._wire import Answer, Call, error_of
from stoker.errors import (
    AuthError,
    ConfigError,
    Conflict,
    DownloadError,
    Invalid,
    NotFound,
    QuotaExceeded,
    ServerFault,
    ServerUnreachable,
    WaitTimeout,
    problem,
)
from stoker.views import JobView, MetricsView, SeriesView
from tests.support.scripted import job

GET = Call("GET", "/x", Answer.json)
POST = Call("POST", "/x", Answer.json, repeatable=False)


def refusal(status: int, code: str, **headers: str) -> Answer:
    return Answer(status, headers, problem(status, code, "why").model_dump_json().encode())


@pytest.mark.parametrize(
    ("answer", "again"),
    [
        (Answer(200, {}, b"{}"), False),
        (refusal(503, "overloaded"), True),
        (refusal(429, "rate_limited"), True),
        (refusal(409, "idempotency_in_progress"), True),
        (refusal(409, "illegal_transition"), False),
        (refusal(422, "spec_invalid"), False),
        (refusal(429, "queue_full"), False),
        (refusal(500, "internal"), False),
        (refusal(503, "overloaded", **{"retry-after": "3600"}), False),
        (Answer(502, {}, b"<html>bad gateway</html>"), True),
    ],
)
def test_what_is_asked_again(answer: Answer, again: bool) -> None:
    assert (Retries().after_answer(GET, answer, 1) is not None) == again
    assert Retries().after_answer(POST, answer, 1) is None
    assert Retries(count=2).after_answer(GET, answer, 3) is None


def test_pauses_grow_have_jitter_and_obey_retry_after() -> None:
    low, high = Retries(draw=lambda: 0.0), Retries(draw=lambda: 1.0)
    assert [high.pause(n) for n in range(1, 8)] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 8.0]
    assert low.pause(3) == 0.4
    assert high.after_answer(GET, refusal(503, "overloaded", **{"retry-after": "5"}), 1) == 5.0
    assert high.after_silence(POST, 1) is None


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        (refusal(401, "unauthenticated"), AuthError, 4),
        (refusal(404, "not_found"), NotFound, 10),
        (refusal(409, "stale"), Conflict, 2),
        (refusal(422, "spec_invalid"), Invalid, 2),
        (refusal(403, "quota_exceeded"), QuotaExceeded, 8),
        (Answer(500, {}, b"oops"), ServerFault, 7),
        (Answer(404, {}, b""), NotFound, 10),
        (Answer(404, {}, b"<!DOCTYPE html><h1>another server</h1>"), ServerFault, 7),
        (Answer(403, {}, b"<html>a proxy</html>"), AuthError, 4),
    ],
)
def test_every_refusal_has_its_class_and_exit_code(answer: Answer, kind: type[Exception], code: int) -> None:
    error = error_of(answer)
    assert type(error) is kind
    assert error.exit_code == code


def test_a_post_carries_a_key_of_its_own_unless_it_makes_a_secret() -> None:
    first, second = _calls.submit({"a": 1}), _calls.submit({"a": 1})
    assert first.headers["Idempotency-Key"] != second.headers["Idempotency-Key"]
    assert _calls.submit({}, "mine").headers["Idempotency-Key"] == "mine"
    made = _calls.create_key("ci", ["read"], None, None)
    assert "Idempotency-Key" not in made.headers
    assert not made.repeatable


def test_a_wait_rides_out_silence_but_not_for_ever_and_not_refusals() -> None:
    now = [0.0]
    wait = Wait("job_1", None, clock=lambda: now[0])
    assert wait.failed(ServerUnreachable("gone")) > 0
    now[0] = PATIENCE + 1
    with pytest.raises(ServerUnreachable):
        wait.failed(ServerUnreachable("gone"))
    with pytest.raises(NotFound):
        Wait("job_1", None).failed(NotFound(problem(404, "not_found", "no")))


def test_a_wait_asks_for_what_is_left_and_then_gives_up() -> None:
    now = [0.0]
    wait = Wait("job_1", 90, clock=lambda: now[0])
    assert ("timeout", "60.0") in wait.call().params
    now[0] = 80.0
    wait.heard(JobView.model_validate(job("running")))
    assert ("timeout", "10.0") in wait.call().params
    now[0] = 90.0
    with pytest.raises(WaitTimeout, match="still running"):
        wait.call()
    wait.heard(JobView.model_validate(job("succeeded")))
    assert wait.done


def test_columns_line_up_by_step() -> None:
    def series(steps: list[int], last: list[float | str | None]) -> SeriesView:
        return SeriesView(steps=steps, min=last, mean=last, max=last, last=last, count=[1] * len(steps))

    view = MetricsView(bucket=1, cursor="c", keys={"train/loss": series([1, 2, 3], [3.0, "NaN", 1.0]), "v": series([2], [0.5])})
    table = columns(view)
    assert table["step"] == [1, 2, 3]
    assert table["train/loss"][0::2] == [3.0, 1.0]
    assert math.isnan(table["train/loss"][1] or 0)
    assert table["v"] == [None, 0.5, None]


def test_a_manifest_lists_visible_files_by_name(tmp_path: Path) -> None:
    for name, text in {"b/two.txt": "two", "a.txt": "one", ".hidden": "x", "b/.git/y": "y"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = [(view.path, view.bytes, view.sha256) for view, _ in manifest(tmp_path)]
    assert found == [(n, 3, hashlib.sha256(t).hexdigest()) for n, t in (("a.txt", b"one"), ("b/two.txt", b"two"))]
    with pytest.raises(ConfigError, match="no files"):
        manifest(_empty(tmp_path))


def _empty(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../b", "a//b", "", ".", "a\\b", "a/\0"])
def test_a_manifest_cannot_leave_its_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(DownloadError):
        inside(tmp_path, name)
