"""Keyset pages: `?limit&after=<id>` → `{data, has_more, next}`."""

from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

from fastapi import Query

from stoker.views import Page

R = TypeVar("R")
V = TypeVar("V")

Limit = Annotated[int, Query(ge=1, le=500, description="Entries on a page.")]
After = Annotated[str | None, Query(max_length=200, pattern=r"^[A-Za-z0-9_.@:-]+$", description="`next` of the page before.")]


def page(rows: Sequence[R], limit: int, key: Callable[[R], str], view: Callable[[R], V]) -> Page[V]:
    """A page of at most `limit` entries out of rows fetched with `LIMIT limit + 1`."""
    shown = rows[:limit]
    more = len(rows) > limit
    return Page(data=[view(r) for r in shown], has_more=more, next=key(shown[-1]) if more else None)
