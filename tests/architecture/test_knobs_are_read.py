"""No knob is accepted and ignored, for real: small jobs with every member of every union run while a spy notes what is read.

The jobs are those of `tests.support.tiny`, which `tests/acceptance/test_union_members.py` sends through the whole system.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest

from stoker.document.document import Document
from stoker.document.opened import Opened, opened, source_of
from stoker.document.resolve import Resolved, resolve
from stoker.spec import JobSpec
from stoker.spec.base import Spec
from stoker.spec.initialization import Warm
from tests.support.members import ADVICE, held, offered, written_out
from tests.support.stack import free_port
from tests.support.tiny import AFTER, JOBS
from tests.support.tiny.files import FILES, facts, write

ROOT = Path(__file__).parents[2]
CHOICES = ("type", "strategy")
"""Which member of a union a document chose: matched by class, not read. So is any other field that has one value only."""

ELSEWHERE = {
    "JobSpec.api_version": "the grammar's upgrade, before there is a spec",
    "JobSpec.name": "filing",
    "JobSpec.project": "filing",
    "JobSpec.labels": "filing",
    "JobSpec.priority": "the scheduler's order",
    **{
        f"{strategy}.min_nodes": "what the scheduler places"
        for strategy in ("Auto", "DDP", "FSDP", "Horovod", "LocalSGD", "ParameterServer")
    },
    "Resources.memory_gb": "what the scheduler places",
    "Resources.placement": "what the scheduler places",
    **{
        f"HF.{name}": "written out before there is a spec"
        for name in ("source", "weights", "dropout", "attention_dropout", "embedding_dropout", "init")
    },
    "CNN.preset": "written out before there is a spec",
    "TransformerDecoder.preset": "written out before there is a spec",
    "TransformerEncoder.preset": "written out before there is a spec",
    "Resources.max_retries": "the server's retries",
    "Resources.time_limit_seconds": "the server's time limit",
    "Checkpoint.keep_last": "the server's retention",
    "Distillation.teacher": "the server, which binds it to files that the agent brings",
    "Teacher.job": "the server, which binds it to files that the agent brings",
    "Teacher.checkpoint": "the server, which binds it to files that the agent brings",
    "Loader.pin_memory": "memory is pinned for a GPU only",
}
"""Fields that a run on a CPU does not read, and who does; `test_dead_knobs` finds each by name."""

SPY = """
import json, os, sys
from pathlib import Path
from stoker.spec.base import Spec

reads = set()

def spy(self, name, get=object.__getattribute__):
    frame = sys._getframe(1)
    module = frame.f_globals.get("__name__", "")
    # Properties of the spec read for the trainer; its validators do not count.
    if module.startswith(("worker.", "stoker.spec.")) and frame.f_code.co_name != "_one_unit":
        reads.add(f"{type(self).__name__}.{name}")
    return get(self, name)

Spec.__getattribute__ = spy
from worker.trainer import warm_imports
from worker.trainer.__main__ import main
warm_imports()

def run(answer, homes):
    codes = [main(Path(home)) for home in homes]
    Path(answer).write_text(json.dumps({"codes": codes, "reads": sorted(reads)}))
    os._exit(0)

# argv: where answers go, how many jobs are for two ranks, these with a port each, and jobs for one rank. Ranks are forked, so
# that torch is imported once.
answers, count, *rest = sys.argv[1:]
together, alone = rest[: 2 * int(count)], rest[2 * int(count) :]
for home, port in zip(together[::2], together[1::2]):
    for rank in ("0", "1"):
        if os.fork() == 0:
            os.environ.update(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", MASTER_PORT=port)
            run(f"{answers}/{Path(home).name}-rank{rank}.json", [home])
    os.wait(), os.wait()
run(f"{answers}/alone.json", alone)
"""


def unread(specs: Iterable[type[Spec]], reads: set[str]) -> list[str]:
    fields = {
        f"{spec.__name__}.{name}"
        for spec in specs
        for name, field in spec.model_fields.items()
        if name not in CHOICES and not (get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1)
    }
    return sorted(fields - reads - ELSEWHERE.keys())


def _members() -> list[type[Spec]]:
    """Classes that a document can hold: those without a class of the grammar below them."""
    found, todo = [], list(Spec.__subclasses__())
    while todo:
        spec = todo.pop()
        below = [child for child in spec.__subclasses__() if child.__module__.startswith("stoker.spec.")]
        todo += below
        if not below and spec.__module__.startswith("stoker.spec."):
            found.append(spec)
    return sorted(set(found), key=lambda spec: spec.__name__)


@cache
def resolved(name: str) -> Resolved:
    """As the server does it."""
    document = JOBS[name]
    directory = source_of(document)
    found = Opened(document) if directory is None else opened(document, facts(directory.partition("@")[0]))
    assert found.findings == ()
    data = facts(document["data"]["source"]["dataset"].partition("@")[0])
    return resolve(Document(found.value, origins=dict(found.origins)), data)


def _workspace(root: Path, name: str) -> JobSpec:
    """A folder for a job to run in; where it begins with what another has learned, that will be there by then."""
    document, home, spec = JOBS[name], root / name, resolved(name).spec
    for dataset in FILES:
        if f'"{dataset}@1"' in json.dumps(document):
            write(dataset, home / "data" / f"{dataset}@1")
    (home / "spec.json").write_text(spec.model_dump_json())
    if name in AFTER:
        place = home / _brought(spec)
        place.parent.mkdir(exist_ok=True)
        place.symlink_to(root / AFTER[name] / "checkpoints" / "step-00000002")
    return spec


def _brought(spec: JobSpec) -> str:
    """Where the agent puts the checkpoint of another job."""
    if spec.training.distillation is not None:
        return "data/teacher"
    return "data/start" if isinstance(spec.initialization.start, Warm) else "checkpoints/step-00000002"


@pytest.fixture(scope="module")
def reads(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """What is read by one process that runs every job, but those for two, which run them together."""
    root = tmp_path_factory.mktemp("spied")
    ranks = {name: _workspace(root, name).distributed.world_size for name in JOBS}
    assert set(ranks.values()) == {1, 2}
    pairs, alone = ([name for name in JOBS if ranks[name] == count] for count in (2, 1))
    together = [argument for name in pairs for argument in (str(root / name), str(free_port()))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
    command = [sys.executable, "-c", SPY, str(root), str(len(pairs)), *together, *(str(root / name) for name in alone)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=250)
    found: set[str] = set()
    for name in (*(f"{name}-rank{rank}" for name in pairs for rank in (0, 1)), "alone"):
        assert (root / f"{name}.json").exists(), done.stdout + done.stderr
        said = json.loads((root / f"{name}.json").read_text())
        assert set(said["codes"]) == {0}, f"{name} {said['codes']}\n{done.stdout}{done.stderr}"
        found |= set(said["reads"])
    return found


def test_every_member_has_a_job() -> None:
    specs = [resolved(name) for name in JOBS]
    assert sorted(offered() - set().union(*(held(each.spec) | written_out(each.origins) for each in specs))) == [], ADVICE


@pytest.mark.parametrize("spec", _members(), ids=lambda spec: spec.__name__)
def test_every_field_is_read_by_a_run(spec: type[Spec], reads: set[str]) -> None:
    assert unread([spec], reads) == []


def test_exceptions_are_exceptions(reads: set[str]) -> None:
    """A field that the trainer reads needs no excuse."""
    assert sorted(ELSEWHERE.keys() & reads) == []


def test_a_field_that_nothing_reads_is_reported() -> None:
    class Ignored(Spec):
        used: int = 1
        """Read."""
        warmth: float = 0.0
        """Never read."""

    assert unread([Ignored], {"Ignored.used"}) == ["Ignored.warmth"]
