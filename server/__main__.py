"""`python -m server [serve|migrate|create-key|openapi]`."""

import argparse
import logging
import sys
from pathlib import Path

from server.settings import Settings


def main(arguments: list[str] | None = None) -> int:
    asked = _parser().parse_args(arguments)
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False  # no line shows them
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        settings = _settings(asked)
        match asked.command:
            case "migrate":
                _migrate(settings)
            case "create-key":
                _create_key(settings, asked)
            case "openapi":
                _openapi(settings, asked.folder)
            case _:
                _serve(settings)
    except ValueError as error:
        print(f"stoker server: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m server", description="Stoker's server. Settings come from STOKER_* variables."
    )
    commands = parser.add_subparsers(dest="command")
    for target in (parser, commands.add_parser("serve", help="migrate the database and serve (the default)")):
        target.add_argument("--host", default=argparse.SUPPRESS)
        target.add_argument("--port", type=int, default=argparse.SUPPRESS)
        target.add_argument("--behind-proxy", action="store_true", default=argparse.SUPPRESS, dest="behind_proxy")
    commands.add_parser("migrate", help="bring the database to this version's schema")
    key = commands.add_parser("create-key", help="make an API key and print it; it is not shown again")
    key.add_argument("--name", required=True)
    key.add_argument("--scopes", required=True, help="read,submit,admin,worker")
    key.add_argument("--project", help="bind it to one project; else it serves every project")
    key.add_argument("--days", type=int, help="days it is valid")
    openapi = commands.add_parser("openapi", help="write openapi.json and job.schema.json")
    openapi.add_argument("folder", nargs="?", type=Path, default=Path("openapi"))
    return parser


def _settings(asked: argparse.Namespace) -> Settings:
    chosen = {k: v for k, v in vars(asked).items() if k in ("host", "port", "behind_proxy")}
    return Settings(**chosen)


def _migrate(settings: Settings) -> None:
    from server.db.migrate import migrate

    settings.prepare_state_dir()
    migrate(settings.database)


def _create_key(settings: Settings, asked: argparse.Namespace) -> None:
    from server.db import Database
    from server.tokens.service import create, expiry

    _migrate(settings)
    scopes = [s.strip() for s in asked.scopes.split(",") if s.strip()]
    db = Database(settings.database, readers=1)
    try:
        made = db.write_now(
            lambda s: create(
                s,
                settings.pepper,
                name=asked.name,
                scopes=scopes,
                project=asked.project,
                expires_at=expiry(asked.days, settings.key_days),
            )
        )
    finally:
        db.close()
    print(made.key)


def _openapi(settings: Settings, folder: Path) -> None:
    from server.app import create_app
    from server.openapi import write

    for path in write(create_app(settings), folder):
        print(path)


def _serve(settings: Settings) -> None:
    """Refuse what is unsafe, migrate, then listen."""
    from server.serve import serve

    settings.check()
    _ = settings.pepper
    _migrate(settings)
    serve(settings)


if __name__ == "__main__":
    sys.exit(main())
