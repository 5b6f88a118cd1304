"""The table of pairs that docs/how-to/distribution.md publishes: what is refused is refused by that rule, what is allowed computes
what one process computes, to the tolerance in the table.

A sample of the pairs runs always; all of them with STOKER_ALL_PAIRS=1.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.support.strategy_pairs import FEATURES, STRATEGIES, broken_rules, document, prepare, published
from tests.support.trainer_runs import Nursery, final_checkpoint, log, series, tensors

TABLE = published()
SAMPLE = {("ema", "fsdp"), ("bf16_mixed", "tensor"), ("recurrent", "fsdp")}
ALLOWED = [pair for pair, cell in TABLE.items() if cell == "runs" or cell[0].isdigit()]


def test_the_table_is_whole() -> None:
    assert set(TABLE) == {(feature, strategy) for feature in FEATURES for strategy in STRATEGIES}


@pytest.mark.parametrize(("feature", "strategy"), sorted(TABLE), ids=lambda name: name.replace(" ", "-"))
def test_rules_refuse_what_the_table_says(feature: str, strategy: str) -> None:
    cell, broken = TABLE[feature, strategy], broken_rules(feature, strategy)
    assert cell in broken if broken else (feature, strategy) in ALLOWED


@pytest.fixture(scope="session")
def alone(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def run(feature: str) -> Path:
        key = json.dumps(document(feature, None))
        if key not in made:
            made[key] = prepare(tmp_path_factory.mktemp("alone") / "run", document(feature, None))
            assert nursery.run(made[key]) == [0], log(made[key])
        return made[key]

    return run


@pytest.mark.parametrize(
    ("feature", "strategy"),
    sorted(ALLOWED if os.environ.get("STOKER_ALL_PAIRS") else SAMPLE),
    ids=lambda name: name.replace(" ", "-"),
)
def test_an_allowed_pair_computes_what_one_process_computes(
    feature: str, strategy: str, nursery: Nursery, alone: Callable[[str], Path], tmp_path: Path
) -> None:
    home = prepare(tmp_path / "run", document(feature, strategy))
    ranks = STRATEGIES[strategy]["processes_per_node"]
    assert nursery.run(home, ranks) == [0] * ranks, log(home)
    if (cell := TABLE[feature, strategy]) == "runs":
        return
    one, other = (tensors(final_checkpoint(path) / "model.safetensors") for path in (alone(feature), home))
    assert one.keys() == other.keys()
    off = {name: float((one[name].double() - other[name].double()).abs().max()) for name in one}
    assert max(off.values()) <= float(cell), off
    curves = [{key: value for key, value in series(path).items() if key[1].endswith("/loss")} for path in (alone(feature), home)]
    assert curves[0].keys() == curves[1].keys()
    np.testing.assert_allclose(list(curves[1].values()), list(curves[0].values()), rtol=0, atol=3 * float(cell))
