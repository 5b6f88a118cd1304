"""`stoker download`."""

from pathlib import Path
from typing import Annotated

import typer

from stoker.cli import emit, transfer
from stoker.cli.connection import PATIENT, Reference, connect, resolve
from stoker.cli.failure import Failure
from stoker.cli.outcome import label
from stoker.cli.terminal import say
from stoker.client import Client, Progress
from stoker.errors import NotFound
from stoker.views import JobView


def download(
    job: Reference = "@last",
    checkpoint: Annotated[str, typer.Option("--checkpoint", "-c", help="A step, best or last.")] = "best",
    artifact: Annotated[str | None, typer.Option("--artifact", "-a", help="Fetch this artifact instead.")] = None,
    to: Annotated[Path | None, typer.Option("--to", "-t", help="Folder (or file, for an artifact) to create.")] = None,
    progress: emit.ProgressOption = "auto",
) -> None:
    """Download and verify a checkpoint or an artifact; prints where it is.

    A download that was cut continues where it was. The folder appears only when every file has its SHA-256.
    """
    if checkpoint not in ("best", "last") and not checkpoint.isdecimal():
        raise Failure(f"no checkpoint {checkpoint!r}", "name a step, best or last", code=2)
    with connect(PATIENT) as client:
        found = resolve(client, job)
        with transfer.bar(artifact or f"{found.id} {checkpoint}", progress) as tell:
            if artifact is not None:
                place = client.download_artifact(found.id, artifact, to or Path(Path(artifact).name), progress=tell)
            else:
                place = _checkpoint(client, found, checkpoint, to, tell)
    say("verified")
    print(place)


def _checkpoint(client: Client, job: JobView, which: str, to: Path | None, tell: Progress | None) -> Path:
    try:
        return client.download(job.id, which, to, progress=tell)
    except NotFound:
        raise Failure(f"{label(job)} has no checkpoint {which}", f"`stoker checkpoints {job.id}` lists them", code=10) from None
