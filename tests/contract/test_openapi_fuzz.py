"""Whatever is sent to whatever endpoint: never a defect, a published problem for each refusal, nothing long repeated.

Four streams of requests to a live server: what the OpenAPI document allows and what it forbids, job specs with mistakes grown
into them, reports of any shape, and paths and queries of any characters. STOKER_FUZZ_EXAMPLES multiplies the effort.
"""

import copy
import json
import math
import os
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings

from stoker.frames import MAGIC, MEDIA_TYPE
from stoker.protocol import Claim
from tests.support.late import Late
from tests.support.live import JOB, Agent, Live, assigned, beat, live, upload_toy
from tests.support.oracle import document, judge, texts
from tests.support.postgres import Postgres

schemathesis = Late("schemathesis")
EFFORT = int(os.environ.get("STOKER_FUZZ_EXAMPLES", "1"))
SHARE = 1 if os.environ.get("STOKER_ALL") == "1" or EFFORT > 1 else 3
"""Of the examples, `make test` tries a third."""
REPORT = "/v1/attempts/{attempt_id}/report"
"""Takes binary frames, which have a test of their own."""
OPERATIONS = [(method.upper(), path) for path, found in document()["paths"].items() for method in found if path != REPORT]


def effort(examples: int) -> settings:
    return settings(
        max_examples=math.ceil(examples * EFFORT / SHARE),
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        derandomize=EFFORT == 1,
        suppress_health_check=list(HealthCheck),
    )


@cache
def schema() -> Any:
    """The operations as schemathesis reads them."""
    return schemathesis.openapi.from_dict(document())


@dataclass
class Target:
    """A server with something of everything on it."""

    server: Live
    http: httpx.Client
    job: str
    agent: Agent
    known: dict[str, list[str]]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    home: Path = tmp_path_factory.mktemp("fuzz")
    url = ""
    if request.param == "postgresql":
        postgres: Postgres = request.getfixturevalue("postgres")
        url = postgres.create_database()
    with live(home, url, scale=10) as server, server.client("read", "submit", "admin", "worker") as http:
        upload_toy(http)
        beat(http, cpus=1)
        job = http.post("/v1/jobs", json=JOB).json()["id"]
        made = assigned(http, cpus=1)
        asked = Claim(worker="node", epoch=made["epoch"], agent_id="agent-00000001", pid=1)
        claimed = http.post(f"/v1/attempts/{made['attempt_id']}/claim", json=asked.model_dump()).json()
        agent = Agent(server.url, made["attempt_id"], made["epoch"], claimed)
        agent.started()
        known = {
            "job_id": [job, "job_" + "0" * 26],
            "attempt_id": [agent.id],
            "worker_id": ["node"],
            "ref": ["toy", "toy@1", "toy@99999999999999999999"],
            "which": ["best", "last", "1", "99999999999999999999"],
            "path": ["toy.csv", "optimizer.lr", "model.npz"],
            "name": ["nightly", "report.json"],
            "sha256": ["0" * 64],
            "key_id": ["key_" + "0" * 26],
            "code": ["spec_invalid", "nothing"],
        }
        yield Target(server, http, job, agent, known)


@pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=[f"{m} {p}" for m, p in OPERATIONS])
def test_what_the_document_allows_and_what_it_forbids(target: Target, method: str, path: str) -> None:
    operation = schema()[path][method]
    declared = {int(status) for status in operation.definition.raw["responses"]}
    cases = operation.as_strategy() | operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE)
    names = re.findall(r"\{(\w+)\}", path)
    known = st.fixed_dictionaries({name: st.sampled_from(target.known[name]) for name in names})

    @effort(6 if names else 4)
    @given(case=cases, parameters=known, real=st.integers(0, 3))
    def check(case: Any, parameters: dict[str, str], real: int) -> None:
        filled = parameters if real else dict(case.path_parameters or {})
        place = re.sub(r"\{(\w+)\}", lambda m: quote(str(filled[m[1]]), safe=""), path)
        query = (
            {k: v for k, v in (case.query or {}).items() if k not in ("wait", "follow")} if isinstance(case.query, dict) else {}
        )
        headers = {k: v for k, v in plain_headers(case.headers).items() if k.lower() not in ("accept", "authorization", "host")}
        headers |= bearer(target, method, path)
        assume(len(str(query)) < 6000)
        content, media = encoded(case.body, case.media_type)
        if media:
            headers["Content-Type"] = media
        answer = target.http.request(method, place, params=query, headers=headers, content=content)
        judge(answer, [*texts(case.body if content else None), *texts(query), *map(str, filled.values())], declared)

    check()


def plain_headers(headers: Any) -> dict[str, str]:
    """Those that a client can put on the wire at all."""
    return {k: str(v) for k, v in (headers or {}).items() if re.fullmatch(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?", str(v))}


def bearer(target: Target, method: str, path: str) -> dict[str, str]:
    """An attempt's finish takes its token; everything else the key that the client sends by itself."""
    if re.fullmatch(r"/v1/attempts/\{attempt_id\}/finish", path):
        return {"Authorization": f"Bearer {target.agent.claimed['token']}"}
    return {}


def encoded(body: Any, media: str | None) -> tuple[bytes | None, str | None]:
    if media is None:
        return None, None
    if isinstance(body, bytes):
        return body, media
    if isinstance(body, str) and "json" not in media:
        return body.encode("utf-8", "surrogatepass"), media
    try:
        return json.dumps(body).encode("utf-8", "surrogatepass"), media
    except TypeError:  # schemathesis' mark of "no body"
        return None, None


NUMBERS: list[Any] = [0, -1, 1, 2**31, 2**63 - 1, -(2**63), 1e308, -1e308, 5e-324, -0.0, 0.5]
TEXTS = ["", "x", "x" * 3000, "é" * 200, "../../etc/passwd", "\u202e", "1e5", "null", "${HOME}", "toy@1", "toy@0", "toy@-1"]
SHAPES: list[Any] = [
    None,
    True,
    [],
    {},
    [[]],
    {"type": "adamw"},
    {"type": "?"},
    [1] * 50,
    [None],
    {"x" * 200: 1},
    {"~1/a": {"": 0}},
]
NASTY = st.sampled_from([*NUMBERS, *TEXTS, *SHAPES, "train/loss", "validation/accuracy"]).map(copy.deepcopy)
ODD = NASTY | st.text(max_size=20) | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
SECTIONS = [
    "model",
    "data",
    "loss",
    "optimizer",
    "schedule",
    "training",
    "precision",
    "distributed",
    "resources",
    "evaluation",
    "checkpoint",
    "logging",
    "reproducibility",
    "task",
    "labels",
    "extends",
    "name",
    "project",
    "priority",
]
TYPES = json.loads((Path(__file__).resolve().parents[2] / "openapi" / "job.schema.json").read_text())
WORDS = sorted({str(w) for w in re.findall(r'"([a-z][a-z0-9_]{1,30})": ', json.dumps(TYPES))})


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    """A job that would run, with one to five things done to it."""
    spec = copy.deepcopy(JOB)
    for _ in range(draw(st.integers(1, 5))):
        where: Any = spec
        key = draw(st.sampled_from(SECTIONS))
        while isinstance(where.get(key), dict) and where[key] and draw(st.booleans()):
            where = where[key]
            key = draw(st.sampled_from(sorted(where, key=str)) | st.sampled_from(WORDS))
        match draw(st.integers(0, 3)):
            case 0:
                where.pop(key, None)
            case 1 if isinstance(where.get(key), dict):
                where[key] = {**where[key], draw(st.sampled_from(WORDS)): draw(ODD)}
            case 2:
                where[key] = {"type": draw(st.sampled_from(WORDS)), draw(st.sampled_from(WORDS)): draw(ODD)}
            case _:
                where[key] = draw(ODD)
    return spec


def test_job_specs_with_mistakes(target: Target) -> None:
    made = 0

    @effort(150)
    @given(spec=specs(), to=st.sampled_from(["/v1/plans", "/v1/plans", "/v1/jobs", "/v1/jobs/by-name/nightly"]))
    def check(spec: dict[str, Any], to: str) -> None:
        nonlocal made
        answer = target.http.request("PUT" if "by-name" in to else "POST", to, json=spec)
        judge(answer, texts(spec))
        if answer.status_code == 202:
            made += 1
            for path in ("", "/spec?resolved=true", "/why", "/verdict", "/events"):
                judge(target.http.get(f"/v1/jobs/{answer.json()['id']}{path}"), [])

    check()
    assert made or EFFORT == 0


KEYS = [
    "keys",
    "rows",
    "first_step",
    "last_step",
    "last",
    "rank",
    "stream",
    "offset",
    "step",
    "epoch",
    "samples",
    "tokens",
    "metrics",
    "final",
    "files",
    "name",
    "t",
    "bytes",
    "sha256",
    "level",
    "code",
    "message",
    "data",
    "total_steps",
    "parameters",
    "world_size",
    "device",
]
HEADER = st.dictionaries(
    st.sampled_from(KEYS),
    ODD | st.sampled_from([10**30, math.nan, math.inf, "\x00", "NaN", "\ud800", {"a": math.nan}, 2**40]),
    max_size=12,
)
WHOLE: dict[str, dict[str, Any]] = {
    "phase": {"name": "training", "t": 0.0},
    "started": {"step": 0, "total_steps": 10, "parameters": 9, "world_size": 1, "device": "cpu"},
    "metrics": {"keys": ["train/loss"], "rows": 1, "first_step": 1, "last_step": 1, "last": {"train/loss": 1.0}},
    "logs": {"rank": 0, "stream": "out", "offset": 0},
    "progress": {"step": 1, "epoch": 0, "samples": 8, "tokens": None},
    "checkpoint": {"step": 1, "metrics": {}, "final": False, "files": [{"path": "m", "bytes": 1, "sha256": "0" * 64}]},
    "artifact": {"name": "report.json", "bytes": 1, "sha256": "0" * 64},
    "notice": {"level": "info", "code": "c", "message": "m", "step": 1, "data": {}},
    "novel": {},
}
FRAMES = st.tuples(st.sampled_from(sorted(WHOLE)), HEADER, st.binary(max_size=24), st.booleans())


def raw_frame(header: dict[str, Any], payload: bytes) -> bytes:
    """A frame with whatever Python calls JSON in its header: NaN, half surrogates, U+0000, numbers of any length."""
    head = json.dumps(header).encode()
    return struct.pack("<HIII", MAGIC, len(head), len(payload), zlib.crc32(payload, zlib.crc32(head))) + head + payload


def test_reports_of_any_shape(target: Target) -> None:
    agent = target.agent

    @effort(150)
    @given(said=st.lists(FRAMES, min_size=1, max_size=3), noise=st.binary(max_size=8), epoch=st.integers(0, 2) | st.just(2**70))
    def check(said: list[tuple[str, dict[str, Any], bytes, bool]], noise: bytes, epoch: int) -> None:
        body = b""
        for at, (kind, header, payload, whole) in enumerate(said, agent.seq + 1):
            kept = (WHOLE[kind] | dict(list(header.items())[:1])) if whole else header
            body += raw_frame({"seq": at, "kind": kind, **kept}, payload)
        headers = {"Stoker-Epoch": str(agent.epoch if epoch else epoch), "Content-Type": MEDIA_TYPE}
        answer = agent.post("report", content=body + noise, headers=headers)
        judge(answer, [])
        if answer.status_code == 200:
            agent.seq = answer.json()["acked_through"]
        for path in ("", "/events?limit=500", "/metrics", "/logs", "/attempts", "/checkpoints", "/artifacts"):
            seen = target.http.get(f"/v1/jobs/{agent.claimed['job_id']}{path}")
            assert seen.status_code == 200, (said, path, seen.text[:500])

    check()


@effort(200)
@given(
    method=st.sampled_from(["GET", "GET", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"]),
    parts=st.lists(
        st.sampled_from(["v1", "jobs", "..", ".", "", "workers", "blobs", "keys", "events"]) | st.text(max_size=90), max_size=5
    ),
    query=st.text(max_size=120),
    body=st.none() | st.binary(max_size=60),
)
def any_path(target: Target, method: str, parts: list[str], query: str, body: bytes | None) -> None:
    path = "/" + "/".join(quote(p.encode("utf-8", "surrogatepass"), safe="") for p in parts)
    url = f"{target.server.url}{path}?{quote(query.encode('utf-8', 'surrogatepass'), safe='=&')}"
    headers = {} if body is None else {"Content-Type": "application/json"}
    answer = target.http.send(target.http.build_request(method, url, content=body, headers=headers))
    judge(answer, [*parts, query, *texts(body)])


def test_paths_and_queries_of_any_characters(target: Target) -> None:
    any_path(target)


LOOKS = st.sampled_from(
    ["limit", "after", "state", "name", "project", "parent", "since", "archived", "label.team", "label.", "metric."]
)
OPERATORS = st.sampled_from(["", "<", ">", ">=", "==", "!=", "<>"])


def test_searches_of_any_shape(target: Target) -> None:
    @effort(120)
    @given(asked=st.lists(st.tuples(LOOKS, OPERATORS, NASTY | st.text(max_size=12)), max_size=4), kind=st.integers(0, 1))
    def check(asked: list[tuple[str, str, Any]], kind: int) -> None:
        query: list[tuple[str, Any]] = [
            (f"{name}train/loss{op}" if name == "metric." else name, str(value)) for name, op, value in asked
        ]
        answer = target.http.get("/v1/jobs" if kind == 0 else f"/v1/jobs/{target.job}/metrics", params=query)
        judge(answer, [value for _, value in query])

    check()
