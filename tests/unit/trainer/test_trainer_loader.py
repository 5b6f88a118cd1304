"""Every sample of an epoch is used exactly once, for any batch, micro-batch and number of ranks."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.spec.data import Loader
from worker.trainer.data import Feed, TensorSamples
from worker.trainer.runtime.world import World


def feeds(count: int, batch: int, micro: int, ranks: int, loader: Loader, seed: int = 0) -> list[Feed]:
    samples = TensorSamples(torch.arange(count, dtype=torch.float32).reshape(-1, 1), torch.arange(count))
    weights = torch.arange(count, dtype=torch.float64) + 1
    return [
        Feed(
            loader,
            samples,
            batch_size=batch,
            micro_size=micro,
            weights=weights,
            order_seed=lambda epoch: seed + epoch,
            world=World(rank, ranks, torch.device("cpu"), rank, ranks),
        )
        for rank in range(ranks)
    ]


def used(feed: Feed, step: int) -> list[int]:
    return [int(i) for _, targets in feed.batch(step).micros for i in targets]


@pytest.mark.proves("TRAIN-01")
@settings(deadline=None, max_examples=60)
@given(
    count=st.integers(1, 60),
    batch=st.integers(1, 20),
    micro=st.integers(1, 7),
    ranks=st.integers(1, 5),
    shuffle=st.booleans(),
    drop=st.booleans(),
)
def test_an_epoch_is_every_sample_once(count: int, batch: int, micro: int, ranks: int, shuffle: bool, drop: bool) -> None:
    drop = drop and count >= batch
    parts = feeds(count, batch, micro, ranks, Loader(shuffle=shuffle, drop_last=drop))
    alone = feeds(count, batch, batch, 1, Loader(shuffle=shuffle, drop_last=drop))[0]
    seen: list[int] = []
    for step in range(parts[0].per_epoch):
        together = [i for part in parts for i in used(part, step)]
        assert together == used(alone, step), "ranks divide the batch that one process would take"
        weight = sum(i + 1 for i in together)
        assert all(part.batch(step).weight == weight for part in parts)
        assert all(len(x) <= micro for part in parts for x, _ in part.batch(step).micros)
        seen += together
        assert parts[0].samples_after(step + 1) == len(seen)
    assert len(seen) == len(set(seen)) == (count // batch * batch if drop else count)
    assert parts[0].samples_after(3 * parts[0].per_epoch) == 3 * len(seen)


def test_order_is_new_each_epoch_and_a_function_of_the_seed_and_the_epoch() -> None:
    feed, again, other = (feeds(50, 50, 50, 1, Loader(), seed=s)[0] for s in (0, 0, 100))
    orders = [used(feed, step) for step in range(3)]
    assert orders[0] != orders[1] != orders[2]
    assert used(again, 2) == orders[2], "an epoch does not depend on those before it"
    assert used(other, 0) != orders[0]


def test_without_shuffling_samples_come_in_file_order() -> None:
    feed = feeds(10, 4, 4, 1, Loader(shuffle=False))[0]
    assert [used(feed, step) for step in range(4)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9], [0, 1, 2, 3]]


def test_what_is_held_ends_where_batches_change() -> None:
    """Changes known ahead and changes made on the way, against a feed that is asked for single steps."""
    feed = feeds(40, 4, 4, 1, Loader())[0]
    feed.timeline.change(3, 7)
    taken = [used(feed, step) for step in range(5)]
    feed.timeline.change(5, 10)
    taken += [used(feed, step) for step in range(5, 8)]
    assert [len(rows) for rows in taken] == [4, 4, 4, 7, 7, 10, 4, 10]
    assert sorted(i for rows in taken[:7] for i in rows) == list(range(40))
    for step in range(8):
        fresh = feeds(40, 4, 4, 1, Loader())[0]
        fresh.timeline.change(3, 7)
        fresh.timeline.change(5, 10)
        assert used(fresh, step) == taken[step]


def test_inputs_go_with_their_targets_in_every_block() -> None:
    """More than is gathered at once, into memory that is used again."""
    wide = torch.arange(3000, dtype=torch.float32).reshape(-1, 1).expand(-1, 600).contiguous()
    feed = Feed(
        Loader(), TensorSamples(wide, torch.arange(3000)), batch_size=70, micro_size=70, weights=torch.full((3000,), 2.0).double(),
        order_seed=lambda epoch: epoch, world=World(0, 1, torch.device("cpu"), 0, 1),
    )  # fmt: skip
    for step in (*range(feed.per_epoch), 3, feed.per_epoch + 5, 41):
        batch = feed.batch(step)
        ((inputs, targets),) = batch.micros
        assert torch.equal(inputs[:, 0].long(), targets)
        assert torch.equal(inputs[:, -1].long(), targets)
        assert batch.weight == 2.0 * len(targets)
