"""The committed reference is the one that the code makes, and leaves nothing out."""

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from stoker.document.grammar import fields_of, walk
from stoker.document.reference import reference
from stoker.i18n import Lang, translated
from stoker.spec.job import JobSpec
from stoker.spec.rules import RULES

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "job-file.md"


def test_the_committed_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), "run make reference"


LINK = re.compile(r"\]\(#([\w-]+)\)")
ANCHOR = re.compile(r'<a id="([\w-]+)"></a>')


@dataclass
class Mapping:
    """What a reader finds at an anchor: keys, with the anchors that their types lead to, and their texts."""

    keys: dict[str, list[str]] = field(default_factory=dict)
    texts: dict[str, list[str]] = field(default_factory=dict)
    more: list[str] = field(default_factory=list)
    """Kinds of this mapping, or the place where a kind's keys stand."""


def read(page: str) -> dict[str, Mapping]:
    """Anchor → mapping. A kind has its own anchor within the table of its union; the root's is empty."""
    found: dict[str, Mapping] = {"": Mapping()}
    section = here = ""
    for line in page.splitlines():
        if line.startswith("#"):
            section = here = line.lstrip("# ").lower().replace(".", "") if line.startswith("##") else ""
            found.setdefault(here, Mapping())
        elif (kind := ANCHOR.search(line)) is not None:
            here = kind[1]
            found[here] = Mapping(more=LINK.findall(line))
            found[section].more.append(here)
        elif (key := re.match(r"\| `(\w+)` \|", line)) is not None:
            found[here].keys.setdefault(key[1], []).extend(LINK.findall(line))
            found[here].texts.setdefault(key[1], []).append(line)
    return found


def followed(page: dict[str, Mapping], anchors: set[str]) -> list[Mapping]:
    """The mappings at these anchors, and their kinds."""
    reached: set[str] = set()
    while anchors - reached:
        reached |= anchors
        anchors = {inner for anchor in reached for inner in page[anchor].more}
    return [page[anchor] for anchor in reached]


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_every_path_is_found_by_following_the_links(lang: Lang) -> None:
    page = read(reference(lang))
    for step in walk(JobSpec):
        *above, last = step.path.split(".")
        anchors = {""}
        for name in above:
            anchors = {anchor for mapping in followed(page, anchors) for anchor in mapping.keys.get(name, ())}
        texts = [text for mapping in followed(page, anchors) for text in mapping.texts.get(last, ())]
        assert any(translated(step.field.doc, lang).replace("|", "\\|") in text for text in texts), step.path


def test_every_link_has_a_target() -> None:
    text = reference()
    targets = {anchor for anchor in read(text) if anchor}
    assert set(LINK.findall(text)) <= targets


def test_each_key_of_a_class_stands_on_one_line() -> None:
    """At most as often as classes have it: nothing is printed again wherever it may stand."""
    owners = {step.owner for step in walk(JobSpec)}
    allowed = Counter(name for owner in owners for name in fields_of(owner))
    printed = Counter(re.findall(r"^\| `(\w+)` \|", reference(), flags=re.MULTILINE))
    assert {name: count for name, count in printed.items() if count > allowed[name]} == {}


def test_the_page_names_every_rule() -> None:
    page = reference()
    assert [rule.id for rule in RULES if f"| {rule.id} |" not in page] == []
