"""What stands at the other end of our output, and what that end wants."""

import os
import sys
from functools import cache
from typing import Literal, TextIO

from rich.console import Console

Progress = Literal["auto", "plain", "none"]


@cache
def out() -> Console:
    """stdout: data. Color and tables only on a terminal."""
    return _console(sys.stdout)


@cache
def err() -> Console:
    """stderr: progress and messages."""
    return _console(sys.stderr)


def _console(stream: TextIO) -> Console:
    person = is_person(stream)
    # A pipe has no width: nothing is ever cut or wrapped there.
    return Console(
        file=stream,
        force_terminal=person,
        no_color=True if os.environ.get("NO_COLOR") else None,
        width=None if person else 10_000,
        highlight=False,
        soft_wrap=not person,
        emoji=False,
        markup=False,
    )


def is_person(stream: TextIO) -> bool:
    """Whether a terminal that can move its cursor is attached. CI machines have terminals that nobody looks at."""
    return stream.isatty() and os.environ.get("TERM") != "dumb" and not in_ci()


def in_ci() -> bool:
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


def wants_table() -> bool:
    return is_person(sys.stdout)


def wants_color() -> bool:
    return is_person(sys.stdout) and not os.environ.get("NO_COLOR")


def is_live(progress: Progress) -> bool:
    """Whether progress is drawn in place on stderr; otherwise it is one line per change, or nothing."""
    return progress == "auto" and is_person(sys.stderr)


def say(text: str) -> None:
    """A message for people."""
    print(text, file=sys.stderr, flush=True)


def language() -> str:
    """STOKER_LANG, else the locale's language: `zh` or `en`."""
    tag = os.environ.get("STOKER_LANG") or os.environ.get("LC_ALL") or os.environ.get("LANG") or "en"
    return "zh" if tag.lower().startswith("zh") else "en"
