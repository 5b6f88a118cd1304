"""The first keys of a stack: one for its user, one for its worker. Made once, kept in files that only the user may read."""

import asyncio
import re
from pathlib import Path

from stoker.cli.failure import Failure
from stoker.cli.stack.files import StackFiles, write_private
from stoker.cli.stack.programs import module

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


async def ensure(files: StackFiles, env: dict[str, str], url: str) -> str:
    """Make the keys that are missing and write the clients' config; the worker's key."""
    user_now, worker_now = read_user_key(files), _read(files.worker_key)
    user, worker = await asyncio.gather(
        _keep(user_now) if user_now else create(env, files.root, "stoker-up", "read,submit,admin"),
        _keep(worker_now) if worker_now else create(env, files.root, "stoker-up-worker", "worker"),
    )
    write_private(files.worker_key, worker + "\n")
    write_private(
        files.config,
        f'# Written by `stoker up`; clients started below this directory\'s parent use it.\nurl = "{url}"\nkey = "{user}"\n',
    )
    return worker


def read_user_key(files: StackFiles) -> str | None:
    found = KEY.search(_read(files.config) or "")
    return found.group() if found else None


async def _keep(key: str) -> str:
    return key


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except OSError:
        return None
