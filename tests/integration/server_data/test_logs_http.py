"""Logs from report to reader: text, raw bytes, pages, tails, searches and streams."""

import json
import threading

import httpx
import pytest

from tests.integration.server_data.conftest import Reporter, Served


def say(reporter: Reporter, data: bytes, offset: int, rank: int = 0, stream: str = "out") -> int:
    reporter.report("logs", data, rank=rank, stream=stream, offset=offset)
    return offset + len(data)


@pytest.fixture
def reporter(server: Served) -> Reporter:
    return server.start_attempt(server.start_job())


def text(user: httpx.Client, reporter: Reporter, **query: object) -> str:
    answer = user.get(f"/v1/jobs/{reporter.job_id}/logs", params=query)  # type: ignore[arg-type]
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    return answer.text


def test_a_reader_sees_lines_and_a_download_gets_bytes(reporter: Reporter, user: httpx.Client) -> None:
    raw = b"start\n10%\r50%\r\x1b[32m100%\x1b[0m\nh\xc3\xa9llo \xff\x00\nno end"
    offset = say(reporter, raw[:9], 0)
    say(reporter, raw[9:], offset)
    assert text(user, reporter) == "start\n100%\nhéllo \ufffd\nno end\n"
    kept = user.get(f"/v1/jobs/{reporter.job_id}/logs", params={"download": True})
    assert kept.content == raw
    assert "attachment" in kept.headers["content-disposition"]


def test_ranks_streams_and_attempts_are_told_apart(server: Served, reporter: Reporter, user: httpx.Client) -> None:
    say(reporter, b"zero\n", 0)
    say(reporter, b"one ", 0, rank=1)
    say(reporter, b"oops\n", 0, stream="err")
    say(reporter, b"more\n", 4, rank=1)
    assert text(user, reporter) == "[0] zero\n[0] oops\n[1] one more\n"
    assert text(user, reporter, rank=1) == "one more\n"
    assert text(user, reporter, stream="err") == "oops\n"
    again = server.start_attempt(reporter.job_id, 5)
    say(again, b"second\n", 0)
    assert text(user, reporter, attempt=2) == "second\n"
    assert text(user, reporter, attempt=1, rank=0, stream="out") == "zero\n"
    assert user.get(f"/v1/jobs/{reporter.job_id}/logs", params={"attempt": 3}).status_code == 404
    raw = user.get(f"/v1/jobs/{reporter.job_id}/logs", params={"download": True}).content
    assert raw == b"zero\noops\none more\nsecond\n"


def test_tail_and_grep(reporter: Reporter, user: httpx.Client) -> None:
    offset = 0
    for begin in range(0, 2000, 20):
        offset = say(reporter, b"".join(b"line %d\n" % n for n in range(begin, begin + 20)), offset)
    assert text(user, reporter, tail=3) == "line 1997\nline 1998\nline 1999\n"
    assert text(user, reporter, tail=0) == ""
    assert text(user, reporter, tail=5000).count("\n") == 2000
    assert text(user, reporter, grep="99") == "".join(f"line {n}\n" for n in range(2000) if "99" in str(n))
    assert text(user, reporter, tail=1, grep="line 7") == "line 799\n"
    assert text(user, reporter, grep=".*") == ""


def test_pages_of_chunks(reporter: Reporter, user: httpx.Client) -> None:
    offset = 0
    for n in range(5):
        offset = say(reporter, b"chunk %d\n" % n, offset)
    url, seen, after = f"/v1/jobs/{reporter.job_id}/logs", [], None
    while True:
        page = user.get(
            url, params={"limit": 2, **({"after": after} if after else {})}, headers={"Accept": "application/json"}
        ).json()
        seen += page["data"]
        after = page["next"]
        if not page["has_more"]:
            break
    assert [c["text"] for c in seen] == [f"chunk {n}\n" for n in range(5)]
    assert [c["offset"] for c in seen] == [0, 8, 16, 24, 32]
    assert {(c["rank"], c["stream"], c["attempt"]) for c in seen} == {(0, "out", 1)}


def events(lines: "httpx.Response") -> list[tuple[str | None, str, dict[str, object]]]:
    found, current = [], dict[str, str]()
    for line in lines.iter_lines():
        if line:
            name, _, value = line.partition(": ")
            current[name] = value
        elif "data" in current:
            found.append((current.get("id"), current.get("event", ""), json.loads(current["data"])))
            current = {}
            if found[-1][1] == "end":
                break
    return found


def test_a_stream_is_resumed_and_ends_with_the_state(server: Served, reporter: Reporter, user: httpx.Client) -> None:
    offset = say(reporter, b"first\n", 0)
    url, sse = f"/v1/jobs/{reporter.job_id}/logs", {"Accept": "text/event-stream"}
    with user.stream("GET", url, headers=sse) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        place = next(line.removeprefix("id: ") for line in lines if line.startswith("id: "))
    say(reporter, b"second\n", offset)

    def finish() -> None:
        server.end_job(reporter.job_id, "failed")

    later = threading.Timer(0.3, finish)
    later.start()
    with user.stream("GET", url, headers=sse | {"Last-Event-ID": place}) as answer:
        found = events(answer)
    later.join()
    assert [(e, d.get("text", d.get("state"))) for _, e, d in found] == [("log", "second\n"), ("end", "failed")]


def test_following_text_ends_with_the_job(server: Served, reporter: Reporter, user: httpx.Client) -> None:
    offset = say(reporter, b"one\ntwo\nthr", 0)

    def rest() -> None:
        say(reporter, b"ee\nlast", offset)
        server.end_job(reporter.job_id)

    later = threading.Timer(0.3, rest)
    later.start()
    with user.stream("GET", f"/v1/jobs/{reporter.job_id}/logs", params={"follow": True}) as answer:
        assert answer.read().decode() == "one\ntwo\nthree\nlast\n"
    later.join()


@pytest.mark.parametrize(
    "header", [{"rank": -1}, {"rank": "0"}, {"rank": True}, {"stream": "log"}, {"offset": -1}, {"offset": None}]
)
def test_a_chunk_that_does_not_fit_is_refused(reporter: Reporter, header: dict[str, object]) -> None:
    answer = reporter.send(reporter.frame("logs", b"x", **{"rank": 0, "stream": "out", "offset": 0} | header))
    assert answer.json()["code"] == "frame_invalid"


def test_bad_questions_and_strangers(reporter: Reporter, user: httpx.Client, stranger: httpx.Client) -> None:
    url = f"/v1/jobs/{reporter.job_id}/logs"
    for query in ({"rank": -1}, {"tail": -1}, {"tail": 10**9}, {"after": "x"}, {"stream": "all"}, {"grep": "g" * 300}):
        assert user.get(url, params=query).status_code == 422  # type: ignore[arg-type]
    assert stranger.get(url).status_code == 404
    assert user.head(url).content == b""
