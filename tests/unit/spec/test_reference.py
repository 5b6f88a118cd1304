"""The committed reference is the one that the code makes, and leaves nothing out."""

from pathlib import Path

import pytest

from stoker.document.grammar import walk
from stoker.document.reference import reference
from stoker.spec.job import JobSpec
from stoker.spec.rules import RULES

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "job-file.md"


def test_the_committed_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), "run python -m stoker.document.reference > docs/reference/job-file.md"


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_every_key_and_rule_is_in_it(lang: str) -> None:
    page = reference("zh" if lang == "zh" else "en")
    assert [step.path for step in walk(JobSpec) if f"| `{step.field.name}` |" not in page] == []
    assert [rule.id for rule in RULES if f"| {rule.id} |" not in page] == []
