"""What every answer must be, whatever was asked: no defect, a published problem, nothing long repeated."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import httpx

from stoker.problems import PROBLEMS

DOCUMENT = Path(__file__).resolve().parents[2] / "openapi" / "openapi.json"
HONEST_5XX = ("overloaded", "storage_full", "read_only", "busy_measuring", "blob_unavailable", "blob_being_collected")
"""Refusals with a 5xx status that say something of the moment. `server_error` and `database_unavailable` would hide a defect."""
EVERYWHERE = {404, 405, 408, 414}
"""Statuses that the front door may answer to any request, whether a route is found or not."""


@cache
def document() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(DOCUMENT.read_text())
    return loaded


def judge(answer: httpx.Response, sent: list[str], declared: set[int] | None = None) -> None:
    """Raises AssertionError. `sent` are texts of the request; `declared` the statuses that the operation documents."""
    story = (answer.request.method, str(answer.request.url)[:300], answer.status_code, answer.text[:600])
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json", story
        body = answer.json() if answer.request.method != "HEAD" else None
        if body is not None:
            kind = PROBLEMS.get(body["code"])
            assert kind is not None, story
            assert kind.status == answer.status_code == body["status"], story
            assert answer.status_code < 500 or body["code"] in HONEST_5XX, story
        for text in sent:
            for start in range(0, max(0, len(text) - 80), 40):
                assert text[start : start + 81] not in answer.text, story
        assert len(answer.content) < 200_000, story
    if declared is not None:
        assert answer.status_code in declared | EVERYWHERE, (sorted(declared), story)


def texts(value: Any) -> list[str]:
    """Every string of a document, keys too."""
    match value:
        case str():
            return [value]
        case bytes():
            return [value.decode("utf-8", "replace")]
        case dict():
            return [t for k, v in value.items() for t in (*texts(k), *texts(v))]
        case list() | tuple():
            return [t for v in value for t in texts(v)]
        case _:
            return []
