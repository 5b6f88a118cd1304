"""The command line's surface: quick to start, complete, honest in its help and its exit codes."""

import importlib
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer

from stoker.cli.failure import Failure, lines
from stoker.cli.gates import Gates
from stoker.cli.outcome import exit_code
from stoker.cli.table import COMMANDS
from stoker.cli.when import moment
from stoker.cli.words import coarse, duration, size, sparkline
from stoker.errors import from_problem, problem
from stoker.views import JobView
from tests.support.scripted import job

ROOT = Path(__file__).resolve().parents[3]
HEAVY = ("fastapi", "torch", "pydantic", "httpx", "sqlalchemy", "celery", "stoker.spec", "stoker.client")


def stoker(*arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("STOKER_", "CI", "GITHUB_"))}
    full = clean | {"HOME": str(cwd), "PYTHONPATH": str(ROOT)} | env
    command = [sys.executable, "-m", "stoker.cli", *arguments]
    return subprocess.run(command, cwd=cwd, env=full, capture_output=True, text=True, timeout=120)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from stoker.cli.app import run; code = run(['--help']);"
        f"print([m for m in {HEAVY!r} if m in sys.modules], code, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stderr.strip() == "[] 0"
    assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_says_what_the_command_says(name: str) -> None:
    module, attribute = COMMANDS[name].target.split(":")
    target = getattr(importlib.import_module(module), attribute)
    words = target.info.help if isinstance(target, typer.Typer) else target.__doc__.split("\n")[0]
    assert words.rstrip(".").startswith(COMMANDS[name].help.split(";")[0].split(",")[0].rstrip("."))


FIVE = """\
name: bad
task: {type: classification, target: label}
model: {type: mlp, hidden_sizes: [64], dropout: 1.5}
data:
  source: {type: csv, dataset: digits}
optimizer: {type: adamw, learning_rate: 3e-3, beta1: -1}
training: {max_steps: 300, bs: 64}
precision: {mode: fp8}
"""


def test_five_mistakes_are_five_findings_with_line_caret_and_suggestion(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(FIVE)
    done = stoker("validate", "job.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert [line.split(":", 1)[1] for line in done.stderr.splitlines() if "-->" in line] == [
        "3:49",
        "6:26",
        "6:54",
        "7:28",
        "8:19",
    ]
    assert done.stderr.count("^") >= 5
    assert "did you mean `lr`?" in done.stderr
    assert "did you mean `batch_size`?" in done.stderr
    assert "5 errors" in done.stderr
    annotated = stoker("validate", "job.yaml", "--format", "github", cwd=tmp_path)
    assert sum(line.startswith("::error file=job.yaml,line=") for line in annotated.stdout.splitlines()) == 5


def test_what_init_writes_is_valid(tmp_path: Path) -> None:
    for kind in ("classification", "regression", "language_model"):
        assert stoker("init", f"{kind}.yaml", "--kind", kind, cwd=tmp_path).returncode == 0
        done = stoker("validate", f"{kind}.yaml", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert stoker("init", "regression.yaml", cwd=tmp_path).returncode == 2


def test_exit_codes_without_a_server(tmp_path: Path) -> None:
    assert stoker("ls", cwd=tmp_path).returncode == 2
    assert stoker("--url", "http://127.0.0.1:9", "workers", "ls", cwd=tmp_path).returncode == 7
    assert stoker("nonsense", cwd=tmp_path).returncode == 2
    assert stoker("up", "--status", cwd=tmp_path).returncode == 7
    assert "Traceback" not in stoker("submit", "absent.yaml", cwd=tmp_path).stderr


@pytest.mark.parametrize(
    ("state", "outcome", "passed", "code"),
    [
        ("succeeded", "completed", None, 0),
        ("succeeded", "completed", False, 3),
        ("succeeded", "metrics_missing", None, 3),
        ("failed", None, None, 1),
        ("failed", None, False, 1),
        ("cancelled", None, None, 5),
    ],
)
def test_the_code_comes_from_the_job(state: str, outcome: str | None, passed: bool | None, code: int) -> None:
    assert exit_code(JobView.model_validate(job(state, outcome=outcome)), passed) == code


@pytest.mark.parametrize("text", ["accuracy>=0.9", "validation/accuracy", "validation/accuracy>=nan", "a/b>=1;x", "a/b=>1", ""])
def test_a_condition_that_is_none_is_refused_before_anything_runs(text: str) -> None:
    with pytest.raises(Failure) as caught:
        Gates.parse([text])
    assert caught.value.exit_code == 2


def test_an_error_says_what_what_to_do_where_to_read_and_which_request() -> None:
    told = lines(from_problem(problem(401, "unauthenticated", "Send a key.", request_id="r1")))
    assert told[0] == "error[unauthenticated]: Send a key."
    assert told[1].startswith("  help: set STOKER_KEY")
    assert told[2:] == ["  docs: /v1/problems/unauthenticated", "  request: r1"]


def test_times_as_people_write_and_read_them() -> None:
    now = datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert [
        moment(text, now) for text in ("90s", "2h", "3d", "2026-01-31", "2026-01-31T13:00:00+01:00", "2026-01-31T12:00:00Z")
    ] == [
        "2026-01-31T11:58:30Z",
        "2026-01-31T10:00:00Z",
        "2026-01-28T12:00:00Z",
        "2026-01-31T00:00:00Z",
        "2026-01-31T12:00:00Z",
        "2026-01-31T12:00:00Z",
    ]
    for text in ("", "yesterday", "2x", "999999w", "2026-13-01"):
        with pytest.raises(Failure, match="not a time"):
            moment(text, now)
    assert [coarse(s) for s in (0.4, 59, 60, 7_199, 90_000)] == ["0s", "59s", "1m", "1h", "1d"]


def test_a_shell_asks_and_is_answered_from_the_table(tmp_path: Path) -> None:
    asked = {"_STOKER_COMPLETE": "complete_bash", "COMP_WORDS": "stoker wor", "COMP_CWORD": "1"}
    assert set(stoker(cwd=tmp_path, **asked).stdout.split()) == {"worker", "workers"}


def test_a_reader_that_goes_away_is_no_failed_job(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "stoker.cli", "schema"]
    with subprocess.Popen(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_numbers_as_people_read_them() -> None:
    assert [duration(s) for s in (None, 4.21, 187, 7500, 273_600)] == ["–", "4.2s", "3m 07s", "2h 05m", "3d 4h"]
    assert [size(n) for n in (512, 3_565_158, 5 << 40)] == ["512 B", "3.4 MiB", "5.0 TiB"]
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([1.0, float("nan"), 1.0]) == "▁ ▁"
