"""Messages say what is wrong, where, and what to do."""

from typing import Any

import pytest

from server.attempts.headers import Started, header_of
from server.checkpoints.manifest import manifest_of
from server.errors import Refusal
from server.jobs.sentences import stands
from server.placement import Need, Node
from server.scheduler import _message_of_several
from stoker.status import TRANSITIONS

FILE = {"path": "a", "bytes": 1, "sha256": "0" * 64}


def test_a_state_is_said_as_people_say_it() -> None:
    assert [stands(state) for state in ("succeeded", "failed", "cancelled")] == [
        "The job succeeded",
        "The job failed",
        "The job was cancelled",
    ]
    assert {stands(state) for state in TRANSITIONS} >= {"The job is queued", "The job is cancelling", "The job is paused"}


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({"total_steps": 1}, "started frame: field step: field required"),
        ({"step": -1, "total_steps": 1}, "started frame: field step: input should be greater than or equal to 0"),
    ],
)
def test_a_small_frame_that_does_not_fit_is_refused_by_field(header: dict[str, Any], said: str) -> None:
    with pytest.raises(Refusal) as refused:
        header_of(Started, header)
    assert (refused.value.code, refused.value.detail) == ("frame_invalid", said)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({"step": 1}, "checkpoint frame: field files: field required"),
        (
            {"step": 1, "files": [FILE | {"path": "../a"}]},
            "checkpoint frame: field files.0.path: value error, not a plain relative path",
        ),
        ({"step": 1, "files": [FILE, FILE]}, "checkpoint frame: field files names one path twice"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused_by_field(header: dict[str, Any], said: str) -> None:
    with pytest.raises(Refusal) as refused:
        manifest_of(header)
    assert refused.value.detail == said


def test_a_field_in_a_message_is_short_and_readable() -> None:
    with pytest.raises(Refusal) as refused:
        manifest_of({"step": 1, "files": [FILE], "metrics": {"\x00" + "m" * 100: "x"}})
    assert refused.value.detail.startswith("checkpoint frame: field metrics.\ufffd" + "m" * 63 + ".")


def several(nodes: int, fewest: int) -> Need:
    return Need("job_1", "cpu", ranks=1, cpus=2, memory_bytes=3 << 30, nodes=nodes, fewest=fewest)


def worker(name: str, network: str = "network", cpus: int = 2) -> Node:
    return Node(name, name, cpus, 4 << 30, (), cpus, 4 << 30, (), network=network)


def test_a_job_of_several_nodes_says_what_it_lacks() -> None:
    need, small = several(3, 3), worker("s", cpus=1)
    assert _message_of_several(need, [], [worker("a"), small]) == (
        "The job needs 3 nodes with 1 rank, 2 CPU slots and 3.00 GiB of memory each; 1 worker is large enough. "
        "Add workers or lower distributed.nodes."
    )
    apart = [worker("a"), worker("b"), worker("c", "machine 1")]
    assert _message_of_several(need, apart, apart) == (
        "The job needs 3 nodes that can reach each other; at most 2 can. Set STOKER_WORKER_ADDRESS on each worker."
    )
    near = [worker("a"), worker("b"), worker("c")]
    assert _message_of_several(several(3, 2), near[:1], near) == (
        "The job needs at least 2 of 3 nodes; 1 in service are large enough, the others are lost or draining."
    )
    assert "busy or reserved" in _message_of_several(need, near, near)
