"""The other loop: a rank that holds weights for others answers them until they say that the run is over."""

import json
from datetime import timedelta
from pathlib import Path

from stoker.events import Finished
from stoker.spec import JobSpec
from stoker.spec.distributed import ParameterServer
from worker.trainer.distributed.parameter_server import Server, open_server
from worker.trainer.optimizer import optimizer_of
from worker.trainer.runtime.journal import Journal

BEAT_SECONDS = 1.0


def serve(spec: JobSpec, home: Path, journal: Journal, place: tuple[int, int], patience: timedelta) -> int:
    """`place`: this rank and the number of all. The exit code, which is that of the workers."""
    rank, ranks = place
    strategy = spec.distributed
    assert isinstance(strategy, ParameterServer), "only a parameter server has ranks that serve"
    journal.phase("training")
    server = open_server(strategy, rank, ranks, lambda groups: optimizer_of(spec.optimizer, groups), patience)
    while not server.wait(BEAT_SECONDS):
        journal.heartbeat.beat(server.version)
    assert server.ended is not None
    reason, code = server.ended
    _trace(server, home / "artifacts" / f"staleness-rank{rank}.json")
    journal.write(Finished(step=server.version, reason=reason, metrics={}))
    return code


def _trace(server: Server, path: Path) -> None:
    """How far workers were apart: for each number of steps, how often."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"staleness": server.staleness, "leads": server.leads}, sort_keys=True))
