"""Every member of every union of the spec through the whole system: from the door over two workers to a checkpoint.

The jobs are those of `tests.support.tiny`, by which `tests/architecture/test_knobs_are_read.py` shows that every field is read.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import pytest
from safetensors.numpy import load

from stoker.spec import JobSpec
from tests.support.data import upload
from tests.support.members import ADVICE, held, offered, written_out
from tests.support.stack import Stack
from tests.support.tiny import AFTER, BEFORE, JOBS, Document
from tests.support.tiny.files import FILES

pytestmark = pytest.mark.timeout(900)
"""The first test waits for all jobs."""
REFUSED = {} if find_spec("horovod") else {"horovod": ("distributed: Horovod", "horovod")}
"""Jobs that this installation has no worker for: the member of the spec they are about, and what the server says is lacking.
Horovod is built for an image of its own (`make horovod-test`)."""


PATHS = {
    "sgd": "a table in CSV",
    "tasks": "several tasks",
    "tasks_fixed": "a table in Parquet",
    "arrays": "arrays, and files about the inside of a run",
    "contest": "two networks",
    "pictures": "a folder of images",
    "gru": "text",
    "directory": "a published model's directory",
    "auto": "a strategy that the server chooses",
    "fsdp": "a checkpoint in shards",
    "local_sgd": "a tokenizer from a data set, and ranks that meet now and then",
    "pipeline": "a model in parts",
    "servers_async": "a parameter server",
    "tuned": "weights from a data set",
    "warmed": "weights from another job's checkpoint",
    "adapted": "adapters, and an export",
    "horovod": "a job that no worker can run",
}
"""Jobs that `make test` sends through the system, and which path each is: what differs outside the trainer. Every other job runs by
the trainer alone in `test_knobs_are_read`, and here in `make test-all`."""


def _chosen(names: Iterable[str]) -> list[Any]:
    """Cases by the name of a job."""
    more = pytest.mark.thorough("every member of a union through the system; make test sends a job for each path")
    return [pytest.param(name, marks=() if name in PATHS else more) for name in names]


@pytest.fixture(scope="module", autouse=True)
def uploaded(installation: Stack) -> None:
    for name, files in FILES.items():
        upload(installation, name, files())


@pytest.fixture(scope="module")
def ids(installation: Stack, request: pytest.FixtureRequest) -> dict[str, str]:
    """Ids by name of the jobs that tests of this run are about, all submitted at once, but for those that read another's
    checkpoint, which come after it."""
    mine = [item for item in request.session.items if item.path == request.path]
    asked = {item.callspec.params["name"] for item in mine if hasattr(item, "callspec")}
    if any(item.name == test_every_member_of_every_union_was_among_them.__name__ for item in mine):
        asked = set(JOBS)
    asked |= {AFTER[name] for name in asked & AFTER.keys()}
    made = {name: installation.submit(_named(name)) for name in JOBS if name in asked - AFTER.keys()}
    for name, before in AFTER.items():
        if name in asked:
            installation.wait(made[before], timeout=280)
            made[name] = installation.submit(_named(name, made[before]))
    return made


def _named(name: str, before: str = "") -> Document:
    return dict(json.loads(json.dumps({"name": name} | JOBS[name]).replace(BEFORE, before)))


@pytest.fixture(scope="module")
def ended(installation: Stack, ids: dict[str, str]) -> dict[str, dict[str, Any]]:
    return {name: installation.wait(job, timeout=280) for name, job in ids.items() if name not in REFUSED}


@pytest.mark.parametrize("name", _chosen(name for name in JOBS if name not in REFUSED))
def test_a_tiny_job_comes_to_its_checkpoint(name: str, installation: Stack, ended: dict[str, dict[str, Any]]) -> None:
    job = ended[name]
    assert job["state"] == "succeeded", installation.story(job["id"])
    losses = [value for key, value in job["metrics"].items() if key.endswith("loss")]
    assert losses
    assert all(math.isfinite(value) for value in losses)
    manifest = installation.get(f"/v1/jobs/{job['id']}/checkpoints/final")
    assert manifest["step"] == job["progress"]["step"] > 0
    weights = next(file for file in manifest["files"] if file["path"] == "model.safetensors")
    with installation.http as http:
        content = http.get(f"/v1/jobs/{job['id']}/checkpoints/final/files/model.safetensors").content
    assert hashlib.sha256(content).hexdigest() == weights["sha256"]
    assert sum(tensor.size for tensor in load(content).values()) >= job["plan"]["parameters"]["total"] > 0


RATES: dict[str, Callable[[int], float]] = {
    "sgd": lambda k: 0.01 + 0.09 * (0.0, 0.5, 1.0, 0.5)[k % 4] * 0.9**k,
    "adamw": lambda k: 1e-3 * (1.0, 1.0, 0.5, 1.0, 0.5)[k],
    "nadam": lambda k: (2e-3, 2e-4, 2e-4, 5e-5)[k],
    "radam": lambda k: max(1e-3 * 0.5**k, 2e-4),
    "adamax": lambda k: 1e-4 + 1.9e-3 * (1 - k / 3) ** 2,
    "adagrad": lambda k: 0.01 if k < 5 else 0.005,
    "adadelta": lambda k: min(1.0, (k + 1) / 3),
    "gru": lambda k: 1e-3 if k == 0 else 1e-4 + 9e-4 * (1 + math.cos(math.pi * (k - 1) / 2)) / 2,
    "tensor": lambda k: 1e-3 * (1.0, 1.0, 0.5, 0.0)[k],
}
"""The learning rate of step k, counted from 0, by the schedule of each job: cyclic, cosine with restarts, multistep, exponential,
polynomial, step, constant after a warm-up, cosine, wsd."""
FLOORS = {"nadam": 5e-5, "radam": 2e-4, "adamax": 1e-4, "gru": 1e-4, "tensor": 0.0}
"""Of those that decay to the end, `schedule.min_lr`."""


def _series(installation: Stack, job: dict[str, Any], key: str) -> dict[int, float]:
    found = installation.get(f"/v1/jobs/{job['id']}/metrics", max_points=10_000)["keys"][key]
    return dict(zip(found["steps"], found["last"], strict=True))


@pytest.mark.proves("SCHED-01")
@pytest.mark.proves("SCHED-02", cases=["adagrad", "nadam"])
@pytest.mark.proves("SCHED-03", cases=["radam"])
@pytest.mark.proves("SCHED-04", cases=["adamw", "gru"])
@pytest.mark.proves("SCHED-05", cases=["sgd"])
@pytest.mark.proves("SCHED-07", cases=["adadelta", "gru"])
@pytest.mark.proves("SCHED-09", cases=["adagrad", "adamax", "gru", "nadam", "radam", "tensor"])
@pytest.mark.parametrize("name", _chosen(RATES))
def test_the_rates_that_the_server_shows_are_the_closed_form_of_the_schedule(
    name: str, installation: Stack, ended: dict[str, dict[str, Any]]
) -> None:
    rates = _series(installation, ended[name], "train/lr")
    assert list(rates) == list(range(1, ended[name]["progress"]["step"] + 1))
    assert len(rates) >= 4
    assert list(rates.values()) == pytest.approx([RATES[name](k) for k in range(len(rates))], rel=1e-9, abs=1e-15)
    if name in FLOORS:
        falling = list(rates.values())[1 if name == "gru" else 0 :]
        assert all(after <= before for before, after in pairwise(falling))
        assert falling[-1] == pytest.approx(FLOORS[name], rel=1e-9, abs=1e-15)


@pytest.mark.proves("SCHED-06", "SCHED-08")
@pytest.mark.parametrize("name", _chosen(["rmsprop"]))
def test_a_plateau_fell_when_the_evaluations_that_the_server_shows_said_so(
    name: str, installation: Stack, ended: dict[str, dict[str, Any]]
) -> None:
    """With patience 0, after every evaluation that is not better than the best by a ten-thousandth."""
    losses = _series(installation, ended[name], "validation/loss")
    expected, rate, best = [], 0.01, math.inf
    for loss in losses.values():
        expected.append(rate)
        rate, best = (rate, loss) if loss < best * (1 - 1e-4) else (rate * 0.1, best)
    rates = _series(installation, ended[name], "train/lr")
    assert list(losses) == list(rates) == list(range(1, 7))
    assert list(rates.values()) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", REFUSED)
def test_a_job_that_no_worker_can_run_waits_and_says_for_what(name: str, installation: Stack, ids: dict[str, str]) -> None:
    _, lacking = REFUSED[name]
    why = installation.get(f"/v1/jobs/{ids[name]}/why")
    assert why["state"] == "queued"
    assert {worker["name"] for worker in why["workers"]} == {"node-1", "node-2"}
    assert all(any(lacking in missing for missing in worker["missing"]) for worker in why["workers"]), why
    assert lacking in why["message"]


@pytest.mark.thorough("every member of a union through the system; make test sends a job for each path")
def test_every_member_of_every_union_was_among_them(installation: Stack, ended: dict[str, dict[str, Any]]) -> None:
    """What the server resolved of what ran, and what was refused with a reason, is all that the types offer."""
    assert ended.keys() | REFUSED.keys() == JOBS.keys()
    ran: set[str] = set()
    for job in ended.values():
        answer = installation.get(f"/v1/jobs/{job['id']}/spec", resolved="true")
        ran |= held(JobSpec.model_validate_json(json.dumps(answer["spec"]))) | written_out(answer["origins"])
    refused = {member for member, _ in REFUSED.values()}
    assert refused & ran == set(), "what runs is not refused"
    assert offered() - ran - refused == set(), ADVICE
