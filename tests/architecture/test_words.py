"""The word list holds in every scope: messages, docs, docstrings and names."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORDS = ROOT / "tools" / "words.py"


def check(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(WORDS), "--root", str(root), *options], capture_output=True, text=True, timeout=120
    )


SEEDED = {
    "messages/whatever": ("stoker/one.py", 'def f(x: str) -> str:\n    return f"{x} is refused, whatever it is called"\n'),
    "messages/plural-in-brackets": ("server/one.py", 'TEXT = "The document has 2 finding(s)."\n'),
    "docstrings/fronted-of": ("worker/one.py", '"""Counts rows. Of these, the first."""\n'),
    "docstrings/beside": ("stoker/one.py", 'SIZE = 1\n"""Bytes beside the header."""\n'),
    "names/metaphor-name": ("worker/one.py", "class Hollow:\n    size = 1\n"),
    "names/british": ("server/one.py", "def normalise_rows() -> None: ...\n"),
    "docs/british": ("docs/how-to/one.md", "# One\n\nThe `colour` of a line,\nthe colour of it.\n"),
    "docs/so-many": ("examples/one.yaml", "# Saves every so many steps.\nkind: x\n"),
}


@pytest.mark.parametrize("cell", SEEDED)
def test_a_seeded_word_is_found(cell: str, tmp_path: Path) -> None:
    name, text = SEEDED[cell]
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text(text)
    done = check(tmp_path)
    assert done.returncode == 1
    assert f"[{cell}]" in done.stdout
    assert f"{cell}: 1 hits, 0 allowed" in done.stdout


def test_a_hit_is_reported_at_its_line(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# One\n\n```\nbeside\n```\n\nBytes beside the header.\n")
    lines = [line for line in check(tmp_path, "--list", "docs").stdout.splitlines() if line]
    assert [line.split(" ")[0] for line in lines] == ["README.md:7:"]


def test_code_is_not_prose(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# One\n\n```\nwhatever\n```\n\n`beside` and [a page](docs/colour.md).\n")
    assert check(tmp_path, "--list", "docs").stdout.strip() == ""


def test_an_allowance_falls_and_never_rises(tmp_path: Path) -> None:
    debt = tmp_path / "tools" / "words_debt.toml"
    debt.parent.mkdir()
    debt.write_text("[docs]\nbeside = 3\nalike = 1\n")
    (tmp_path / "README.md").write_text("Bytes beside the header. They are all alike, alike, alike.\n")
    assert "docs/alike: 3 hits, 1 allowed" in check(tmp_path, "--update").stdout
    assert tomllib.loads(debt.read_text()) == {"docs": {"alike": 1, "beside": 1}}


def test_every_exception_has_its_reason() -> None:
    listed = tomllib.loads((ROOT / "tools" / "words.toml").read_text())
    assert [row for row in listed.get("allowed", []) if len(row["reason"].split()) < 3] == []
