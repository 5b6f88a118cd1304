"""`stoker keys`."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from stoker.cli import emit, words
from stoker.cli.connection import connect
from stoker.cli.failure import Failure
from stoker.cli.terminal import say, wants_table
from stoker.views import KeyView

app = typer.Typer(no_args_is_help=True, help="Create, list and revoke API keys.", add_completion=False)


def _state(key: KeyView) -> str:
    expired = key.expires_at is not None and key.expires_at <= datetime.now(UTC)
    return "revoked" if key.revoked_at else "expired" if expired else "valid"


def _ends(key: KeyView) -> str:
    left = None if key.expires_at is None else (key.expires_at - datetime.now(UTC)).total_seconds()
    return "never" if left is None else f"in {words.coarse(left)}" if left > 0 else "–"


KEYS: emit.Shape[KeyView] = emit.Shape(
    id=lambda key: key.id,
    columns=[
        emit.Column("ID", lambda key: key.id),
        emit.Column("NAME", lambda key: key.name, gives_way=True),
        emit.Column("PREFIX", lambda key: key.prefix, may_go=True),
        emit.Column("PROJECT", lambda key: key.project or "every", may_go=True),
        emit.Column("SCOPES", lambda key: " ".join(key.scopes)),
        emit.Column("ENDS", _ends, right=True),
        emit.Column("STATE", _state),
    ],
    nothing="no keys",
)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    scope: Annotated[
        list[str] | None, typer.Option("--scope", "-s", help="read, submit, admin or worker; repeatable; unset, read and submit.")
    ] = None,
    project: Annotated[str | None, typer.Option("--for-project", help="Only this project; else every one.")] = None,
    days: Annotated[int | None, typer.Option("--days", min=1, help="Days until it expires; unset, the server's default.")] = None,
    fields: emit.Fields = None,
) -> None:
    """Create a key and print it; it is not shown again."""
    with connect() as client:
        made = client.create_key(name, scope or ["read", "submit"], project=project, days=days)
    if wants_table() and fields is None:
        say(f"{made.id} {' '.join(made.scopes)}; store it now, it is not shown again:")
        print(made.key)
    else:
        emit.one(made, lambda: None, fields=fields)


@app.command()
def ls(quiet: emit.Quiet = False, fields: emit.Fields = None) -> None:
    """List keys, without their secrets."""
    with connect() as client:
        emit.many(client.keys(), KEYS, quiet=quiet, fields=fields)


@app.command()
def revoke(key: Annotated[str, typer.Argument(help="Id or prefix of a key.")]) -> None:
    """Revoke a key. The server refuses it from now on."""
    with connect() as client:
        found = [
            k
            for k in client.keys()  # noqa: SIM118  reason: a method of the client, not a mapping
            if key in (k.id, k.prefix)
        ]
        if not found:
            raise Failure(f"no key {key!r}", "`stoker keys ls` lists them", code=10)
        client.revoke_key(found[0].id)
    say(f"revoked {found[0].id} ({found[0].name})")
