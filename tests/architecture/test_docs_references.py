"""What a page names exists: linked pages and sections, files of the repository, `stoker` commands and options, `make` targets."""

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from stoker.cli.app import load
from stoker.cli.table import COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = sorted(page for pattern in ("*.md", "docs/**/*.md", "benchmarks/*.md") for page in ROOT.glob(pattern))
TREES = (
    "stoker/",
    "server/",
    "worker/",
    "tests/",
    "examples/",
    "docs/",
    "benchmarks/",
    "images/",
    "migrations/",
    "openapi/",
    "tools/",
)
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def wrong_on_pages(check: Callable[[Path], Iterable[str]]) -> dict[str, list[str]]:
    """What a check complains about, by page."""
    found = {str(page.relative_to(ROOT)): list(check(page)) for page in PAGES}
    return {page: complaints for page, complaints in found.items() if complaints}


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def sections(page: Path) -> set[str]:
    """The anchors of a page as GitHub names them."""
    titles = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(page: Path) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        name, _, section = target.partition("#")
        at = page.parent / name if name else page
        if not re.match(r"\w+:", target) and (not at.exists() or (section and section not in sections(at))):
            yield target


def missing_files(page: Path) -> Iterator[str]:
    """Paths in backticks that start in a folder of the repository; `*` and `<name>` match any name."""
    for path in re.findall(r"`([\w./<>*-]+)`", page.read_text()):
        if path.startswith(TREES) and not any(ROOT.glob(re.sub(r"<\w+>", "*", path.rstrip("/")))):
            yield path


def calls(page: Path, program: str) -> list[list[str]]:
    """The words after a program's name, in backticks or at the start of a line."""
    found = re.findall(rf"(?:`|^ *){program} ([a-z][^`\n#|&]*)", page.read_text(), flags=re.MULTILINE)
    return [call.split() for call in found]


def unknown_in(words: list[str]) -> str | None:
    """The first command or option in a call of `stoker` that does not exist."""
    if words[0] not in COMMANDS:
        return words[0]
    command: Any = load(words[0])
    inner = getattr(command, "commands", {})
    if inner and words[1] not in inner:
        return words[1]
    command = inner[words[1]] if inner else command
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return next((word for word in words if word.startswith("-") and word.split("=")[0] not in options), None)


def unknown_commands(page: Path) -> Iterator[str]:
    return (wrong for words in calls(page, "stoker") if (wrong := unknown_in(words)))


def unknown_targets(page: Path) -> Iterator[str]:
    return (words[0] for words in calls(page, "make") if words[0] not in TARGETS)


def test_links_resolve() -> None:
    assert wrong_on_pages(broken_links) == {}


def test_files_exist() -> None:
    assert wrong_on_pages(missing_files) == {}


def test_commands_and_options_exist() -> None:
    assert wrong_on_pages(unknown_commands) == {}


def test_make_targets_exist() -> None:
    assert wrong_on_pages(unknown_targets) == {}


def test_what_does_not_exist_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    links = "[here](#a-title) [gone](gone.md) [section](#none)"
    page.write_text(f"# A title\n\n{links} `worker/gone.py` `worker/trainer/loop.py`\n\n    stoker ls --json\n    make nothing\n")
    assert list(broken_links(page)) == ["gone.md", "#none"]
    assert list(missing_files(page)) == ["worker/gone.py"]
    assert list(unknown_targets(page)) == ["nothing"]
    assert calls(page, "stoker") == [["ls", "--json"]]
    calls_and_faults = {"ls --json": None, "events JOB": "events", "datasets upload --none": "--none", "datasets none": "none"}
    assert {call: unknown_in(call.split()) for call in calls_and_faults} == calls_and_faults
