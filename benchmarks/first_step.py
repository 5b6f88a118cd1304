"""From POST /v1/jobs to the first optimizer step on a warm node, for one rank and for two."""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.support.data import digits_csv, digits_job, upload  # noqa: E402
from tests.support.stack import Stack  # noqa: E402

ROUNDS = 10


def one(stack: Stack, ranks: int) -> tuple[float, float]:
    """Seconds from the request to the first metric line in the rank's journal, and to `succeeded`."""
    spec = digits_job(training={"max_steps": 3, "batch_size": 48}, logging={"interval": {"steps": 1}}, name=f"r{ranks}")
    spec["distributed"] = {"strategy": "ddp", "processes_per_node": 2} if ranks == 2 else {"strategy": "single"}
    spec["evaluation"] = {"interval": {"steps": 3}, "metrics": []}
    spec["schedule"] = {"type": "constant"}
    with stack.http as http:
        began = time.time()
        job = http.post("/v1/jobs", json=spec).json()["id"]
        state = http.get(f"/v1/jobs/{job}", params={"wait": "terminal", "timeout": 60}).json()
        ended = time.time()
    assert state["state"] == "succeeded", stack.story(job)
    attempt = stack.get(f"/v1/jobs/{job}/attempts")["data"][0]["id"]
    for path in stack.home.glob(f"*/runs/{attempt}/events-rank0.jsonl"):
        for line in path.read_text().splitlines():
            event = json.loads(line)
            if event["type"] == "metrics" and event["step"] == 1:
                return event["t"] - began, ended - began
    raise AssertionError("no first step in the journal")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        stack = Stack(home, f"sqlite:///{home}/stoker.db", scale=1.0)
        try:
            stack.start()
            upload(stack, "digits", {"digits.csv": digits_csv()})
            for ranks, goal in ((1, 0.3), (2, 0.5)):
                one(stack, ranks)
                figures = [one(stack, ranks) for _ in range(ROUNDS)]
                first, whole = (statistics.median(f[i] for f in figures) for i in (0, 1))
                print(
                    f"{ranks} rank(s): first step {first:.3f} s (min {min(f[0] for f in figures):.3f}; goal {goal}), job succeeded {whole:.3f} s"
                )
        finally:
            stack.stop()


if __name__ == "__main__":
    main()
