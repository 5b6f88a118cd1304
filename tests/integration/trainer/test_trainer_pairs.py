"""The table of pairs that docs/how-to/distribution.md publishes: what is refused is refused by that rule, what is allowed computes
what one process computes, to the tolerance in the table.

A sample of the pairs runs always; all of them with STOKER_ALL_PAIRS=1.
"""

import os
from pathlib import Path

import pytest

from tests.support.same_runs import Alone, assert_near
from tests.support.strategy_pairs import FEATURES, STRATEGIES, broken_rules, document, published
from tests.support.trainer_runs import Nursery, trained

TABLE = published()
SAMPLE = {("ema", "fsdp"), ("bf16_mixed", "tensor"), ("recurrent", "fsdp")}
ALLOWED = [pair for pair, cell in TABLE.items() if cell == "runs" or cell[0].isdigit()]


def test_the_table_is_whole() -> None:
    assert set(TABLE) == {(feature, strategy) for feature in FEATURES for strategy in STRATEGIES}


@pytest.mark.parametrize(("feature", "strategy"), sorted(TABLE), ids=lambda name: name.replace(" ", "-"))
def test_rules_refuse_what_the_table_says(feature: str, strategy: str) -> None:
    cell, broken = TABLE[feature, strategy], broken_rules(feature, strategy)
    assert cell in broken if broken else (feature, strategy) in ALLOWED


@pytest.mark.parametrize(
    ("feature", "strategy"),
    sorted(ALLOWED if os.environ.get("STOKER_ALL_PAIRS") else SAMPLE),
    ids=lambda name: name.replace(" ", "-"),
)
def test_an_allowed_pair_computes_what_one_process_computes(
    feature: str, strategy: str, nursery: Nursery, alone: Alone, tmp_path: Path
) -> None:
    home = trained(nursery, tmp_path / "run", document(feature, strategy), STRATEGIES[strategy]["processes_per_node"])
    if (cell := TABLE[feature, strategy]) != "runs":
        assert_near(alone(document(feature, None)), home, float(cell))
