"""Where the time goes between POST /v1/jobs and the first optimizer step on a warm node, phase by phase.

Each row is the median over the rounds of the seconds since the request, as the agent noted them (STOKER_TRACE_LAUNCH):
agent (forked, workspace locked), claimed, prepared (data in place), spawned (ranks forked), started (the trainer's `started`
was read), and of the first metrics line by the trainer's own clock.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.support.data import digits_csv, digits_job, upload  # noqa: E402
from tests.support.stack import Stack  # noqa: E402

ROUNDS = int(os.environ.get("ROUNDS", "10"))
PHASES = ("answered", "agent", "claimed", "prepared", "spawned", "started", "first_step", "finished")


def one(stack: Stack, ranks: int) -> dict[str, float]:
    """Seconds since the request at which each phase ended."""
    spread = {"strategy": "ddp", "processes_per_node": ranks} if ranks > 1 else {"strategy": "single"}
    short = {
        "schedule": {"type": "constant"},
        "training": {"max_steps": 3, "batch_size": 48},
        "logging": {"interval": {"steps": 1}},
    }
    spec = digits_job(distributed=spread, **short)
    with stack.http as http:
        http.get("/readyz")
        began = time.time()
        answer = http.post("/v1/jobs", json=spec)
        assert answer.status_code == 202, answer.text
        job = answer.json()["id"]
        times = {"answered": time.time() - began}
    assert stack.wait(job)["state"] == "succeeded", stack.story(job)
    attempt = stack.get(f"/v1/jobs/{job}/attempts")["data"][0]["id"]
    (run,) = stack.home.glob(f"*/runs/{attempt}")
    for line in (run / "launch-trace.jsonl").read_text().splitlines():
        mark = json.loads(line)
        times[mark["phase"]] = mark["t"] - began
    events = map(json.loads, (run / "events-rank0.jsonl").read_text().splitlines())
    times["first_step"] = next(e["t"] for e in events if e["type"] == "metrics" and e["step"] == 1) - began
    return times


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        stack = Stack(home, f"sqlite:///{home}/stoker.db", scale=1.0)
        try:
            stack.start_broker()
            stack.start_server()
            stack.start_worker(STOKER_TRACE_LAUNCH="1")
            upload(stack, "digits", {"digits.csv": digits_csv()})
            print(f"load {os.getloadavg()[0]:.1f}; rounds {ROUNDS}; goal for first_step: 0.3 s with 1 rank, 0.5 s with 2")
            for ranks in (1, 2):
                one(stack, ranks)
                rounds = [one(stack, ranks) for _ in range(ROUNDS)]
                row = "  ".join(f"{phase} {statistics.median(r[phase] for r in rounds):.3f}" for phase in PHASES)
                print(f"{ranks} rank(s): {row}  (best first_step {min(r['first_step'] for r in rounds):.3f})", flush=True)
        finally:
            stack.stop()


if __name__ == "__main__":
    main()
