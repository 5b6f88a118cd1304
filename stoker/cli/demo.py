"""`stoker demo`: a classifier and a small GPT from data to predictions, through every part of the system."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from stoker.cli import emit, source, words
from stoker.cli.failure import Failure
from stoker.cli.follow import follow_all
from stoker.cli.outcome import label, sentence
from stoker.cli.stack import control
from stoker.cli.stack.files import StackFiles
from stoker.cli.stack.planes import planes, require, with_planes
from stoker.cli.terminal import say
from stoker.client import Client, load_config, number
from stoker.views import JobView

LIMIT = 900.0
"""Seconds for both jobs; on two cores they take about one minute."""


@dataclass(frozen=True)
class Example:
    """A job file, and the data set that is uploaded for it."""

    spec: str
    dataset: str
    file: str


EXAMPLES = (Example("digits.yaml", "digits", "digits.csv"), Example("kjv_gpt.yaml", "kjv", "kjv.txt"))


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave the stack running at the end.")] = False,
    state_dir: Annotated[Path, typer.Option(help="State directory of the demo's stack.")] = Path(".stoker/demo"),
    progress: emit.ProgressOption = "auto",
) -> None:
    """Train a classifier and a small GPT through the whole system.

    Starts a stack, uploads two data sets, trains two jobs, downloads and verifies their best checkpoints, and predicts with them.
    """
    began = time.monotonic()
    root = planes()
    require("server", "worker", "local", wanted="local")
    files = StackFiles.at(state_dir)
    with _stack(files, keep) as client:
        data = _data(client, root, files.root / "data")
        jobs = [_submit(client, root / "examples" / example.spec) for example in EXAMPLES]
        ended = follow_all(client, jobs, progress, LIMIT)
        for job in ended:
            say(sentence(job))
        if not all(job.state == "succeeded" for job in ended):
            raise Failure(_story(client, ended), f"read the logs of the stack in {files.root}/logs")
        models = [client.download(job.id, "best", files.root / "models" / job.id) for job in ended]
        say(f"downloaded and verified {', '.join(str(model) for model in models)}")
        code = _use(root, data, models, _loss(ended[1]))
        _next(client, ended, files, keep, time.monotonic() - began)
    raise typer.Exit(code)


@contextmanager
def _stack(files: StackFiles, keep: bool) -> Iterator[Client]:
    """A stack for the demo. One that runs in this state directory is used and left running."""
    for name in ("STOKER_DATABASE_URL", "STOKER_REDIS_URL", "STOKER_BLOB_URL", "STOKER_PORT", "STOKER_HOST"):
        os.environ.pop(name, None)  # the demo shows what comes without any of them
    here = not control.status(files).running
    if here:
        say("starting broker, server and worker")
        say(f"ready at {control.detach(files, ['--state-dir', str(files.root), '--worker', 'demo']).url}")
    try:
        config = load_config(environment={"STOKER_STATE_DIR": str(files.root)})
        with Client(config.url.value, config.key.value, "default") as client:
            yield client
    finally:
        if here and not keep:
            control.stop(files)


def _data(client: Client, root: Path, folder: Path) -> Path:
    """Both data sets from their packages, uploaded; nothing is sent a second time."""
    _run([sys.executable, str(root / "examples" / "demo_data.py"), str(folder)], "make the data sets")
    for example in EXAMPLES:
        made = client.upload(example.dataset, folder / example.file)
        say(f"data set {made.name}@{made.version}  {words.size(made.bytes)}")
    return folder


def _submit(client: Client, path: Path) -> JobView:
    job = client.submit(source.read(path).value)
    say(f"submitted {path.name} as {label(job)}")
    return job


def _use(root: Path, data: Path, models: list[Path], loss: float) -> int:
    """The models in another process, which knows their folders and nothing of the server. Its exit code."""
    say("")
    env = {**with_planes(os.environ), "OMP_NUM_THREADS": "2"}
    command = [sys.executable, str(root / "examples" / "demo_use.py"), str(data), *map(str, models), repr(loss)]
    return subprocess.run(command, env=env, check=False).returncode


def _loss(job: JobView) -> float:
    """Held-out loss in nats per token: of the test split where there is one."""
    value = number(job.metrics.get("test/loss", job.metrics.get("validation/loss")))
    if value is None:
        raise Failure(f"{label(job)} reported no held-out loss")
    return value


def _next(client: Client, jobs: list[JobView], files: StackFiles, keep: bool, seconds: float) -> None:
    say("")
    for job in jobs:
        shown = {k: v for k, v in job.metrics.items() if k.startswith(("test/", "validation/"))}
        say(f"{label(job)}: " + "  ".join(f"{k} {words.measure(v)}" for k, v in sorted(shown.items())))
    say(f"done in {words.duration(seconds)}")
    if keep:
        at = f"STOKER_STATE_DIR={files.root} stoker"
        say(f"  look around: {at} ls    {at} metrics {jobs[0].id}    {at} logs {jobs[1].id}")
        say(f"  stop it:     stoker up --state-dir {files.root} --stop")
    else:
        say("  next: stoker up --detach && stoker init; or `stoker demo --keep`, which leaves the stack running")


def _story(client: Client, jobs: list[JobView]) -> str:
    return "\n".join(f"{label(job)} {job.state}\n{client.logs(job.id, tail=20)}" for job in jobs if job.state != "succeeded")


def _run(command: list[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        raise Failure(f"could not {what}: {''.join(last)}", "install the packages that it needs: pip install 'stoker[local]'")
