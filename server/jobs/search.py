"""Filters of a list of jobs: `state= name= label.k=v project= parent= since= metric.<key><op>=value archived=`."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, exists, select

from server.auth import Principal
from server.errors import Refusal, problem
from server.jobs.store import JOBS, LABELS, METRICS, SUMMARY
from stoker.errors import Finding
from stoker.spec.base import NAME_PATTERN
from stoker.status import TRANSITIONS

_METRIC = re.compile(r"metric\.([a-z]+/[A-Za-z0-9_@.-]{1,96})(>=|<=|==|!=|>|<|)", re.ASCII)
_LABEL = re.compile(r"label\.([A-Za-z0-9][A-Za-z0-9._/-]{0,63})", re.ASCII)
_NAME = re.compile(NAME_PATTERN, re.ASCII)
_PAGING = ("limit", "after")


def search(who: Principal, items: Iterable[tuple[str, str]]) -> Select[Any]:
    """The query for the parameters of a list, without order and limit. Raises 422 for an unknown parameter or a malformed value."""
    query = select(*SUMMARY)
    states: list[str] = []
    archived = False
    if who.project is not None:
        query = query.where(JOBS.c.project == who.project)
    for name, value in items:
        match name:
            case "state":
                states += _states(value)
            case "archived":
                archived = _flag(value)
            case "name" | "project":
                query = query.where(JOBS.c[name] == _name(name, value))
            case "parent":
                query = query.where(JOBS.c.parent_id == value[:64])
            case "since":
                query = query.where(JOBS.c.created_at >= _time(value))
            case _ if name not in _PAGING:
                query = query.where(_of_job(name, value))
    if states:
        query = query.where(JOBS.c.state.in_(states))
    return query if archived else query.where(JOBS.c.archived_at.is_(None))


def _of_job(name: str, value: str) -> ColumnElement[bool]:
    if matched := _LABEL.fullmatch(name):
        mine = (LABELS.c.job_id == JOBS.c.id) & (LABELS.c.key == matched[1]) & (LABELS.c.value == value[:128])
        return exists().where(mine)
    if matched := _METRIC.fullmatch(name):
        mine = (METRICS.c.job_id == JOBS.c.id) & (METRICS.c.key == matched[1])
        op = matched[2] + "=" if value.startswith("=") else matched[2]  # `a<==1`, unescaped, arrives split at its first `=`
        return exists().where(mine & _compared(op, _number(value.removeprefix("="))))
    hint = "filters are state, name, label.<key>, project, parent, since, metric.<key><op>, archived, limit, after"
    raise _refused("", "unknown-filter", "unknown filter", hint)


def _compared(op: str, number: float) -> ColumnElement[bool]:
    column = METRICS.c.value
    match op:
        case ">=":
            return column >= number
        case "<=":
            return column <= number
        case ">":
            return column > number
        case "<":
            return column < number
        case "!=":
            return column != number
        case _:
            return column == number


def _states(value: str) -> list[str]:
    states = value.split(",")
    if any(s not in TRANSITIONS for s in states):
        raise _refused("/state", "unknown-state", "unknown state", "states are " + ", ".join(TRANSITIONS))
    return states


def _flag(value: str) -> bool:
    if value not in ("true", "false"):
        raise _refused("/archived", "not-a-flag", "neither true nor false", "write archived=true or archived=false")
    return value == "true"


def _name(field: str, value: str) -> str:
    if not _NAME.fullmatch(value):
        raise _refused("/" + field, "not-a-name", "not a name", f"names match {NAME_PATTERN}")
    return value


def _number(value: str) -> float:
    try:
        number = float(value) if len(value) <= 40 and value.isascii() and "_" not in value else float("nan")
    except ValueError:
        number = float("nan")
    if number != number or abs(number) == float("inf"):
        raise _refused("/metric", "not-a-number", "not a finite number", "write metric.validation/accuracy>==0.9")
    return number


def _time(value: str) -> datetime:
    try:
        time = datetime.fromisoformat(value) if len(value) <= 40 else None
    except ValueError:
        time = None
    if time is None:
        raise _refused("/since", "not-a-time", "not an RFC 3339 time", "write since=2026-01-31T12:00:00Z")
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def _refused(pointer: str, code: str, message: str, hint: str) -> Refusal:
    error = Finding(pointer=pointer, code=code, message=message, hint=hint)
    return problem(422, "validation_failed", "A filter of the list cannot be read.", errors=[error])
