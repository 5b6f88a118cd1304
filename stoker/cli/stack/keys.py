"""The first keys of a stack: one for its user, one for its worker. Made once, kept in files that only the user may read."""

import asyncio
import re
from pathlib import Path

import httpx

from stoker.cli.failure import Failure
from stoker.cli.stack.files import StackFiles, write_private
from stoker.cli.stack.planes import module

KEY = re.compile(r"\bstk_[A-Za-z0-9_-]{8,}")


async def run(name: str, *arguments: str, env: dict[str, str], cwd: Path) -> str:
    """What a server command prints.

    Raises Failure with its last words when it fails.
    """
    process = await asyncio.create_subprocess_exec(
        *module(name, *arguments),
        env=env,
        cwd=cwd,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    if process.returncode:
        words = "\n".join(err.decode(errors="replace").strip().splitlines()[-8:])
        raise Failure(f"`python -m {name} {' '.join(arguments)}` failed:\n{words}")
    return out.decode()


async def create(env: dict[str, str], cwd: Path, name: str, scopes: str) -> str:
    """A new key."""
    answer = KEY.search(await run("server", "create-key", "--name", name, "--scopes", scopes, env=env, cwd=cwd))
    if answer is None:
        raise Failure("the server made a key but did not print it")
    return answer.group()


async def ensure_user(files: StackFiles, env: dict[str, str], *, renew: bool = False) -> str:
    """The user's key, made when there is none (a server that is starting does not mind) or when it must be new."""
    key = None if renew else read_user_key(files)
    return key or await create(env, files.root, "stoker-up", "read,submit,admin")


async def ensure_worker(files: StackFiles, http: httpx.AsyncClient, *, renew: bool) -> str:
    """The worker's key. Raises Failure when the server does not make one."""
    key = None if renew else read_worker_key(files)
    if key is None:
        answer = await http.post("/v1/keys", json={"name": "stoker-up-worker", "scopes": ["worker"]})
        if answer.status_code != 201:
            raise Failure(f"the server did not make a key for the worker: {answer.status_code} {answer.text[:300]}")
        key = str(answer.json()["key"])
        write_private(files.worker_key, key + "\n")
    return key


def write_config(files: StackFiles, url: str, key: str) -> None:
    """What clients read that are started in the project: see `stoker.client._config`."""
    write_private(files.config, f'# Written by `stoker up`.\nurl = "{url}"\nkey = "{key}"\n')


def read_user_key(files: StackFiles) -> str | None:
    found = KEY.search(_read(files.config) or "")
    return found.group() if found else None


def read_worker_key(files: StackFiles) -> str | None:
    return _read(files.worker_key)


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except OSError:
        return None
