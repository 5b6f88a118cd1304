"""A pattern of weights that the model does not have is refused by arithmetic, before anything runs."""

import pytest

from stoker.document.resolve import resolve
from stoker.errors import SpecError
from stoker.plan import plan
from tests.support.spec_cases import JOBS, changed


def _planned(*patterns: str) -> list[str]:
    """What is refused, and where."""
    job, facts = JOBS["text"]
    groups = [{"pattern": pattern} for pattern in patterns]
    try:
        plan(resolve(changed(job, {"optimizer": {"type": "adamw", "param_groups": groups}}), facts).spec, facts)
    except SpecError as error:
        return [f"{finding.code} {finding.pointer}" for finding in error.findings]
    return []


@pytest.mark.parametrize(
    ("patterns", "refused"),
    [
        (("tokens.*", "blocks.0.*", "*.weight"), []),
        (("token", "blocks.*"), [0]),
        (("blocks.*", "blocks.0.*", "blocks.1000.*"), [1, 2]),
    ],
)
def test_patterns_that_no_weight_falls_to_are_refused(patterns: tuple[str, ...], refused: list[int]) -> None:
    assert _planned(*patterns) == [f"param-group-empty /optimizer/param_groups/{index}/pattern" for index in refused]
