"""The whole command line, as a user types it, against a whole installation; every exit code that is published."""

import json
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from tests.support.data import digits_csv
from tests.support.shell import Shell
from tests.support.stack import Stack, free_port

JOB = """\
name: short
task: {type: classification, target: label}
model: {type: mlp, hidden_sizes: [32]}
data: {source: {type: csv, dataset: digits}, split: {validation: 0.2}, normalization: {type: standard}}
optimizer: {type: adamw, lr: 1e-2}
schedule: {type: constant}
training: {max_steps: 20, batch_size: 64}
evaluation: {interval: {steps: 10}}
checkpoint: {interval: {steps: 10}}
logging: {interval: {steps: 5}}
"""
STATES = ("queued", "starting", "running", "finishing", "succeeded")


@pytest.fixture(scope="module")
def shell(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    folder = tmp_path_factory.mktemp("user")
    (folder / "short.yaml").write_text(JOB)
    (folder / "digits.csv").write_bytes(digits_csv())
    return Shell(folder, stack.url, stack.key("read,submit,admin"))


@pytest.fixture(scope="module")
def trained(shell: Shell) -> dict[str, Any]:
    """A job that was submitted with `--wait`, labels, gates and reports."""
    words = ["submit", "short.yaml", "--name", "trained", "-l", "team=vision", "--priority", "5", "--summary", "out/s.md"]
    words += ["--require", "validation/accuracy>=0.5", "--junit", "out/j.xml", "--wait"]
    done = shell.done(*words)
    assert done.returncode == 0, done.stderr
    says = done.stderr.splitlines()
    assert says[0].startswith("submitted job_")
    assert [line.split()[2] for line in says[1:] if line.startswith(tuple("012"))] == [s for s in STATES if s in done.stderr]
    assert "  pass  validation/accuracy>=0.5" in done.stderr
    return dict(json.loads(done.stdout))


def test_what_was_submitted_is_what_is_shown(shell: Shell, trained: dict[str, Any]) -> None:
    assert (trained["state"], trained["name"], trained["labels"], trained["priority"]) == (
        "succeeded",
        "trained",
        {"team": "vision"},
        5,
    )
    by_prefix = json.loads(shell.out("show", trained["id"][:-1], "--json", "id,progress.step"))
    assert by_prefix == {"id": trained["id"], "progress.step": 20}
    listed = ["ls", "-q", "-l", "team=vision", "-s", "succeeded", "--metric", "validation/accuracy>=0.5", "--since", "1h"]
    assert shell.out(*listed).splitlines() == [trained["id"]]
    spec = json.loads(shell.out("show", "trained", "--spec"))
    assert (spec["spec"]["optimizer"]["lr"], spec["origins"]["/optimizer/lr"]) == (0.01, "user")
    assert "succeeded" in json.loads(shell.out("why", "trained"))["state"]


def test_reports_for_ci(shell: Shell, trained: dict[str, Any]) -> None:
    cases = ElementTree.parse(shell.folder / "out" / "j.xml").getroot().findall(".//testcase")
    assert [(c.get("name"), len(c)) for c in cases] == [("submit", 0), ("train", 0), ("validation/accuracy>=0.5", 0)]
    assert f"# ✅ trained: succeeded\n\n`{trained['id']}`" in (shell.folder / "out" / "s.md").read_text()


def test_the_numbers_in_three_formats(shell: Shell, trained: dict[str, Any]) -> None:
    rows = [json.loads(line) for line in shell.out("metrics", "trained", "-k", "train/loss").splitlines()]
    assert [row["step"] for row in rows] == [5, 10, 15, 20]
    table = shell.out("metrics", "trained", "-k", "train/loss", "--format", "csv").splitlines()
    assert table == ["step,train/loss", *(f"{row['step']},{row['train/loss']}" for row in rows)]
    text = shell.out("metrics", "trained", "--format", "openmetrics").splitlines()
    assert f'stoker_metric{{job="trained",key="train/loss",project="default"}} {rows[-1]["train/loss"]}' in text
    assert text[-1] == "# EOF"
    assert "it has" in shell.refused("metrics", "trained", "-k", "train/los", code=10)


def test_checkpoints_arrive_whole_even_when_they_were_cut(shell: Shell, trained: dict[str, Any]) -> None:
    assert shell.out("checkpoints", "trained", "-q").splitlines() == ["20", "10"]
    assert shell.out("download", "trained", "-c", "last", "--to", "model") == "model"
    whole = {p.name: p.read_bytes() for p in (shell.folder / "model").iterdir()}
    shutil.copytree(shell.folder / "model", shell.folder / ".again.part")
    (shell.folder / ".again.part" / "model.safetensors").write_bytes(whole["model.safetensors"][:100])
    (shell.folder / ".again.part" / "manifest.json").unlink(missing_ok=True)
    assert shell.out("download", "trained", "-c", "last", "--to", "again") == "again"
    assert {p.name: p.read_bytes() for p in (shell.folder / "again").iterdir()} == whole
    assert not (shell.folder / ".again.part").exists()
    assert "stoker checkpoints" in shell.refused("download", "trained", "-c", "11", code=10)
    assert "holds something else" in shell.refused("download", "trained", "-c", "10", "--to", "model", code=1)


def test_data_sets(shell: Shell) -> None:
    assert shell.out("datasets", "upload", "mine", "digits.csv", "-q") == "mine@1"
    assert json.loads(shell.out("datasets", "show", "mine", "--json", "facts.rows")) == {"facts.rows": 1797}
    assert "mine@1" in shell.out("datasets", "ls", "-q").splitlines()
    assert shell.out("datasets", "download", "mine@1", "--to", "back") == "back"
    assert (shell.folder / "back" / "digits.csv").read_bytes() == (shell.folder / "digits.csv").read_bytes()
    assert "no data set 'none'" in shell.refused("datasets", "show", "none", code=10)


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_a_file_that_init_wrote_trains(shell: Shell, kind: str) -> None:
    file = f"{kind}.yaml"
    shell.out("init", file, "--kind", kind, "--dataset", "digits", "--name", kind)
    assert shell.out("validate", file, "--format", "json") == "[]"
    short = ["-o", "training.epochs=1", "-o", "schedule.warmup_steps=5"]
    assert json.loads(shell.out("submit", file, *short, "--wait", "--json", "state")) == {"state": "succeeded"}


def test_a_job_extends_what_was_submitted_not_what_was_worked_out(shell: Shell, trained: dict[str, Any]) -> None:
    (shell.folder / "next.yaml").write_text(f"extends: job:{trained['id']}\n")
    plan = json.loads(shell.out("plan", "next.yaml", "-o", "training.batch_size=16"))
    assert plan["plan"]["batch"] == {"size": 16, "micro": 16, "accumulation": 1, "ranks": 1}


def test_a_failed_job_is_1_and_says_why(shell: Shell) -> None:
    words = ["submit", "short.yaml", "-o", "optimizer={type: sgd, lr: 1e11}", "--junit", "out/f.xml", "--json", "reason"]
    done = shell.done(*words)
    assert (done.returncode, json.loads(done.stdout)) == (1, {"reason": "nan_loss"}), done.stderr
    assert "help: " in done.stderr
    assert ElementTree.parse(shell.folder / "out" / "f.xml").find(".//testcase[@name='train']/failure") is not None


def test_a_file_or_a_command_that_does_not_fit_is_2(shell: Shell) -> None:
    told = shell.refused("submit", "short.yaml", "-o", "optimizer.learning_rate=3", "--priority", "500", code=2)
    assert "did you mean `lr`?" in told
    assert "--> --priority:1:1" in told
    assert "column" in shell.refused("validate", "short.yaml", "-o", "task.target=nope", code=2)
    assert "cannot be combined" in shell.refused("submit", "short.yaml", "--detach", "--wait", code=2)
    assert "submit" in shell.refused("sumbit", code=2)
    assert "is not a job reference" in shell.refused("show", "@first", code=2)
    assert "未知的键" in shell.refused("validate", "short.yaml", "-o", "optimizer.lrr=3", "--offline", code=2, STOKER_LANG="zh")


def test_a_gate_that_fails_is_3(shell: Shell) -> None:
    done = shell.done("submit", "short.yaml", "--require", "validation/loss<0", "--require", "test/none>1", "--json", "outcome")
    assert (done.returncode, json.loads(done.stdout)) == (3, {"outcome": "metrics_missing"}), done.stderr
    assert "  FAIL  validation/loss<0  (is " in done.stderr
    assert "  FAIL  test/none>1  (is missing)" in done.stderr


def test_keys_and_who_may_not_is_4(shell: Shell) -> None:
    made = json.loads(shell.out("keys", "create", "reader", "-s", "read", "--days", "2"))
    assert "scope" in shell.refused("submit", "short.yaml", code=4, STOKER_KEY=made["key"])
    assert shell.out("ls", "-q", "-n", "1", STOKER_KEY=made["key"])
    shell.out("keys", "revoke", made["id"])
    assert "STOKER_KEY" in shell.refused("ls", code=4, STOKER_KEY=made["key"])
    listed = [json.loads(line) for line in shell.out("keys", "ls", "--json", "id,revoked_at").splitlines()]
    assert all(key["revoked_at"] for key in listed if key["id"] == made["id"])


def test_a_job_that_waits_is_left_watched_paused_cancelled_and_run_after_all(shell: Shell, stack: Stack) -> None:
    shell.out("workers", "drain", stack.worker_name)
    try:
        job = shell.out("submit", "short.yaml", "--name", "waits", "-q")
        assert shell.out("ls", "-q", "-s", "queued").splitlines() == [job]
        worker = json.loads(shell.out("why", "@last"))["workers"][0]
        assert (worker["name"], worker["available"]) == (stack.worker_name, False)
        assert f"stoker watch {job}" in shell.refused("wait", "waits", "--timeout", "0.1", code=6)
        code, said = shell.interrupted("wait", "waits", after="queued")
        assert (code, said.splitlines()[-2:]) == (
            130,
            [f"detached; {job} (waits) keeps running", f"  help: stoker watch {job}   (or: stoker cancel {job})"],
        )
        assert shell.out("pause", "waits", "--json", "state,desired") == '{"state": "paused", "desired": "pause"}'
        assert shell.out("resume", "waits", "--json", "state") == '{"state": "queued"}'
        assert shell.out("cancel", "waits", "-q") == job
        ended = shell.done("watch", "waits", "--events")
        assert ended.returncode == 5
        assert [json.loads(line)["type"] for line in ended.stdout.splitlines()][-1] == "end"
        assert "waits:" in shell.done("cancel", "waits", "none").stderr
    finally:
        shell.out("workers", "resume", stack.worker_name)
    shell.out("retry", "waits")
    assert json.loads(shell.out("wait", "waits", "--json", "state,attempt"))["state"] == "succeeded"
    shell.out("archive", "waits")
    assert job not in shell.out("ls", "-q").splitlines()
    assert job in shell.out("ls", "-q", "--archived").splitlines()


def test_no_server_is_7_and_no_job_is_10(shell: Shell) -> None:
    assert "stoker up" in shell.refused("ls", code=7, STOKER_URL=f"http://127.0.0.1:{free_port()}")
    for words in (["show", "none"], ["logs", "job_0000"], ["workers", "drain", "none"], ["keys", "revoke", "none"]):
        assert "  help: " in shell.refused(*words, code=10)


def test_in_ci_the_same_commit_is_the_same_job(shell: Shell) -> None:
    github = {"CI": "true", "GITHUB_ACTIONS": "true", "GITHUB_REPOSITORY": "a/b", "GITHUB_SHA": "c0ffee", "GITHUB_JOB": "t"}
    github |= {"GITHUB_OUTPUT": str(shell.folder / "output"), "GITHUB_STEP_SUMMARY": str(shell.folder / "step.md")}
    words = ["submit", "short.yaml", "--require", "validation/loss<0", "-q"]
    first = shell.done(*words, **github)
    assert first.returncode == 3
    assert "::error title=stoker::gate validation/loss<0 failed" in first.stderr
    assert shell.out(*words, code=3, **github) == first.stdout.strip()
    output = (shell.folder / "output").read_text().splitlines()
    assert output[:3] == [f"job_id={first.stdout.strip()}", "state=succeeded", "passed=false"]
    assert (shell.folder / "step.md").read_text().count("# ❌ short: succeeded") == 2
    other = shell.out(*words, code=3, **{**github, "GITHUB_SHA": "decade"})
    assert other != first.stdout.strip()


def test_on_a_terminal(shell: Shell, trained: dict[str, Any]) -> None:
    code, page = shell.terminal("submit", "short.yaml", "--name", "seen", "--watch")
    assert code == 0
    assert "submitted job_" in page
    assert "100% step 20/20" in page
    assert "validation/loss  " in page
    assert "next: stoker download job_" in page
    code, table = shell.terminal("ls", "-n", "1")
    assert (code, table.split()[:7]) == (0, ["ID", "NAME", "STATE", "PROGRESS", "BEST", "RAN", "AGE"])
    code, plain = shell.terminal("show", "trained", clean=False, NO_COLOR="1")
    assert code == 0
    assert "succeeded" in plain
    assert "\x1b[3" not in plain  # no foreground colour
    assert "\x1b[32m" in shell.terminal("show", "trained", clean=False)[1]


def test_a_shell_completes_commands_options_and_jobs(shell: Shell, trained: dict[str, Any]) -> None:
    script = shell.folder / "bin" / "stoker"
    script.parent.mkdir()
    script.write_text('#!/bin/sh\nexec "$STOKER_TEST_PYTHON" -m stoker.cli "$@"\n')
    script.chmod(0o755)
    (shell.folder / "stoker.bash").write_text(shell.out("completion", "bash"))
    ask = """
    source stoker.bash
    for words in "su" "submit --jun" "show trai" "workers dr"; do
      COMP_WORDS=(stoker $words); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=()
      $(complete -p stoker | sed 's/.*-F \\([^ ]*\\).*/\\1/') stoker
      echo "${COMPREPLY[*]}"
    done
    """
    environment = shell.environment(PATH=f"{script.parent}:/usr/bin:/bin", STOKER_TEST_PYTHON=sys.executable)
    done = subprocess.run(["bash", "-c", ask], cwd=shell.folder, env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["submit", "--junit", "trained", "drain"], done.stderr


def test_doctor_finds_nothing_wrong(shell: Shell, stack: Stack) -> None:
    found = [json.loads(line) for line in shell.out("doctor", "--json").splitlines()]
    assert [entry for entry in found if entry["state"] == "error"] == []
    assert {"server", "clock", "version", "workers", "key"} <= {entry["check"] for entry in found}
    assert stack.worker_name in next(entry["detail"] for entry in found if entry["check"] == "workers")
    assert any(stack.worker_name in line for line in shell.out("workers", "ls").splitlines())
