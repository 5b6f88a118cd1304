"""A tiny program that keeps the trainer's workspace contract, with misbehaviour to order in spec.json under `fake`.

It "trains" by summing step numbers; its checkpoint is the step and the sum, so a resumed run can be told from a fresh one.
"""

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any


class Fake:
    def __init__(self, home: Path) -> None:
        self.home = home
        self.spec: dict[str, Any] = json.loads((home / "spec.json").read_text())["fake"]
        self.rank = int(os.environ["RANK"])
        self.stop = False
        self.step = self.total = 0
        self.journal = (home / f"events-rank{self.rank}.jsonl").open("a", buffering=1)

    def say(self, kind: str, **fields: Any) -> None:
        self.journal.write(json.dumps({"type": kind, **fields}) + "\n")

    def run(self) -> int:
        if not self.spec.get("ignore_sigterm"):
            signal.signal(signal.SIGTERM, self._terminate)
        else:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self._resume()
        self._meet()
        if self.rank == 0:
            steps = self.spec["steps"]
            self.say("started", step=self.step, total_steps=steps, parameters=1, world_size=self._world(), device="cpu")
            self.say("phase", name="training", t=time.time())
        while self.step < self.spec["steps"]:
            if self.stop:
                self._save(final=False)
                return self._end("preempted", 75)
            self._train()
            if self.step % self.spec.get("checkpoint_every", 10**9) == 0:
                self._save(final=False)
        self._save(final=True)
        return self._end("completed", 0)

    def _meet(self) -> None:
        """Waits until every rank of this attempt is here, as a real one does to form its group."""
        (self.home / f"here-{os.environ['MASTER_PORT']}-{self.rank}").touch()
        while len(list(self.home.glob(f"here-{os.environ['MASTER_PORT']}-*"))) < self._world():
            time.sleep(0.001)

    def _world(self) -> int:
        return int(os.environ["WORLD_SIZE"])

    def _terminate(self, *_: object) -> None:
        self.stop = True

    def _train(self) -> None:
        self.step += 1
        self.total += self.step
        time.sleep(self.spec.get("step_seconds", 0.0))
        if self.rank == 0:
            values = {"train/loss": 1.0 / self.step, "train/sum": float(self.total)}
            self.say("metrics", step=self.step, values=values, t=0.0)
        print(f"rank {self.rank} step {self.step}")
        self._misbehave()

    def _misbehave(self) -> None:
        fault = self.spec.get("fault")
        if not fault or fault["rank"] != self.rank or fault["step"] != self.step:
            return
        match fault["kind"]:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "raise":
                raise RuntimeError("the model is on fire")
            case "exit":
                sys.exit(fault["code"])
            case "flood":
                for _ in range(fault["megabytes"]):
                    os.write(1, b"\x00\xff\x1b[31m" * (1 << 17))
            case "verdict":
                self.say("finished", step=self.step, reason=fault["reason"], message="so it is", metrics={})
                sys.exit(fault["code"])

    def _save(self, *, final: bool) -> None:
        if self.rank != 0:
            return
        name = f"checkpoints/step-{self.step:08d}"
        (self.home / name).mkdir(parents=True, exist_ok=True)
        state = json.dumps({"step": self.step, "total": self.total}).encode() + b" " * self.spec.get("padding", 0)
        (self.home / name / "state.json").write_bytes(state)
        files = [{"path": "state.json", "bytes": len(state), "sha256": hashlib.sha256(state).hexdigest()}]
        (self.home / name / "manifest.json").write_text(json.dumps({"step": self.step, "files": files}))
        self.say("saved", step=self.step, path=name, metrics={"validation/loss": 0.5}, final=final)

    def _resume(self) -> None:
        found = sorted((self.home / "checkpoints").glob("step-*/state.json"))
        if found:
            state = json.loads(found[-1].read_text())
            self.step, self.total = state["step"], state["total"]

    def _end(self, reason: str, code: int) -> int:
        self.say("finished", step=self.step, reason=reason, metrics={"train/sum": float(self.total)})
        return code


def main(home: Path) -> int:
    return Fake(home).run()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
