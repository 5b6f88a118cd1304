"""A student taught by an earlier job, through the whole system; and teachers that are refused at the door."""

from pathlib import Path
from typing import Any

import pytest

from stoker.document.load import load_file
from tests.support.data import digits_csv, upload
from tests.support.stack import Stack

STUDENT: dict[str, Any] = dict(load_file(Path(__file__).parents[2] / "examples/features/distill_student.yaml").value)
AT = "/training/distillation/teacher"


@pytest.fixture(scope="module")
def installation(everybodys: Stack) -> Stack:
    """With a key of every project: a test asks for a job of another one. No other file's tests are in its project."""
    upload(everybodys, "digits", {"digits.csv": digits_csv()})
    return everybodys


def taught_by(job: str, checkpoint: str | int = "best", **sections: Any) -> dict[str, Any]:
    lesson = STUDENT["training"]["distillation"] | {"teacher": {"job": job, "checkpoint": checkpoint}}
    return STUDENT | {"training": STUDENT["training"] | {"distillation": lesson}} | sections


@pytest.fixture(scope="module")
def teacher(installation: Stack) -> dict[str, Any]:
    """A finished job."""
    training = {"epochs": 4, "batch_size": 64}
    spec = STUDENT | {"name": "digits-teacher", "model": {"type": "mlp", "hidden_sizes": [64]}, "training": training}
    return installation.wait(installation.submit(spec), timeout=200)


@pytest.mark.proves("TRAIN-12")
def test_a_student_learns_from_a_finished_job(installation: Stack, teacher: dict[str, Any]) -> None:
    assert teacher["state"] == "succeeded", installation.story(teacher["id"])
    best = next(c for c in installation.get(f"/v1/jobs/{teacher['id']}/checkpoints")["data"] if "best" in c["tags"])
    with installation.http as http:
        planned = http.post("/v1/plans", json=taught_by(teacher["id"])).json()
    bound = planned["spec"]["training"]["distillation"]["teacher"]
    assert bound == {"job": teacher["id"], "checkpoint": best["step"]}
    assert "teacher-memory-unplanned" in [warning["code"] for warning in planned["warnings"]]
    student = installation.wait(installation.submit(taught_by(teacher["id"])), timeout=200)
    assert student["state"] == "succeeded", installation.story(student["id"])
    assert student["spec_digest"] == planned["spec_digest"]
    assert student["metrics"]["test/accuracy"] > 0.8


def _refusals(installation: Stack, spec: dict[str, Any]) -> list[tuple[str, str]]:
    with installation.http as http:
        answer = http.post("/v1/jobs", json=spec)
    assert answer.status_code == 422, answer.text
    return [(error["code"], error["pointer"]) for error in answer.json()["errors"] if error.get("severity", "error") == "error"]


def test_teachers_that_cannot_teach_are_refused(installation: Stack, teacher: dict[str, Any]) -> None:
    unknown = "job_00000000000000000000000000"
    assert _refusals(installation, taught_by(unknown)) == [("teacher-not-found", f"{AT}/job")]
    assert _refusals(installation, taught_by(teacher["id"], 7)) == [("teacher-checkpoint-missing", f"{AT}/checkpoint")]
    elsewhere = taught_by(
        teacher["id"], data=STUDENT["data"] | {"source": {"type": "csv", "dataset": "digits", "columns": ["p9"]}}
    )
    assert _refusals(installation, elsewhere) == [("teacher-misfit", f"{AT}/job")]
    contiguous = STUDENT["data"] | {"split": {"strategy": "contiguous"}}
    classes = taught_by(teacher["id"], task={"type": "classification", "target": "p9", "num_classes": 20}, data=contiguous)
    assert _refusals(installation, classes) == [("teacher-misfit", f"{AT}/job")]
    waiting = STUDENT | {"training": {"epochs": 1000, "batch_size": 64}, "resources": {"cpus": 64}}
    queued = installation.submit(waiting)
    assert _refusals(installation, taught_by(queued)) == [("teacher-not-finished", f"{AT}/job")]
    installation.post(f"/v1/jobs/{queued}/cancel")
    other = taught_by(teacher["id"], project="elsewhere")
    assert ("teacher-not-found", f"{AT}/job") in _refusals(installation, other)


def test_a_student_of_texts_reads_with_its_teachers_tokens(installation: Stack) -> None:
    """Another data set, of which other byte pairs would be learned; a teacher of other tokens is refused at the door."""
    said = {
        "sentences": ("the {} fire is warm", "on a {} hill is rain"),
        "letters": ("near the {} flame", "clouds over a {} lake"),
    }
    for name, (fire, rain) in said.items():
        rows = [f"{text.format(w)},{kind}" for w in ("old", "new", "far") * 10 for text, kind in ((fire, "fire"), (rain, "rain"))]
        upload(installation, name, {"rows.csv": "\n".join(["sentence,label", *rows]).encode()})
    path = Path(__file__).parents[2] / "examples/features/text_classification.yaml"
    reader: dict[str, Any] = dict(load_file(path).value)
    master = installation.wait(installation.submit(reader), timeout=200)
    assert master["state"] == "succeeded", installation.story(master["id"])
    lesson = reader["training"] | {"distillation": {"teacher": {"job": master["id"]}}}
    source = reader["data"] | {"source": {"type": "csv", "dataset": "letters", "text": "sentence"}}
    student = {**reader, "name": "text-student", "model": {"type": "gru", "hidden_size": 16}, "training": lesson, "data": source}
    spread = {"distributed": {"strategy": "ddp", "processes_per_node": 2}}
    ended = installation.wait(installation.submit(student | spread), timeout=200)
    assert ended["state"] == "succeeded", installation.story(ended["id"])
    with installation.http as http:
        tokens = [http.get(f"/v1/jobs/{job['id']}/checkpoints/last/files/tokenizer.json").text for job in (master, ended)]
    assert tokens[0] == tokens[1]
    bytes_ = student | {"data": source | {"tokenizer": {"type": "byte"}}}
    assert ("teacher-misfit", f"{AT}/job") in _refusals(installation, bytes_)
