"""The client of a command, and the job that a reference means."""

import re
from typing import Annotated

import typer

from stoker.cli.failure import Failure
from stoker.client import Client
from stoker.errors import NotFound, StokerError
from stoker.views import JobView

REFERENCE = "Job: id, unique prefix of an id, name (the newest of that name), or @last."
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
SEARCHED = 2000
"""Newest jobs among which a prefix is looked up."""
QUICK, PATIENT = 2, 5
"""Further tries of a request: for a look, about a second; for work that must outlast a restart of the server, several."""


def connect(retries: int = QUICK) -> Client:
    """A client with the settings in force. Raises ConfigError without a server."""
    return Client(retries=retries)


def known(incomplete: str) -> list[str]:
    """References that a shell may complete: names and ids of the newest jobs. Silence when the server cannot say."""
    try:
        with Client(timeout=2, retries=0) as client:
            jobs = client.jobs_page(limit=50).data
    except StokerError:
        return []
    found = dict.fromkeys(["@last", *(job.name for job in jobs if job.name), *(job.id for job in jobs)])
    return [reference for reference in found if reference.startswith(incomplete)]


Reference = Annotated[str, typer.Argument(metavar="JOB", help=REFERENCE, autocompletion=known)]
References = Annotated[list[str], typer.Argument(metavar="JOB", help=REFERENCE, autocompletion=known)]


def resolve(client: Client, reference: str) -> JobView:
    """The job that is meant. Raises Failure (10 when there is none, 2 when there are several or it cannot be a job)."""
    if reference == "@last":
        newest = client.jobs_page(limit=1).data
        if not newest:
            raise Failure("no jobs yet", "`stoker submit job.yaml` creates one", code=10)
        return client.job(newest[0].id)
    if NAME.fullmatch(reference) is None:
        raise Failure(f"{reference!r} is not a job reference", "give an id, the beginning of one, a name, or @last", code=2)
    if not reference.startswith("job_"):
        named = client.jobs_page(name=reference, limit=1).data
        if not named:
            raise Failure(f"no job is named {reference!r}", "`stoker ls` lists jobs", code=10)
        return client.job(named[0].id)
    try:
        return client.job(reference)
    except NotFound:
        return _by_prefix(client, reference)


def _by_prefix(client: Client, prefix: str) -> JobView:
    found: list[JobView] = []
    for number, job in enumerate(client.jobs(limit=500)):
        if job.id.startswith(prefix):
            found.append(job)
        if number >= SEARCHED or len(found) > 1:
            break
    if not found:
        raise Failure(f"no job {prefix!r}", "`stoker ls` lists jobs", code=10)
    if len(found) > 1:
        raise Failure(f"{prefix!r} is the beginning of several ids", f"for example {found[0].id} and {found[1].id}", code=2)
    return client.job(found[0].id)
