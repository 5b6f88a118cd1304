"""Every optimizer on weights in shards, on two ranks: the steps are those on whole weights."""

import os
import subprocess
import sys
from pathlib import Path


def test_weights_in_shards_move_as_whole_ones_do() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.optimizer_ranks"],
        cwd=Path(__file__).parents[3],
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-4000:]
