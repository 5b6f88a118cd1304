"""The protocol's state machine finds each mistake that it was made for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.mutants import MUTANTS

ROOT = Path(__file__).resolve().parents[3]
MACHINE = "tests/integration/server/test_core_protocol.py"
QUICK = ("no_epoch_on_finish", "claim_without_compare_and_set")
"""Found within seconds; STOKER_MUTANTS=all tries the others too."""
CHOSEN = MUTANTS if os.environ.get("STOKER_MUTANTS") == "all" else QUICK


@pytest.mark.thorough("each mutant starts the protocol's tests anew")
@pytest.mark.parametrize("name", sorted(CHOSEN))
def test_a_mutant_is_found(name: str) -> None:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "tests.support.mutants", "-p", "no:cacheprovider", MACHINE]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"STOKER_MUTANT": name}, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 1, f"{name} was not found:\n{done.stdout[-3000:]}{done.stderr[-1000:]}"
