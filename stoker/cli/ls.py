"""`stoker ls`."""

import re
from dataclasses import replace
from itertools import islice
from typing import Annotated

import typer

from stoker.cli import emit, words
from stoker.cli.connection import connect
from stoker.cli.failure import Failure
from stoker.cli.terminal import say, wants_table
from stoker.cli.when import moment
from stoker.views import JobView


def _progress(job: JobView) -> str:
    share = job.progress.fraction
    if share is None:
        return f"step {job.progress.step}" if job.progress.step else "–"
    return f"{words.bar(share, 5)} {share:4.0%}"


def _objective(job: JobView) -> str:
    found = job.objective
    return "–" if found is None or found.best is None else f"{words.measure(found.best)} {found.key}"


def _ran(job: JobView) -> str:
    return words.duration(words.between(job.started_at, job.finished_at))


JOBS: emit.Shape[JobView] = emit.Shape(
    id=lambda job: job.id,
    columns=[
        emit.Column("ID", lambda job: job.id),
        emit.Column("NAME", lambda job: job.name or "–", gives_way=True),
        emit.Column("STATE", lambda job: job.state),
        emit.Column("PROGRESS", _progress),
        emit.Column("BEST", _objective, gives_way=True),
        emit.Column("RAN", _ran, right=True, may_go=True),
        emit.Column("AGE", lambda job: words.age(job.created_at), right=True),
    ],
    nothing="no jobs; `stoker submit job.yaml` makes one",
)
METRIC = re.compile(r"[^\s<>=!]+\s*(>=|<=|==|!=|>|<)\s*[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")


def ls(
    state: Annotated[list[str] | None, typer.Option("--state", "-s", help="Only these states; repeatable.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Only jobs of this name.")] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", "-l", metavar="K=V", help="Only with this label; repeatable.")
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", metavar="KEY>=VALUE", help="Only with such a metric; repeatable.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="Only created after: 2h, 3d, a date, RFC 3339.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Largest number of jobs to list.")] = 20,
    archived: Annotated[bool, typer.Option("--archived", help="List archived jobs too.")] = False,
    quiet: emit.Quiet = False,
    fields: emit.Fields = None,
) -> None:
    """List jobs, newest first.

    stoker ls --state running --state queued
    stoker ls --label team=vision --metric 'validation/accuracy>=0.9' -q
    """
    for text in metric or ():
        if not METRIC.fullmatch(text.strip()):
            raise Failure(f"not a condition: {text!r}", "write KEY OP NUMBER, for example 'validation/accuracy>=0.9'", code=2)
    filters = {
        "state": state or (),
        "name": name,
        "labels": pairs(label),
        "metrics": metric or (),
        "since": moment(since) if since else None,
        "archived": archived or None,
    }
    shape = replace(JOBS, nothing="no such jobs") if any(filters.values()) else JOBS
    with connect() as client:
        found = client.jobs(**filters, limit=min(limit + 1, 500))
        if quiet or fields is not None or not wants_table():
            emit.many(islice(found, limit), shape, quiet=quiet, fields=fields)
            return
        shown = list(islice(found, limit + 1))
        emit.many(shown[:limit], shape)
        if len(shown) > limit:
            say(f"  more jobs: stoker ls --limit {limit * 5}")


def pairs(texts: list[str] | None) -> dict[str, str]:
    """`k=v` texts as a mapping. Raises Failure for one without `=`."""
    out = {}
    for text in texts or ():
        key, found, value = text.partition("=")
        if not found or not key:
            raise Failure(f"not a label: {text!r}", "labels are written key=value", code=2)
        out[key] = value
    return out
