"""The client of a command, and the job that a reference means."""

from stoker.cli.failure import Failure
from stoker.client import Client
from stoker.errors import NotFound
from stoker.views import JobView

REFERENCE = "Job: id, unique prefix of an id, name (the newest of that name), or @last."
SEARCHED = 2000
"""Newest jobs among which a prefix is looked up."""


def connect(timeout: float = 30.0) -> Client:
    """A client with the settings in force. Raises ConfigError without a server."""
    return Client(timeout=timeout)


def resolve(client: Client, reference: str) -> JobView:
    """The job that is meant. Raises Failure (10 when there is none, 2 when there are several)."""
    if reference == "@last":
        newest = client.jobs_page(limit=1).data
        if not newest:
            raise Failure("there are no jobs yet", "`stoker submit job.yaml` makes one", code=10)
        return client.job(newest[0].id)
    if not reference.startswith("job_"):
        named = client.jobs_page(name=reference, limit=1).data
        if not named:
            raise Failure(f"no job is named {reference!r}", "`stoker ls` lists what there is", code=10)
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
        raise Failure(f"no job {prefix!r}", "`stoker ls` lists what there is", code=10)
    if len(found) > 1:
        raise Failure(f"{prefix!r} is the beginning of several ids", f"for example {found[0].id} and {found[1].id}", code=2)
    return found[0]
