"""Checks the words of messages, docs, docstrings and names against `tools/words.toml`. Part of `make lint`.

python tools/words.py            fail where a scope has more hits of a rule than `tools/words_debt.toml` allows
python tools/words.py --list     print every hit: all, or those of the scopes, rules or path prefixes that follow
python tools/words.py --update   lower the allowances to what is left; they are never raised
"""

import argparse
import ast
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

HOME = Path(__file__).parents[1]
SCOPES = ("messages", "docs", "docstrings", "names")
PLANES = ("stoker", "server", "worker")
PAGES = ("*.md", "docs/**/*.md", "benchmarks/*.md", "images/**/*.md", "examples/**/*.md")
EXAMPLES = ("examples/**/*.py", "examples/**/*.yaml", "examples/**/*.toml")
GENERATED = "docs/reference/"
"""Written from docstrings and messages, which are checked where they stand."""

Cell = tuple[str, str]
"""A scope and the id of a rule."""


@dataclass(frozen=True)
class Text:
    """One piece of text and where it is."""

    scope: str
    path: str
    line: int
    text: str


@dataclass(frozen=True)
class Rule:
    """Words that are not used in some scopes, and what to write instead."""

    id: str
    pattern: re.Pattern[str]
    say: str
    scopes: tuple[str, ...]


@dataclass(frozen=True)
class Allowed:
    """An exception: text in which a rule does not count, with the reason."""

    rule: str
    path: re.Pattern[str]
    text: re.Pattern[str]
    reason: str

    def covers(self, hit: "Hit") -> bool:
        context = hit.text.text[max(0, hit.start - 60) : hit.end + 60]
        return self.rule == hit.rule.id and bool(self.path.search(hit.text.path)) and bool(self.text.search(context))


@dataclass(frozen=True)
class Hit:
    """A rule that matches a text between two characters."""

    rule: Rule
    text: Text
    start: int
    end: int

    @property
    def cell(self) -> Cell:
        return self.text.scope, self.rule.id

    def __str__(self) -> str:
        line = self.text.line + self.text.text[: self.start].count("\n")
        around = " ".join(self.text.text[max(0, self.start - 40) : self.end + 40].split())
        return f"{self.text.path}:{line}: [{self.text.scope}/{self.rule.id}] …{around}…  -> {self.rule.say}"


def of_module(path: str, source: str) -> Iterator[Text]:
    """The docstrings, messages and names of a Python module."""
    yield Text("names", path, 1, f"module {path.removesuffix('.py')}")
    tree = ast.parse(source)
    docs = _docstrings(tree)
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name):
                yield Text("names", path, node.lineno, f"class {name}")
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield Text("names", path, node.lineno, f"def {name}")
            case ast.JoinedStr(values=values):
                yield Text("messages", path, node.lineno, "".join(_literal(value) for value in values))
            case ast.Constant(value=str(text)) if id(node) in docs:
                yield Text("docstrings", path, node.lineno, text)
            case ast.Constant(value=str(text)) if " " in text and id(node) not in parts:
                yield Text("messages", path, node.lineno, text)


def _literal(part: ast.expr) -> str:
    return part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else "{}"


def _docstrings(tree: ast.Module) -> set[int]:
    """The nodes of strings that document a module, a class, a function or the attribute above them."""
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, owners)]
    lines = (line for body in bodies for line in body if isinstance(line, ast.Expr))
    return {id(line.value) for line in lines if isinstance(line.value, ast.Constant)}


def of_page(path: str, source: str) -> Text:
    """The prose of a Markdown page: code, addresses and comments are blanked, so that lines keep their numbers."""
    blank = re.compile(r"^```.*?^```|^(?: {4}|\t).*?$|`[^`\n]*`|<!--.*?-->|\]\([^)\n]*\)", re.MULTILINE | re.DOTALL)
    return Text("docs", path, 1, blank.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), source))


def of_example(path: str, source: str) -> Iterator[Text]:
    """What an example says to its reader: comments, and in Python also docstrings and messages."""
    if path.endswith(".py"):
        yield from (Text("docs", path, text.line, text.text) for text in of_module(path, source) if text.scope != "names")
    for number, line in enumerate(source.splitlines(), 1):
        if comment := re.search(r"(?:^|\s)#\s(.*)", line):
            yield Text("docs", path, number, comment[1])


def texts(root: Path) -> Iterator[Text]:
    for plane in PLANES:
        for file in sorted((root / plane).rglob("*.py")):
            yield from of_module(str(file.relative_to(root)), file.read_text())
    for pattern in PAGES:
        for file in sorted(root.glob(pattern)):
            if not (path := str(file.relative_to(root))).startswith(GENERATED):
                yield of_page(path, file.read_text())
    for pattern in EXAMPLES:
        for file in sorted(root.glob(pattern)):
            yield from of_example(str(file.relative_to(root)), file.read_text())


def read_list(path: Path) -> tuple[list[Rule], list[Allowed]]:
    listed = tomllib.loads(path.read_text())
    rules = [
        Rule(row["id"], re.compile(row["pattern"], re.MULTILINE), row["say"], tuple(row.get("scopes", SCOPES[:3])))
        for row in listed["rule"]
    ]
    allowed = [
        Allowed(row["rule"], re.compile(row["path"]), re.compile(row["text"], re.DOTALL), row["reason"])
        for row in listed.get("allowed", [])
    ]
    known = {rule.id for rule in rules}
    for wrong in [row.rule for row in allowed if row.rule not in known] + [s for r in rules for s in r.scopes if s not in SCOPES]:
        sys.exit(f"{path}: unknown rule or scope {wrong!r}")
    return rules, allowed


def hits(found: Iterable[Text], rules: list[Rule]) -> Iterator[Hit]:
    for text in found:
        for rule in rules:
            if text.scope in rule.scopes:
                yield from (Hit(rule, text, *match.span()) for match in rule.pattern.finditer(text.text))


def read_debt(path: Path) -> Counter[Cell]:
    listed = tomllib.loads(path.read_text()) if path.exists() else {}
    return Counter({(scope, rule): count for scope, rows in listed.items() for rule, count in rows.items()})


def write_debt(path: Path, debt: Counter[Cell]) -> None:
    lines = ["# How often each rule may still be broken. `python tools/words.py --update` lowers a figure; nothing raises one."]
    for scope in SCOPES:
        rows = [f"{rule} = {count}" for (its, rule), count in sorted(debt.items()) if its == scope and count]
        lines += ["", f"[{scope}]", *rows] if rows else []
    path.write_text("\n".join(lines) + "\n")


def verdict(counted: list[Hit], stale: list[Allowed], debt: Counter[Cell]) -> list[str]:
    """What is wrong, a line each; empty where the list holds."""
    counts = Counter(hit.cell for hit in counted)
    over = [cell for cell in counts if counts[cell] > debt[cell]]
    lines = [str(hit) for hit in counted if hit.cell in over]
    lines += [f"{scope}/{rule}: {counts[scope, rule]} hits, {debt[scope, rule]} allowed" for scope, rule in over]
    return lines + [f"an exception from {row.rule} in {row.path.pattern} matches nothing; remove it" for row in stale]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=HOME)
    parser.add_argument("--list", nargs="*", metavar="WORD", help="print the hits, all or those of scopes, rules or paths")
    parser.add_argument("--update", action="store_true", help="lower the allowances to what is left")
    asked = parser.parse_args()
    rules, allowed = read_list(Path(__file__).with_name("words.toml"))
    raw = list(hits(texts(asked.root), rules))
    counted = [hit for hit in raw if not any(row.covers(hit) for row in allowed)]
    stale = [row for row in allowed if asked.root == HOME and not any(row.covers(hit) for hit in raw)]
    at = asked.root / "tools" / "words_debt.toml"
    debt = read_debt(at)
    if asked.list is not None:
        print("\n".join(str(hit) for hit in counted if _asked_for(hit, asked.list)))
        return 0
    if asked.update:
        counts = Counter(hit.cell for hit in counted)
        debt = Counter({cell: min(debt[cell], counts[cell]) for cell in debt})
        write_debt(at, debt)
    wrong = verdict(counted, stale, debt)
    print("\n".join(wrong) if wrong else _summary(counted))
    return 1 if wrong else 0


def _asked_for(hit: Hit, words: list[str]) -> bool:
    return not words or all(word in hit.cell or hit.text.path.startswith(word) for word in words)


def _summary(counted: list[Hit]) -> str:
    by_scope = Counter(hit.text.scope for hit in counted)
    return "words: " + ", ".join(f"{by_scope[scope]} left in {scope}" for scope in SCOPES)


if __name__ == "__main__":
    sys.exit(main())
