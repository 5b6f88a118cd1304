"""`stoker doctor`: what is wrong with this machine or its connection, each with its remedy."""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Literal

import httpx
import typer

from stoker.cli import words
from stoker.cli.stack.planes import NEEDS, missing
from stoker.cli.terminal import out, wants_table
from stoker.client import Client, Config, load_config
from stoker.client._config import is_exposed, read_sources
from stoker.errors import AuthError, ConfigError, StokerError

SKEW = 30.0
"""Difference between two clocks, in seconds, above which times are misleading."""
SPACE = 2 << 30
"""Bytes below which checkpoints soon do not fit."""


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    check: str
    state: Literal["ok", "warning", "error"]
    detail: str
    remedy: str | None = None


def doctor(as_json: Annotated[bool, typer.Option("--json", help="As JSON lines.")] = False) -> None:
    """Check this machine and its connection to the server; exits 1 when something is broken."""
    failed = False
    for finding in findings():
        failed = failed or finding.state == "error"
        if as_json or not wants_table():
            print(json.dumps(asdict(finding), ensure_ascii=False))
            continue
        mark, tone = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "error": ("✗", "red")}[finding.state]
        out().print(f"{mark} {finding.check:<10} {finding.detail}", style=tone)
        if finding.remedy:
            out().print(f"             help: {finding.remedy}")
    if failed:
        raise typer.Exit(1)


def findings() -> Iterator[Finding]:
    """All checks, the local ones first."""
    yield _python()
    yield from _packages()
    yield _state_dir()
    yield _space()
    try:
        config = load_config()
    except ConfigError as error:
        yield Finding("config", "error", str(error), "correct or remove that file")
        return
    yield from _config(config)
    if config.url.value is not None:
        yield from _server(config.url.value)


def _python() -> Finding:
    text = f"{sys.version.split()[0]} at {sys.executable}"
    if sys.prefix == sys.base_prefix:
        return Finding("python", "warning", text, "use a virtual environment: python -m venv .venv")
    return Finding("python", "ok", text)


def _packages() -> Iterator[Finding]:
    yield Finding("stoker", "ok", _version("stoker") or "from a checkout")
    for extra, names in NEEDS.items():
        if lacking := missing(extra):
            yield Finding(
                f"[{extra}]",
                "warning",
                f"not installed: {', '.join(lacking)}",
                f"to run it here: pip install 'stoker[{extra}]'",
            )
        else:
            yield Finding(f"[{extra}]", "ok", ", ".join(f"{name} {_version(name) or '?'}" for name in names))


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _state_dir() -> Finding:
    path = Path(os.environ.get("STOKER_STATE_DIR") or ".stoker").resolve()
    there = path if path.exists() else path.parent
    if not os.access(there, os.W_OK):
        return Finding("state", "error", f"{path} cannot be written", "set STOKER_STATE_DIR to a folder that you can write to")
    if path.exists() and path.stat().st_mode & 0o077:
        return Finding("state", "warning", f"{path} can be read by others", f"chmod 700 {path}")
    return Finding("state", "ok", f"{path}{'' if path.exists() else ' (created on first use)'}")


def _space() -> Finding:
    path = Path(os.environ.get("STOKER_STATE_DIR") or ".stoker").resolve()
    while not path.exists():
        path = path.parent
    free = shutil.disk_usage(path).free
    if free < SPACE:
        return Finding("disk", "warning", f"{words.size(free)} free at {path}", "free some space for checkpoints")
    return Finding("disk", "ok", f"{words.size(free)} free")


def _config(config: Config) -> Iterator[Finding]:
    for source in read_sources(Path.cwd(), os.environ):
        if "key" in source.values and is_exposed(source.path):
            yield Finding("config", "warning", f"{source.path} holds a key and others can read it", f"chmod 600 {source.path}")
    if config.url.value is None:
        yield Finding("url", "error", "no server is configured", "`stoker up --detach` starts one here; or set STOKER_URL")
        return
    yield Finding("url", "ok", f"{config.url.value} (from {config.url.origin})")
    if config.key.value is None:
        yield Finding("key", "error", "no key for this server", "set STOKER_KEY, or put url and key into one config file")
    else:
        yield Finding("key", "ok", f"{config.key.value[:12]}… (from {config.key.origin})")


def _server(url: str) -> Iterator[Finding]:
    began = time.time()
    try:
        answer = httpx.get(f"{url}/readyz", timeout=5, trust_env=False)
    except httpx.HTTPError as error:
        yield Finding("server", "error", f"no answer: {error}", "is it running? `stoker up --status`; is the address right?")
        return
    took = time.time() - began
    if answer.status_code != 200:
        yield Finding("server", "error", f"not ready: {answer.status_code} {answer.text[:200]}", "read the server's log")
        return
    yield Finding("server", "ok", f"ready, answered in {took * 1000:.0f} ms")
    yield from _clock(answer, began + took / 2)
    yield from _with_key()


def _clock(answer: httpx.Response, now: float) -> Iterator[Finding]:
    if "date" not in answer.headers:
        return
    skew = parsedate_to_datetime(answer.headers["date"]).timestamp() + 0.5 - now
    if abs(skew) > SKEW:
        yield Finding("clock", "warning", f"{skew:+.0f} s from the server's", "set this machine's clock (NTP)")
    else:
        yield Finding("clock", "ok", "agrees with the server's")


def _with_key() -> Iterator[Finding]:
    with Client(retries=0, timeout=5) as client:
        checks: list[tuple[str, Callable[[], Finding]]] = [
            ("version", lambda: _versions(client)),
            ("workers", lambda: _workers(client)),
        ]
        for name, check in checks:
            try:
                yield check()
            except AuthError as error:
                yield Finding(
                    "key", "error", f"refused: {error}", "use a key of this server; `stoker up` writes one to .stoker/config.toml"
                )
                return
            except StokerError as error:
                yield Finding(name, "error", str(error), "read the server's log")


def _versions(client: Client) -> Finding:
    theirs, ours = str(client.version().get("version", "?")), _version("stoker") or "?"
    if theirs.split(".")[0] != ours.split(".")[0]:
        return Finding("version", "warning", f"server {theirs}, client {ours}", "install the same major version")
    return Finding("version", "ok", f"server {theirs}, client {ours}")


def _workers(client: Client) -> Finding:
    active = [worker for worker in client.workers() if worker.state == "active"]
    if not active:
        return Finding("workers", "error", "none is active: jobs will wait", "`stoker up`, or `stoker worker` on a machine")
    return Finding(
        "workers",
        "ok",
        ", ".join(f"{w.name} ({w.capacity.get('cpus')} CPUs, {len(w.capacity.get('gpus') or ())} GPUs)" for w in active),
    )
