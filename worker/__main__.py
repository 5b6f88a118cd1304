"""`python -m worker`: this machine as a worker of Stoker. SIGTERM ends it; the runs it started go on."""

import logging
import signal
import sys
import threading

from pydantic import ValidationError

from stoker.timers import timers_from_environment
from worker.node.heartbeat import NodeHeartbeat
from worker.node.warm_keeper import WarmKeeper
from worker.settings import WorkerSettings, load_settings

log = logging.getLogger("worker")


def main() -> int:
    """Answers the exit code: 0 after SIGTERM, 2 for settings that are not usable."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for noisy in ("httpx", "httpcore"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        settings = load_settings()
        timers = timers_from_environment()
    except (ValidationError, ValueError) as error:
        sys.stderr.write(f"stoker worker: {error}\n")
        return 2
    settings.runs.mkdir(mode=0o700, parents=True, exist_ok=True)
    heartbeat = NodeHeartbeat(settings, timers, WarmKeeper(settings))
    heartbeat.start()
    try:
        return _serve(settings, heartbeat)
    finally:
        heartbeat.stop()


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
    sys.exit(main())
