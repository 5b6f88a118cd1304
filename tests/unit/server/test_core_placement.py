"""Placement: nothing twice, whole or not at all, on as many nodes as asked for, in order, and nobody starves."""

from dataclasses import replace
from itertools import combinations

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from server.placement import Need, Node, Part, Placement, could_ever, in_order, missing, place, reachable


@st.composite
def need(draw: st.DrawFn) -> Need:
    count = draw(st.integers(1, 3))
    return Need(
        job_id=str(draw(st.uuids())),
        device=draw(st.sampled_from(["auto", "cpu", "cuda"])),
        ranks=draw(st.integers(1, 4)),
        cpus=draw(st.integers(1, 6)),
        memory_bytes=draw(st.integers(0, 20)),
        priority=draw(st.integers(-1, 1)),
        age=draw(st.floats(0, 200)),
        nodes=count,
        fewest=draw(st.integers(1, count)),
    )


@st.composite
def node(draw: st.DrawFn) -> Node:
    cpus, memory, gpus = draw(st.integers(1, 8)), draw(st.integers(0, 30)), tuple(range(draw(st.integers(0, 4))))
    free = tuple(g for g in gpus if draw(st.booleans()))
    name = str(draw(st.uuids()))
    return Node(
        name,
        name,
        cpus,
        memory,
        gpus,
        draw(st.integers(0, cpus)),
        draw(st.integers(0, memory)),
        free,
        draw(st.booleans()),
        draw(st.sampled_from(["", "network", "network", "machine a"])),
    )


pending = st.lists(need(), max_size=8, unique_by=lambda n: n.job_id)
nodes = st.lists(node(), max_size=4, unique_by=lambda n: n.id)


def parts_on(made: list[Placement], n: Node) -> list[Part]:
    return [part for p in made for part in p.parts if part.worker_id == n.id]


@pytest.mark.proves("DIST-08")
@given(pending, nodes)
@settings(max_examples=200, deadline=None)
def test_nothing_is_given_twice_or_beyond_what_is_free(pending: list[Need], nodes: list[Node]) -> None:
    made = place(pending, nodes)
    assert len({p.job_id for p in made}) == len(made)
    for n in nodes:
        mine = parts_on(made, n)
        assert sum(p.cpus for p in mine) <= n.free_cpus
        assert sum(p.memory_bytes for p in mine) <= n.free_memory_bytes
        gpus = [g for p in mine for g in p.gpus]
        assert len(gpus) == len(set(gpus))
        assert set(gpus) <= set(n.free_gpus)


@given(pending, nodes)
@settings(max_examples=200, deadline=None)
def test_a_job_gets_all_that_it_asks_for(pending: list[Need], nodes: list[Node]) -> None:
    asked = {n.job_id: n for n in pending}
    for p in place(pending, nodes):
        need = asked[p.job_id]
        assert need.fewest <= len(p.parts) <= need.nodes
        assert len({part.worker_id for part in p.parts}) == len(p.parts), "each node is another worker"
        assert len({part.device for part in p.parts}) == 1
        for part in p.parts:
            assert (part.cpus, part.memory_bytes) == (need.cpus, need.memory_bytes)
            assert need.device in ("auto", part.device)
            assert len(part.gpus) == (need.ranks if part.device == "cuda" else 0)


@given(pending, nodes)
@settings(max_examples=200, deadline=None)
def test_nodes_of_one_job_reach_each_other(pending: list[Need], nodes: list[Node]) -> None:
    network = {n.id: n.network for n in nodes}
    for p in place(pending, nodes):
        if len(p.parts) > 1:
            assert len({network[part.worker_id] for part in p.parts}) == 1
            assert network[p.parts[0].worker_id]


@given(pending, nodes)
@settings(max_examples=200, deadline=None)
def test_the_first_in_line_is_placed_if_it_fits_anywhere(pending: list[Need], nodes: list[Node]) -> None:
    made = {p.job_id for p in place(pending, nodes)}
    for need in in_order(pending)[:1]:
        devices = ("cuda", "cpu") if need.device == "auto" else (need.device,)
        assert (need.job_id in made) == any(most(need, nodes, d) >= need.fewest for d in devices)


def most(need: Need, nodes: list[Node], device: str) -> int:
    """The largest number of nodes that fit now and reach each other, by trying every set of them."""
    fit = [n for n in nodes if not missing(need, n, device)]
    sets = (group for size in range(1, len(fit) + 1) for group in combinations(fit, size))
    return max((len(g) for g in sets if len(g) == 1 or (len({n.network for n in g}) == 1 and g[0].network)), default=0)


@given(pending, nodes)
@settings(max_examples=200, deadline=None)
def test_as_many_nodes_as_fit_and_never_more_than_there_can_be(pending: list[Need], nodes: list[Node]) -> None:
    for p in place(pending[:1], nodes):
        assert len(p.parts) == min(pending[0].nodes, most(pending[0], nodes, p.parts[0].device))
        assert len(p.parts) <= reachable(pending[0], nodes)


@given(pending, nodes)
@settings(max_examples=100, deadline=None)
def test_the_order_of_the_input_changes_nothing(pending: list[Need], nodes: list[Node]) -> None:
    assert place(pending, nodes) == place(pending[::-1], nodes[::-1])


BIG = Need("big", "cpu", 1, 4, 0, age=100)
SMALL = Need("small", "cpu", 1, 1, 0, age=1)
BUSY = Node("n", "n", 4, 100, (), 2, 100, ())


def test_small_jobs_pass_a_big_one_only_for_a_while() -> None:
    assert [p.job_id for p in place([replace(BIG, age=30), SMALL], [BUSY], patience=60)] == ["small"]
    assert place([BIG, SMALL], [BUSY], patience=60) == []
    assert [p.job_id for p in place([BIG, SMALL], [BUSY.emptied()], patience=60)] == ["big"]


def test_a_worker_is_kept_free_only_for_who_could_ever_use_it() -> None:
    huge = replace(BIG, cpus=64)
    assert not could_ever(huge, BUSY)
    assert [p.job_id for p in place([huge, SMALL], [BUSY], patience=60)] == ["small"]


def test_other_workers_stay_open_while_one_is_kept() -> None:
    other = Node("m", "m", 1, 100, (), 1, 100, ())
    made = place([BIG, SMALL], [BUSY, other], patience=60)
    assert [(p.job_id, p.parts[0].worker_id) for p in made] == [("small", "m")]


def test_auto_takes_gpus_where_they_are_free_and_cpus_elsewhere() -> None:
    auto = Need("a", "auto", 2, 2, 0)
    with_gpus = Node("g", "g", 4, 100, (0, 1), 4, 100, (0, 1))
    assert place([auto], [BUSY, with_gpus])[0].parts[0].gpus == (0, 1)
    assert place([auto], [BUSY, replace(with_gpus, free_gpus=(1,))])[0].parts[0].device == "cpu"


def test_priority_before_age() -> None:
    urgent = replace(SMALL, job_id="urgent", priority=1, age=0.0)
    one = replace(BUSY, free_cpus=1)
    assert [p.job_id for p in place([SMALL, urgent], [one])] == ["urgent"]


PAIR = Need("pair", "cpu", 1, 2, 0, nodes=2, fewest=2, age=100)
LEFT, RIGHT = (Node(n, n, 4, 100, (), 4, 100, (), network="network") for n in "lr")


def test_several_nodes_or_none() -> None:
    assert [p.worker_name for p in place([PAIR], [LEFT, RIGHT])[0].parts] == ["l", "r"]
    assert place([PAIR], [LEFT, replace(RIGHT, free_cpus=1)]) == []
    assert place([PAIR], [LEFT, replace(RIGHT, network="machine x")]) == []
    assert place([PAIR], [LEFT, replace(RIGHT, network="")]) == []


def test_fewer_nodes_where_the_job_can_do_with_them() -> None:
    elastic = replace(PAIR, fewest=1)
    assert [len(p.parts) for p in place([elastic], [LEFT, RIGHT])] == [2]
    assert [len(p.parts) for p in place([elastic], [LEFT, replace(RIGHT, free_cpus=1)])] == [1]


def test_all_nodes_of_a_job_that_waits_long_are_kept_for_it() -> None:
    busy, third = replace(RIGHT, free_cpus=1), Node("t", "t", 1, 100, (), 1, 100, (), network="network")
    assert [p.job_id for p in place([replace(PAIR, age=30), SMALL], [LEFT, busy], patience=60)] == ["small"]
    assert place([PAIR, SMALL], [LEFT, busy], patience=60) == []
    assert [p.parts[0].worker_id for p in place([PAIR, SMALL], [LEFT, busy, third], patience=60)] == ["t"]
    alone = replace(PAIR, nodes=3, fewest=3)
    assert [p.job_id for p in place([alone, SMALL], [LEFT, busy], patience=60)] == ["small"], "it will never fit"


def test_a_job_goes_only_where_the_image_can_run_it() -> None:
    asks = Need("a", "cpu", 1, 1, 0, backends=frozenset({"horovod"}))
    plain = Node("p", "p", 8, 100, (), 8, 100, ())
    able = replace(plain, id="h", name="h", free_cpus=1, backends=frozenset({"horovod", "other"}))
    assert place([asks], [plain]) == []
    assert not could_ever(asks, plain)
    assert missing(asks, plain, "cpu") == {"horovod": 1}
    assert [p.worker_id for p in place([asks], [plain, able])[0].parts] == ["h"]
    assert place([replace(asks, backends=frozenset())], [plain, able])[0].parts[0].worker_id in ("p", "h")


def test_a_tpu_is_given_once_and_leaves_cpu_jobs_elsewhere() -> None:
    asks = Need("a", "tpu", 1, 1, 0)
    plain = Node("p", "p", 8, 100, (), 8, 100, ())
    board = Node("t", "t", 8, 100, (), 8, 100, (), tpus=1, free_tpus=1)
    made = place([asks, replace(asks, job_id="b")], [plain, board])
    assert [(p.job_id, p.parts[0].worker_id, p.parts[0].devices()["tpus"]) for p in made] == [("a", "t", 1)]
    assert missing(asks, plain, "tpu") == {"tpus": 1}
    assert could_ever(asks, replace(board, free_tpus=0))
    tight = replace(board, free_cpus=1)
    assert place([Need("c", "auto", 1, 1, 0)], [tight, plain])[0].parts[0].worker_id == "p"
    assert place([Need("c", "auto", 8, 8, 0)], [board])[0].parts[0].devices() == {
        "device": "cpu",
        "cpus": 8,
        "gpus": [],
        "memory_bytes": 0,
    }
