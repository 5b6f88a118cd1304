"""Real trainer runs for tests: ranks forked from one interpreter that has torch imported, killed and started at will."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from stoker.events import EVENT, Finished, Metrics, Saved
from tests.support.data import PERFORMANCE

NURSERY = """
import json, os, sys, traceback
from pathlib import Path
from worker.trainer import warm_imports
warm_imports()
from worker.trainer.__main__ import main
for line in sys.stdin:
    command = json.loads(line)
    if "wait" in command:
        status = os.waitpid(command["wait"], 0)[1]
        print(json.dumps(os.waitstatus_to_exitcode(status)), flush=True)
        continue
    pid = os.fork()
    if pid == 0:
        home = Path(command["home"])
        os.environ.update(command["env"])
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(home / f"log-rank{command['env']['RANK']}.{name}", os.O_CREAT | os.O_WRONLY | os.O_APPEND), number)
        exec(command["inject"], {"home": home})
        os._exit(main(home))
    print(json.dumps(pid), flush=True)
"""


class Nursery:
    """An interpreter with everything imported, from which ranks are forked."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", NURSERY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def _ask(self, command: Mapping[str, Any]) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return int(json.loads(self._process.stdout.readline()))

    def start(self, home: Path, ranks: int = 1, inject: str = "") -> "Running":
        """`inject`: a program that each rank runs before its own, to break something in it; it knows its `home`."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        shared = {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        shared |= {"OMP_NUM_THREADS": "1"}
        pids = [
            self._ask({"home": str(home), "inject": inject, "env": {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}})
            for rank in range(ranks)
        ]
        return Running(self, home, pids)

    def wait(self, pid: int) -> int:
        return self._ask({"wait": pid})

    def run(self, home: Path, ranks: int = 1, inject: str = "") -> list[int]:
        """Exit codes by rank."""
        return self.start(home, ranks, inject).wait()

    def close(self) -> None:
        self._process.communicate()


@dataclass
class Running:
    nursery: Nursery
    home: Path
    pids: list[int]

    def wait(self) -> list[int]:
        return [self.nursery.wait(pid) for pid in self.pids]

    def reached(self, step: int) -> None:
        """Return once the journal has metrics of this step or a later one, or the run's end."""
        path = self.home / "events-rank0.jsonl"
        already = path.stat().st_size if path.exists() else 0
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if any(
                isinstance(e, Finished) or e.step >= step for e in _events(path, already) if isinstance(e, Metrics | Finished)
            ):
                return
            time.sleep(0.0005)
        raise AssertionError(f"no step {step} within 120 s; log: {log(self.home)}")

    def signal(self, number: signal.Signals, ranks: list[int] | None = None) -> None:
        for rank in range(len(self.pids)) if ranks is None else ranks:
            os.kill(self.pids[rank], number)


def _events(path: Path, offset: int = 0) -> Iterator[Any]:
    if path.exists():
        with path.open("rb") as file:
            file.seek(offset)
            for line in file.read().split(b"\n")[:-1]:
                if line.endswith(b"}"):  # a killed rank may leave half a line
                    yield EVENT.validate_json(line)


def events(home: Path, rank: int = 0) -> list[Any]:
    return list(_events(home / f"events-rank{rank}.jsonl"))


def finished(home: Path, rank: int = 0) -> Finished:
    last = events(home, rank)[-1]
    assert isinstance(last, Finished), last
    return last


def series(home: Path) -> dict[tuple[int, str], float]:
    """The surviving metric series: by step and key, later attempts in the place of earlier ones; without timings."""
    values: dict[tuple[int, str], float] = {}
    for event in events(home):
        if isinstance(event, Metrics):
            values |= {(event.step, key): value for key, value in event.values.items() if not key.endswith(PERFORMANCE)}
    return values


def final_checkpoint(home: Path) -> Path:
    saved = [event for event in events(home) if isinstance(event, Saved) and event.final]
    return home / saved[-1].path


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path)


def same_bits(one: Path, other: Path) -> bool:
    """Whether two safetensors files hold the same names and the same bits."""
    a, b = load_file(one), load_file(other)
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and a[k].numpy().tobytes() == b[k].numpy().tobytes() for k in a)


def log(home: Path) -> str:
    return "\n".join(path.read_text()[-4000:] for path in sorted(home.glob("log-rank*.err")))


def workspace(home: Path, spec: Mapping[str, Any], **arrays: np.ndarray[Any, Any]) -> Path:
    """A directory to run in, with arrays as `data/set@1/<name>.npy`."""
    data = home / "data" / "set@1"
    data.mkdir(parents=True)
    for name, values in arrays.items():
        np.save(data / f"{name}.npy", values)
    (home / "spec.json").write_text(json.dumps(spec))
    return home


def blobs(count: int = 203, features: int = 12, classes: int = 4, seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    """Classes that are told apart only in part, so that losses stay away from zero."""
    draw = np.random.default_rng(seed)
    y = draw.integers(0, classes, count)
    centres = draw.normal(size=(classes, features))
    return {"x": (centres[y] + draw.normal(size=(count, features))).astype(np.float32), "y": y}


TEXT = "the cat sat on the mat, a dog ran to it. who saw how the fox jumps over that lazy one? nobody but the owl; it flew.\n" * 5


def prepared(home: Path, spec: Mapping[str, Any], **arrays: np.ndarray[Any, Any]) -> Path:
    """A directory to run in with what the job learns from: a short text, or arrays, which are blobs unless others are given."""
    if spec["data"]["source"]["type"] != "text":
        return workspace(home, spec, **(arrays or blobs()))
    workspace(home, spec)
    (home / "data" / "set@1" / "text.txt").write_text(TEXT)
    return home


def trained(nursery: Nursery, home: Path, spec: Mapping[str, Any], ranks: int = 1, **arrays: np.ndarray[Any, Any]) -> Path:
    """The same after a run of so many processes that came to its end."""
    prepared(home, spec, **arrays)
    assert nursery.run(home, ranks) == [0] * ranks, log(home)
    return home
