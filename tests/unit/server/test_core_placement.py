"""Placement: nothing twice, whole or not at all, in order, and nobody starves."""

from dataclasses import replace

import hypothesis.strategies as st
from hypothesis import given, settings

from server.placement import Need, Node, could_ever, in_order, missing, place

needs = st.builds(
    Need,
    job_id=st.uuids().map(str),
    device=st.sampled_from(["auto", "cpu", "cuda"]),
    ranks=st.integers(1, 4),
    cpus=st.integers(1, 6),
    memory_bytes=st.integers(0, 20),
    priority=st.integers(-1, 1),
    age=st.floats(0, 200),
)


@st.composite
def node(draw: st.DrawFn) -> Node:
    cpus, memory, gpus = draw(st.integers(1, 8)), draw(st.integers(0, 30)), tuple(range(draw(st.integers(0, 4))))
    free = tuple(g for g in gpus if draw(st.booleans()))
    name = str(draw(st.uuids()))
    return Node(
        name, name, cpus, memory, gpus, draw(st.integers(0, cpus)), draw(st.integers(0, memory)), free, draw(st.booleans())
    )


pending = st.lists(needs, max_size=8, unique_by=lambda n: n.job_id)
nodes = st.lists(node(), max_size=4, unique_by=lambda n: n.id)


@given(pending, nodes)
@settings(max_examples=200, deadline=None)
def test_nothing_is_given_twice_or_beyond_what_is_free(pending: list[Need], nodes: list[Node]) -> None:
    made = place(pending, nodes)
    assert len({p.job_id for p in made}) == len(made)
    for n in nodes:
        mine = [p for p in made if p.worker_id == n.id]
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
        assert (p.cpus, p.memory_bytes) == (need.cpus, need.memory_bytes)
        assert need.device in ("auto", p.device)
        assert len(p.gpus) == (need.ranks if p.device == "cuda" else 0)


@given(pending, nodes)
@settings(max_examples=200, deadline=None)
def test_the_first_in_line_is_placed_if_it_fits_anywhere(pending: list[Need], nodes: list[Node]) -> None:
    made = {p.job_id for p in place(pending, nodes)}
    for need in in_order(pending)[:1]:
        devices = ("cuda", "cpu") if need.device == "auto" else (need.device,)
        assert (need.job_id in made) == any(not missing(need, n, d) for n in nodes for d in devices)


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
    assert [(p.job_id, p.worker_id) for p in place([BIG, SMALL], [BUSY, other], patience=60)] == [("small", "m")]


def test_auto_takes_gpus_where_they_are_free_and_cpus_elsewhere() -> None:
    auto = Need("a", "auto", 2, 2, 0)
    with_gpus = Node("g", "g", 4, 100, (0, 1), 4, 100, (0, 1))
    assert place([auto], [BUSY, with_gpus])[0].gpus == (0, 1)
    assert place([auto], [BUSY, replace(with_gpus, free_gpus=(1,))])[0].device == "cpu"


def test_priority_before_age() -> None:
    urgent = replace(SMALL, job_id="urgent", priority=1, age=0.0)
    one = replace(BUSY, free_cpus=1)
    assert [p.job_id for p in place([SMALL, urgent], [one])] == ["urgent"]
