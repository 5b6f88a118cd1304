"""`python -m worker`: this machine as a worker of Stoker. SIGTERM ends it; the runs it started go on.

`python -m worker --check`, for health checks: whether the worker with this state directory was heard by the server within a lease.
"""

import logging
import signal
import sys
import threading
import time
from collections.abc import Sequence

from pydantic import ValidationError

from stoker.timers import TimerSettings, timers_from_environment
from worker.node.heartbeat import NodeHeartbeat
from worker.node.warm_keeper import WarmKeeper
from worker.settings import WorkerSettings, load_settings

log = logging.getLogger("worker")


def main(arguments: Sequence[str] = ()) -> int:
    """Answers the exit code: 0 after SIGTERM, 2 for settings or arguments that are not usable. `--check`: 0 healthy, 1 not."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for noisy in ("httpx", "httpcore"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        settings = load_settings()
        timers = timers_from_environment()
    except (ValidationError, ValueError) as error:
        sys.stderr.write(f"stoker worker: {error}\n")
        return 2
    if arguments:
        return _check(settings, timers, arguments)
    settings.runs.mkdir(mode=0o700, parents=True, exist_ok=True)
    heartbeat = NodeHeartbeat(settings, timers, WarmKeeper(settings))
    heartbeat.start()
    try:
        return _serve(settings, heartbeat)
    finally:
        heartbeat.stop()


def _check(settings: WorkerSettings, timers: TimerSettings, arguments: Sequence[str]) -> int:
    if list(arguments) != ["--check"]:
        sys.stderr.write("usage: python -m worker [--check]\n")
        return 2
    try:
        silent = time.time() - settings.heard.stat().st_mtime
    except OSError:
        sys.stderr.write(f"stoker worker: no worker with the state directory {settings.state_dir} has reached the server yet\n")
        return 1
    if silent > timers.lease:
        sys.stderr.write(
            f"stoker worker: the server last answered {silent:.0f} s ago, longer than a lease of {timers.lease:g} s\n"
        )
        return 1
    return 0


def _serve(settings: WorkerSettings, heartbeat: NodeHeartbeat) -> int:
    if settings.redis_url is None:
        log.info("no STOKER_REDIS_URL: work arrives with heartbeats")
        leave = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: leave.set())
        leave.wait()
        return 0
    # Imported here: without a broker there is no need for Celery.
    from worker.node.app import consume, make_app

    return consume(make_app(settings, heartbeat.launcher.launch), settings)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
