"""Every optimizer on weights in shards, on two ranks: the steps are those on whole weights."""

from pathlib import Path

import pytest

from tests.support.trainer_runs import Nursery, log

RANK = "import os; from tests.support.optimizer_ranks import rank; os._exit(rank())"


@pytest.mark.proves("OPT-01")
def test_weights_in_shards_move_as_whole_ones_do(nursery: Nursery, tmp_path: Path) -> None:
    assert nursery.run(tmp_path, 2, RANK) == [0, 0], log(tmp_path)
