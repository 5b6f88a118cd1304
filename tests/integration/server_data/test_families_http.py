"""The catalogue over HTTP, and plans that keep nothing."""

import httpx
import pytest

from stoker.document.schema import job_schema
from stoker.reasons import REASONS
from stoker.spec.rules import RULES


def test_schema_rules_and_reasons_are_those_of_the_code(user: httpx.Client) -> None:
    assert user.get("/v1/schema/job.json").json() == job_schema()
    assert [r["id"] for r in user.get("/v1/schema/rules").json()] == [r.id for r in RULES]
    assert {r["code"] for r in user.get("/v1/reasons").json()} == set(REASONS)


def test_a_key_is_explained_in_two_languages(user: httpx.Client) -> None:
    english = user.get("/v1/explain/optimizer.lr").json()
    chinese = user.get("/v1/explain/optimizer.lr", params={"lang": "zh"}).json()
    assert english["path"] == chinese["path"] == "optimizer.lr"
    assert english["text"].isascii()
    assert not chinese["text"].isascii()
    unknown = user.get("/v1/explain/optimizer.learning_rate")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_path")
    assert user.get("/v1/explain/optimizer.lr", params={"lang": "xx"}).status_code == 422


@pytest.mark.parametrize("body", [{}, {"task": {"type": "nonsense"}}])
def test_a_plan_refuses_what_a_submit_refuses(user: httpx.Client, body: dict[str, object]) -> None:
    planned, submitted = user.post("/v1/plans", json=body), user.post("/v1/jobs", json=body)
    assert planned.status_code == submitted.status_code == 422
    assert planned.json()["errors"] == submitted.json()["errors"]
