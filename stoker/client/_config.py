"""Where the server is and as whom to ask: argument, environment, nearest project file, user file, in this order.

A key in a file is sent only to the URL that the same file names: a cloned project's `stoker.toml` may choose another server,
but it never gets a key that was meant for somebody else.
"""

import os
import stat
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from stoker.errors import ConfigError

KNOWN = frozenset({"url", "key", "project"})


@dataclass(frozen=True)
class Setting:
    value: str | None
    origin: str
    """Where it came from, for people: `--url`, `STOKER_URL`, a path."""


@dataclass(frozen=True)
class Config:
    url: Setting
    key: Setting
    project: Setting

    def require_url(self) -> str:
        """Raises ConfigError when no source names a server."""
        if self.url.value is None:
            raise ConfigError(
                "no server is configured\n  help: `stoker up --detach` starts one here; or set STOKER_URL, or `url` in stoker.toml"
            )
        return self.url.value


@dataclass(frozen=True)
class Source:
    """One file's settings."""

    path: Path
    values: Mapping[str, str]


def load_config(
    url: str | None = None,
    key: str | None = None,
    project: str | None = None,
    *,
    directory: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Config:
    """The settings in force. Raises ConfigError for a file that cannot be read or has unknown keys."""
    env = os.environ if environment is None else environment
    sources = list(read_sources(directory or Path.cwd(), env))
    where = _pick("url", url, env, sources)
    return Config(
        Setting(_checked_url(where), where.origin), _key(key, env, sources, where.value), _pick("project", project, env, sources)
    )


def read_sources(directory: Path, env: Mapping[str, str]) -> Iterator[Source]:
    """Files that exist, the strongest first."""
    for path in candidates(directory, env):
        if path.is_file():
            yield Source(path, _read(path))


def candidates(directory: Path, env: Mapping[str, str]) -> Iterator[Path]:
    """The state directory's file when it is named, each project directory upwards, the user's file."""
    if state := env.get("STOKER_STATE_DIR"):
        yield Path(state) / "config.toml"
    for folder in (directory, *directory.parents):
        yield folder / "stoker.toml"
        yield folder / ".stoker" / "config.toml"
    yield user_file(env)


def user_file(env: Mapping[str, str]) -> Path:
    """`~/.config/stoker/config.toml`, or below XDG_CONFIG_HOME."""
    base = env.get("XDG_CONFIG_HOME") or os.path.join(env.get("HOME") or os.path.expanduser("~"), ".config")
    return Path(base) / "stoker" / "config.toml"


def is_exposed(path: Path) -> bool:
    """Whether others than the owner may read a file."""
    return bool(path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))


def _pick(name: str, given: str | None, env: Mapping[str, str], sources: list[Source]) -> Setting:
    variable = f"STOKER_{name.upper()}"
    if given:
        return Setting(given, "argument")
    if env.get(variable):
        return Setting(env[variable], variable)
    for source in sources:
        if name in source.values:
            return Setting(source.values[name], str(source.path))
    return Setting(None, "nowhere")


def _key(given: str | None, env: Mapping[str, str], sources: list[Source], url: str | None) -> Setting:
    if given or env.get("STOKER_KEY"):
        return _pick("key", given, env, [])
    fitting = [source for source in sources if url and source.values.get("url", "").rstrip("/") == url.rstrip("/")]
    return _pick("key", None, {}, fitting)


def _checked_url(setting: Setting) -> str | None:
    if setting.value is None:
        return None
    parts = urlsplit(setting.value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"not a server address: {setting.value!r} (from {setting.origin}); it looks like http://host:7071")
    return setting.value.rstrip("/")


def _read(path: Path) -> dict[str, str]:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    unknown = sorted(set(data) - KNOWN)
    if unknown:
        raise ConfigError(f"{path}: unknown key `{unknown[0]}`; known are {', '.join(sorted(KNOWN))}")
    wrong = [name for name, value in data.items() if not isinstance(value, str)]
    if wrong:
        raise ConfigError(f"{path}: `{wrong[0]}` must be text")
    return data
