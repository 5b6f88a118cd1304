"""The memory that each rank of a sharded run takes at most, as the system says, beside what was planned."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from stoker.plan import plan
from stoker.spec import JobSpec
from tests.support.plan_cases import Json, language, resolved, text
from tests.support.trainer_runs import Nursery, log

LINE = "the quick brown fox jumps over the lazy dog; "
PEAK = """
import os, re
from pathlib import Path
from worker.trainer.runtime.journal import Journal
def close(self, close=Journal.close):
    status = Path("/proc/self/status").read_text()
    Path({home!r}, f"peak-{{os.environ['RANK']}}").write_text(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1])
    close(self)
Journal.close = close
"""
"""Each rank writes the most memory it had, in KiB, when it ends."""

WEIGHTS: Json = {"num_layers": 8, "hidden_size": 640, "num_heads": 4}
"""150 MiB, of which each rank keeps a share; the activations of a batch are a tenth of it."""
ACTIVATIONS: Json = {"num_layers": 6, "hidden_size": 256, "num_heads": 4}
"""20 MiB, and 200 of activations for eight samples of 256 tokens."""
TINY: Json = {"num_layers": 1, "hidden_size": 8, "num_heads": 2}


def _job(model: Json, length: int, ranks: int, lines: int, **how: Any) -> JobSpec:
    """Saved while it waits: what a save in the background holds until it is written is told apart, as `saving_bytes`."""
    spec = language(
        model,
        length=length,
        training={"max_steps": 3, "batch_size": 8 * ranks if length > 16 else 8},
        checkpoint={"interval": {"steps": 2}, "background": "off"},
        distributed={"strategy": "fsdp", "processes_per_node": ranks, **how},
    )
    return resolved(spec, text(lines * len(LINE)))


def _peak(nursery: Nursery, home: Path, spec: JobSpec, ranks: int, lines: int) -> int:
    """Bytes of the rank that took most. A run that was made before goes on from its second step."""
    folder = home / "data" / "set@1"
    if folder.exists():
        shutil.rmtree(home / "checkpoints" / "step-00000003")
    else:
        folder.mkdir(parents=True)
        (folder / "words.txt").write_text(LINE * lines)
        (home / "spec.json").write_text(spec.model_dump_json())
    assert nursery.run(home, ranks, PEAK.format(home=str(home))) == [0] * ranks, log(home)
    return max(int((home / f"peak-{rank}").read_text()) for rank in range(ranks)) << 10


@pytest.fixture(scope="module")
def usual(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> int:
    """Bytes of a run that is about nothing, on this machine with these libraries, beyond what the plan says they take."""
    spec = _job(TINY, 16, 2, 60)
    return _peak(nursery, tmp_path_factory.mktemp("usual"), spec, 2, 60) - plan(spec, text(60 * len(LINE))).memory.rank_bytes


@pytest.mark.parametrize(
    ("model", "length", "ranks", "lines", "how", "again"),
    [
        pytest.param(WEIGHTS, 16, 2, 60, {}, True, id="weights-2-fresh-and-resumed"),
        pytest.param(WEIGHTS, 16, 4, 60, {}, False, id="weights-4", marks=pytest.mark.thorough),
        pytest.param(WEIGHTS, 16, 4, 60, {"replicate": 2}, True, id="copies-4-fresh-and-resumed", marks=pytest.mark.thorough),
        pytest.param(
            WEIGHTS, 16, 2, 60, {"reshard_after_forward": False}, False, id="weights-kept-2", marks=pytest.mark.thorough
        ),
        pytest.param(ACTIVATIONS, 256, 2, 150, {}, False, id="activations-2", marks=pytest.mark.thorough),
    ],
)
def test_each_rank_takes_what_was_planned(
    model: Json, length: int, ranks: int, lines: int, how: Json, again: bool, usual: int, nursery: Nursery, tmp_path: Path
) -> None:
    spec = _job(model, length, ranks, lines, **how)
    memory = plan(spec, text(lines * len(LINE))).memory
    fresh = _peak(nursery, tmp_path / "run", spec, ranks, lines)
    assert memory.fresh_bytes + usual == pytest.approx(fresh, rel=0.1)
    if again:
        resumed = _peak(nursery, tmp_path / "run", spec, ranks, lines)
        assert memory.resumed_bytes + usual == pytest.approx(resumed, rel=0.1)


@pytest.mark.skipif(torch.version.cuda is not None, reason="libraries for GPUs are larger")
def test_libraries_take_what_was_planned(usual: int) -> None:
    assert abs(usual) < 100 << 20
