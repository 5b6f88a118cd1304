"""The Celery consumer of this node: early acknowledgement, no results, no remote control, tasks of seconds.

Tasks run in threads: they only ask for a fork or start a program, the heartbeat's thread makes forking this process unsafe,
and two idle children less are 60 MB less. What a lost or repeated message costs is in `worker.node.tasks`.
"""

from collections.abc import Callable

from celery import Celery
from kombu.entity import Queue

from worker.host.hint import Hint
from worker.node.tasks import WAKE, register
from worker.settings import WorkerSettings

VISIBILITY = 120
"""Seconds after which an unacknowledged message is given out again; tasks are acknowledged at once."""


def make_app(settings: WorkerSettings, launch: Callable[[Hint], bool]) -> Celery:
    """An app that knows one task. No connection is made."""
    app = Celery("stoker", broker=settings.redis_url, set_as_current=False)
    app.conf.update(
        result_backend=None,
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=False,
        task_create_missing_queues=False,
        task_queues=[Queue(settings.queue, routing_key=settings.queue)],  # type: ignore[no-untyped-call]  # kombu has no types
        task_default_queue=settings.queue,
        worker_prefetch_multiplier=1,
        worker_concurrency=2,
        worker_pool="threads",
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,
        broker_transport_options={
            "visibility_timeout": VISIBILITY,
            "socket_timeout": 5,
            "socket_connect_timeout": 2,
            "socket_keepalive": True,
            "health_check_interval": 15,
            "global_keyprefix": "stoker:",
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
        },
        visibility_timeout=VISIBILITY,
        result_backend_transport_options={"visibility_timeout": VISIBILITY},
    )
    register(app, launch)
    app.finalize()
    for name in [name for name in app.tasks if name != WAKE]:
        app.tasks.pop(name)  # celery.map and its kin would run whatever a message names.
    return app


def consume(app: Celery, settings: WorkerSettings) -> int:
    """Serves the node's queue until SIGTERM; waits for a broker that is away. Answers the exit code."""
    worker = app.Worker(
        hostname=f"stoker@{settings.worker_name}",
        queues=[settings.queue],
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        loglevel="INFO",
        quiet=True,
    )
    worker.start()
    return int(worker.exitcode or 0)
