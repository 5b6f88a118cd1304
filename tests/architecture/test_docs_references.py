"""What a page names exists: linked pages and sections, files and modules of the repository, `stoker` commands and options, `make`
targets, and in guides the keys of the job file and the ids of rules."""

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from stoker.cli.app import load
from stoker.cli.table import COMMANDS
from stoker.document.explain import explain
from stoker.errors import SpecError
from stoker.spec import JobSpec
from stoker.spec.rules import RULES

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
GUIDES = [page for page in PAGES if "decisions" not in page.parts]
"""Pages about the present; decisions also name what there was."""
WRITTEN = {"benchmarks/test_durations.txt": "make test-durations writes it"}
"""Files that a page may name before they exist."""
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def wrong_on(pages: Iterable[Path], check: Callable[[Path], Iterable[str]]) -> dict[str, list[str]]:
    """What a check complains about, by page."""
    found = {str(page.relative_to(ROOT)): list(check(page)) for page in pages}
    return {page: complaints for page, complaints in found.items() if complaints}


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def sections(page: Path) -> set[str]:
    """The anchors of a page: of its titles as GitHub names them, and those written out."""
    titles = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    written = re.findall(r'<a id="([^"]+)">', prose(page))
    return {*written, *(re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles)}


def broken_links(page: Path) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        name, _, section = target.partition("#")
        at = page.parent / name if name else page
        if not re.match(r"\w+:", target) and (not at.exists() or (section and section not in sections(at))):
            yield target


def missing_files(page: Path) -> Iterator[str]:
    """Paths in backticks that start in a folder of the repository; `*` and `<name>` match any name."""
    for path in re.findall(r"`([\w./<>*-]+)`", page.read_text()):
        if path.startswith(TREES) and path not in WRITTEN and not any(ROOT.glob(re.sub(r"<\w+>", "*", path.rstrip("/")))):
            yield path


def missing_modules(page: Path) -> Iterator[str]:
    """Dotted names in backticks that are neither a module nor a name in one."""
    for name in re.findall(r"`(?:python -m )?((?:stoker|server|worker|examples|benchmarks)(?:\.\w+)+)", page.read_text()):
        if not name.endswith((".toml", ".db")) and not any(_is_module(part) for part in (name, name.rpartition(".")[0])):
            yield name


def _is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return "." in name and (path.is_dir() or path.with_suffix(".py").exists())


def unknown_keys(page: Path) -> Iterator[str]:
    """Dotted keys in backticks, `optimizer.lr` or `optimizer.lr: 0.1`, that no job file may have."""
    for key in re.findall(r"`([a-z_]+(?:\.[a-z_0-9]+)+)(?:`|: |\[)", prose(page)):
        if key.split(".")[0] in JobSpec.model_fields and not key.endswith(".safetensors") and not _explained(key):
            yield key


def _explained(key: str) -> bool:
    try:
        explain(key)
    except SpecError:
        return False
    return True


def unknown_rules(page: Path) -> Iterator[str]:
    known = {rule.id for rule in RULES}
    return (name for name in re.findall(r"rule `([a-z0-9-]+)`", page.read_text()) if name not in known)


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
    if command.context_settings.get("ignore_unknown_options"):
        return None  # another program reads them
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return next((word for word in words if word.startswith("-") and word.split("=")[0] not in options), None)


def unknown_commands(page: Path) -> Iterator[str]:
    return (wrong for words in calls(page, "stoker") if (wrong := unknown_in(words)))


def unknown_targets(page: Path) -> Iterator[str]:
    return (words[0] for words in calls(page, "make") if words[0] not in TARGETS)


def test_links_resolve() -> None:
    assert wrong_on(PAGES, broken_links) == {}


def test_files_exist() -> None:
    assert wrong_on(PAGES, missing_files) == {}


def test_modules_exist() -> None:
    assert wrong_on(PAGES, missing_modules) == {}


def test_keys_of_the_job_file_exist() -> None:
    assert wrong_on(GUIDES, unknown_keys) == {}


def test_rules_exist() -> None:
    assert wrong_on(PAGES, unknown_rules) == {}


def test_commands_and_options_exist() -> None:
    assert wrong_on(PAGES, unknown_commands) == {}


def test_make_targets_exist() -> None:
    assert wrong_on(PAGES, unknown_targets) == {}


def test_what_does_not_exist_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    links = "[here](#a-title) [gone](gone.md) [section](#none)"
    page.write_text(f"# A title\n\n{links} `worker/gone.py` `worker/trainer/loop.py`\n\n    make nothing\n")
    assert list(broken_links(page)) == ["gone.md", "#none"]
    assert list(missing_files(page)) == ["worker/gone.py"]
    assert list(unknown_targets(page)) == ["nothing"]
    page.write_text(
        "`worker.trainer.loop` `worker.trainer.gone.f` `stoker.spec` `optimizer.lr: 1` `optimizer.speed` rule `no-such`\n"
    )
    assert list(missing_modules(page)) == ["worker.trainer.gone.f"]
    assert list(unknown_keys(page)) == ["optimizer.speed"]
    assert list(unknown_rules(page)) == ["no-such"]


def test_a_call_that_does_not_exist_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("    stoker ls --json\n")
    assert calls(page, "stoker") == [["ls", "--json"]]
    calls_and_faults = {"ls --json": None, "events JOB": "events", "datasets upload --none": "--none", "datasets none": "none"}
    assert {call: unknown_in(call.split()) for call in calls_and_faults} == calls_and_faults
