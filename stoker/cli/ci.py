"""What a CI system reads of a run: JUnit, a Markdown summary, GitHub outputs and annotations, an idempotency key."""

import hashlib
import json
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stoker.cli.connection import resolve
from stoker.cli.markdown import summary
from stoker.cli.outcome import exit_code
from stoker.cli.terminal import say
from stoker.cli.words import between
from stoker.client import Client
from stoker.errors import StokerError
from stoker.views import GateView, JobView, VerdictView

MAX_ANNOTATIONS = 10
IDENTITY = (
    ("GITHUB_REPOSITORY", "GITHUB_SHA", "GITHUB_WORKFLOW", "GITHUB_JOB"),
    ("CI_PROJECT_PATH", "CI_COMMIT_SHA", "CI_PIPELINE_NAME", "CI_JOB_NAME"),
)
"""Repository, commit, workflow and job as GitHub Actions and GitLab CI name them."""


def default_key(value: Mapping[str, Any]) -> str | None:
    """In CI: repository + commit + workflow + spec, so that a re-run re-attaches. Elsewhere None."""
    for names in IDENTITY:
        parts = [os.environ.get(name, "") for name in names]
        if parts[0] and parts[1]:
            text = json.dumps([*parts, value], sort_keys=True, default=str)
            return f"ci-{hashlib.sha256(text.encode()).hexdigest()}"
    return None


@dataclass(frozen=True)
class Report:
    """Where the result of a run is written. `--summary` names a file; the same text is appended to GitHub's step summary."""

    junit: Path | None
    summary: Path | None
    gates: Sequence[str]
    baseline: str | None
    waits: bool
    """Whether there will be something to tell."""

    def make_room(self) -> None:
        """Open the files now: one that cannot be written is said before anything runs. Raises OSError."""
        for path in (self.junit, self.summary):
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.open("a").close()

    def against(self, client: Client) -> JobView | None:
        """The job to compare with, looked up before anything runs. Raises Failure when there is none."""
        return resolve(client, self.baseline) if self.baseline else None

    def broke_off(self, error: StokerError, job: JobView | None) -> None:
        """The job was refused, or runs on without us; every case that could not be judged is skipped."""
        if not self.waits:
            return
        cases = [_case("submit", "stoker", error=None if job else str(error))]
        cases += [] if job is None else [_case("train", "stoker", error=str(error))]
        cases += [_case(gate, "gate", skipped="not judged") for gate in self.gates]
        title = "not submitted" if job is None else f"{job.id} was not waited for to its end"
        self._tell(cases, f"# ❌ Stoker: {title}\n\n```\n{error}\n```\n")

    def write(self, client: Client, job: JobView, verdict: VerdictView | None, base: JobView | None) -> None:
        """JUnit, summary, GitHub's files."""
        specs = [client.spec(j.id, resolved=True) for j in (job, base) if j is not None] if base else []
        self._tell(_cases(job, verdict), summary(job, verdict, base, specs))
        _github(job, verdict)

    def _tell(self, cases: Sequence[ElementTree.Element], text: str) -> None:
        if self.junit is not None:
            _write_junit(self.junit, cases)
        if self.summary is not None:
            self.summary.write_text(text, encoding="utf-8")
        if step := os.environ.get("GITHUB_STEP_SUMMARY"):
            with open(step, "a", encoding="utf-8") as file:
                file.write(text)


def _cases(job: JobView, verdict: VerdictView | None) -> list[ElementTree.Element]:
    failed = None if job.state == "succeeded" else f"{job.state}: {job.error.message if job.error else job.reason or ''}"
    train = _case("train", "stoker", failure=failed, seconds=between(job.started_at, job.finished_at))
    gates = [
        _case(
            gate.expression,
            "gate",
            failure=None if gate.passed else f"{gate.key} is {_value(gate)}, not {gate.op} {gate.threshold}",
        )
        for gate in (verdict.gates if verdict else ())
    ]
    return [_case("submit", "stoker"), train, *gates]


def _value(gate: GateView) -> str:
    return "missing" if gate.value is None else str(gate.value)


def _case(
    name: str,
    group: str,
    *,
    failure: str | None = None,
    error: str | None = None,
    skipped: str | None = None,
    seconds: float | None = None,
) -> ElementTree.Element:
    case = ElementTree.Element("testcase", name=name, classname=group, time=f"{seconds or 0:.3f}")
    for tag, text in (("failure", failure), ("error", error), ("skipped", skipped)):
        if text is not None:
            clean = "".join(c for c in text if c in "\n\t" or c.isprintable())
            ElementTree.SubElement(case, tag, message=clean.split("\n")[0][:500]).text = clean
    return case


def _write_junit(path: Path, cases: Sequence[ElementTree.Element]) -> None:
    counts = {tag: str(sum(case.find(tag) is not None for case in cases)) for tag in ("failure", "error", "skipped")}
    suite = ElementTree.Element(
        "testsuite",
        name="stoker",
        tests=str(len(cases)),
        failures=counts["failure"],
        errors=counts["error"],
        skipped=counts["skipped"],
    )
    suite.extend(cases)
    root = ElementTree.Element("testsuites")
    root.append(suite)
    path.write_text(ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n", encoding="utf-8")


def _github(job: JobView, verdict: VerdictView | None) -> None:
    """Outputs for later steps, and at most ten annotations: the run first, then the gates that failed."""
    if target := os.environ.get("GITHUB_OUTPUT"):
        passed = exit_code(job, verdict.passed if verdict else None) == 0
        best = job.objective.best if job.objective else None
        outputs = {"job_id": job.id, "state": job.state, "passed": str(passed).lower(), "objective": "" if best is None else best}
        with open(target, "a", encoding="utf-8") as file:
            file.writelines(f"{name}={value}\n" for name, value in outputs.items())
    if os.environ.get("GITHUB_ACTIONS") == "true":
        lines = [] if job.state == "succeeded" else [f"job {job.state}: {job.error.message if job.error else job.reason or ''}"]
        lines += [f"gate {g.expression} failed: it is {_value(g)}" for g in (verdict.gates if verdict else ()) if not g.passed]
        for line in lines[:MAX_ANNOTATIONS]:
            # On stderr, where the runner reads commands too: stdout is data.
            say("::error title=stoker::" + line.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A"))
