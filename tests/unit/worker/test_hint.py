"""Whoever reaches the broker can send anything; only an id and a count get through."""

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from worker.host.hint import Hint, parse_hint
from worker.node.app import make_app
from worker.node.tasks import WAKE
from worker.settings import WorkerSettings

BAD: list[tuple[Any, ...]] = [
    ("../../etc", 1),
    ("a/b", 1),
    ("", 1),
    ("a" * 65, 1),
    ("a\n", 1),
    (".hidden", 1),
    (7, 1),
    (None, 1),
    ("att_1", -1),
    ("att_1", 2**31),
    ("att_1", True),
    ("att_1", 1.0),
    ("att_1", "1"),
    ("att_1", [1]),
]


@pytest.mark.parametrize(("attempt_id", "epoch"), BAD)
def test_refused(attempt_id: Any, epoch: Any) -> None:
    with pytest.raises(ValueError, match="is not"):
        parse_hint(attempt_id, epoch)


def test_accepted() -> None:
    assert parse_hint("att_01JZX-9", 3) == Hint("att_01JZX-9", 3)


@pytest.fixture
def launched() -> list[Hint]:
    return []


@pytest.fixture
def app(launched: list[Hint]) -> Iterator[Celery]:
    def launch(hint: Hint) -> bool:
        launched.append(hint)
        return True

    app = make_app(WorkerSettings(worker_name="w", redis_url="redis://127.0.0.1:1/0"), launch)
    yield app
    app.close()


@pytest.mark.parametrize("arguments", [*BAD, (), ("a",), ("a", 1, 2), ("x" * 10**6, 1)])
def test_a_forged_wake_up_is_dropped(app: Celery, launched: list[Hint], arguments: tuple[Any, ...]) -> None:
    app.tasks[WAKE](*arguments)
    app.tasks[WAKE](attempt_id="a", epoch=1)
    assert launched == []


def test_a_wake_up_launches(app: Celery, launched: list[Hint]) -> None:
    app.tasks[WAKE]("att_1", 2)
    assert launched == [Hint("att_1", 2)]


def test_the_queue_knows_one_task_and_takes_json_only(app: Celery) -> None:
    assert set(app.tasks) == {WAKE}
    assert app.conf.accept_content == ["json"]
    assert app.conf.worker_enable_remote_control is False
    assert app.conf.result_backend is None
    assert [queue.name for queue in app.conf.task_queues] == ["stoker.w"]
