"""Mistakes that the protocol's tests must find. As a pytest plugin, makes the one that STOKER_MUTANT names.

Each takes one guard out of the real code, as an edit that looks harmless in review would.
"""

import os
from collections.abc import Callable
from typing import Any

from server.attempts import reporting, service
from server.jobs import service as jobs
from server.scheduler import Scheduler
from server.workers import service as workers
from stoker.status import TERMINAL

guard = service._is_current


def lives(job: Any, attempt: Any, epoch: int) -> bool:
    """The job has not ended: true for whoever writes."""
    return job.state not in TERMINAL


def only_in(name: str) -> Callable[[], None]:
    """The loose guard while one of the service's functions runs."""

    def mutate() -> None:
        strict = getattr(service, name)

        def loose(*args: Any) -> Any:
            service._is_current = lives
            try:
                return strict(*args)
            finally:
                service._is_current = guard

        setattr(service, name, loose)

    return mutate


def state_only() -> None:
    service._is_current = lives


def no_deduplication() -> None:
    reporting._next_ones = lambda acked, frames: iter(frames)


def claim_without_compare_and_set() -> None:
    class Equal:
        @staticmethod
        def compare_digest(a: Any, b: Any) -> bool:
            return True

    service.hmac = Equal  # type: ignore[assignment]


def hints_alone() -> None:
    """A heartbeat no longer lists what is assigned, so that a lost wake-up is lost."""
    strict = workers.heartbeat
    workers.heartbeat = lambda *args: strict(*args).model_copy(update={"assigned": ()})


def placement_without_capacity() -> None:
    import server.scheduler as scheduler

    strict = scheduler.nodes_of
    scheduler.nodes_of = lambda *args, **more: [n.emptied() for n in strict(*args, **more)]


def epochs_stand_still() -> None:
    strict = Scheduler._apply

    def again(self: Scheduler, session: Any, placement: Any, now: Any) -> None:
        import server.scheduler as scheduler

        whole = scheduler.transition

        def kept(session: Any, job: Any, target: str, **changes: Any) -> None:
            whole(session, job, target, **{**changes, "epoch": max(1, job.epoch)})

        scheduler.transition = kept
        try:
            strict(self, session, placement, now)
        finally:
            scheduler.transition = whole

    Scheduler._apply = again  # type: ignore[method-assign]


def cancel_of_the_ended() -> None:
    strict = jobs.cancel

    def eager(session: Any, who: Any, job_id: str, timers: Any) -> Any:
        job = strict(session, who, job_id, timers)
        job.state = "cancelled"
        return job

    jobs.cancel = eager


MUTANTS: dict[str, Callable[[], None]] = {
    "state_only": state_only,
    "no_epoch_on_finish": only_in("finish"),
    "no_epoch_on_report": only_in("report"),
    "no_deduplication": no_deduplication,
    "claim_without_compare_and_set": claim_without_compare_and_set,
    "hints_alone": hints_alone,
    "placement_without_capacity": placement_without_capacity,
    "epochs_stand_still": epochs_stand_still,
    "state_without_a_transition": cancel_of_the_ended,
}


def pytest_configure() -> None:
    if name := os.environ.get("STOKER_MUTANT"):
        MUTANTS[name]()
