"""Hidden tokens: how many, which, by what, and that nothing else counts."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from stoker.spec.data.loader import Loader
from stoker.spec.loss import CrossEntropy
from stoker.spec.task import MaskedLM
from worker.trainer.data import Dataset, Description, Feed, TensorSamples, mask
from worker.trainer.loss import build_masked_loss
from worker.trainer.runtime.world import World

LENGTH, WORDS, COUNT = 40, 50, 600
HOST = torch.device("cpu")
IDS = torch.from_numpy(np.random.default_rng(0).integers(0, WORDS, (COUNT, LENGTH), np.int32))


def dataset(spec: MaskedLM, seed: int = 3) -> Dataset:
    plain = TensorSamples(IDS, (IDS + 1) % WORDS)
    return mask(spec, Dataset(plain, plain, plain, Description((LENGTH,), WORDS)), seed)


def drawn(spec: MaskedLM, epoch: int, seed: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids as they are, as the model sees them, and targets."""
    samples = dataset(spec, seed).train
    return IDS, *samples.drawn(torch.arange(COUNT), epoch)


@pytest.mark.proves("ARCH-12")
def test_fifteen_of_a_hundred_are_asked_for_and_hidden_as_in_the_paper() -> None:
    ids, inputs, targets = drawn(MaskedLM(), 0)
    asked = targets >= 0
    assert (asked.sum(1) == 6).all(), "15 % of 40, in every sample"
    assert torch.equal(targets[asked], ids[asked])
    assert torch.equal(inputs[~asked], ids[~asked])
    total = int(asked.sum())
    shares = [int((asked & case).sum()) / total for case in (inputs == WORDS, (inputs != WORDS) & (inputs != ids), inputs == ids)]
    for share, wanted in zip(shares, (0.8, 0.1 * (1 - 1 / WORDS), 0.1 + 0.1 / WORDS), strict=True):
        assert abs(share - wanted) < 5 * math.sqrt(wanted * (1 - wanted) / total)
    assert abs(asked.double().mean(0) - 0.15).max() < 5 * math.sqrt(0.15 * 0.85 / COUNT), "each place is as likely"


def test_shares_can_be_chosen() -> None:
    ids, inputs, targets = drawn(MaskedLM(mask_rate=0.5, masked_share=0.0, random_share=1.0), 0)
    assert ((targets >= 0).sum(1) == 20).all()
    assert (inputs < WORDS).all()
    assert (inputs != ids).any()
    assert torch.equal(*(drawn(MaskedLM(masked_share=0.0, random_share=0.0), 0)[:2])), "asked for, but left as they are"
    assert ((drawn(MaskedLM(mask_rate=0.001), 0)[2] >= 0).sum(1) == 1).all(), "one at least"


def test_masks_follow_from_seed_epoch_and_place_alone() -> None:
    spec = MaskedLM()
    first, again, later, other = drawn(spec, 0), drawn(spec, 0), drawn(spec, 1), drawn(spec, 0, seed=4)
    assert torch.equal(first[2], again[2])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[2], later[2])
    assert not torch.equal(first[2], other[2])
    rows = torch.tensor([17, 5, 599])
    inputs, targets = dataset(spec).train.drawn(rows, 0)
    assert torch.equal(inputs, first[1][rows])
    assert torch.equal(targets, first[2][rows])


def test_a_split_is_always_judged_by_the_same_masks() -> None:
    data = dataset(MaskedLM())
    inputs, targets = data.validation.slice(0, COUNT, HOST)
    part = data.validation.slice(7, 19, HOST)
    assert torch.equal(part[0], inputs[7:19])
    assert torch.equal(part[1], targets[7:19])
    assert not torch.equal(targets, data.test.slice(0, COUNT, HOST)[1]), "each split has its own"
    assert data.about.outputs == WORDS + 1


@pytest.mark.proves("ARCH-12")
def test_only_hidden_places_count() -> None:
    _, _, targets = drawn(MaskedLM(), 0)
    targets = targets[:4].long()
    logits = torch.randn(4, LENGTH, WORDS + 1, dtype=torch.float64, requires_grad=True)
    loss = build_masked_loss(CrossEntropy(label_smoothing=0.1, z_loss=0.01), WORDS + 1, targets)
    total = loss(logits, targets)
    total.backward()
    assert logits.grad is not None
    assert ((logits.grad != 0).any(-1) == (targets >= 0)).all()
    asked = targets >= 0
    chances = torch.log_softmax(logits.detach()[asked], -1)
    wanted = -(0.9 * chances.gather(1, targets[asked][:, None]).sum() + 0.1 * chances.mean(-1).sum())
    wanted += 0.01 * logits.detach()[asked].logsumexp(-1).square().sum()
    assert torch.allclose(total.detach(), wanted)
    assert loss.sample_weights(targets).tolist() == [6.0] * 4
    plain = build_masked_loss(CrossEntropy(), WORDS + 1, targets)
    assert torch.allclose(plain(logits, targets), F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum"))
    assert torch.allclose(plain.each(logits, targets).sum(), plain.likelihood(logits, targets))


def test_batches_are_weighed_by_what_is_asked_for_on_one_and_on_two_ranks() -> None:
    samples = dataset(MaskedLM()).train
    loss = build_masked_loss(CrossEntropy(), WORDS + 1, samples.counted)

    def feed(rank: int, ranks: int) -> Feed:
        world = World(rank, ranks, HOST, rank, ranks)
        weights = loss.sample_weights(samples.counted)
        return Feed(Loader(), samples, batch_size=8, micro_size=4, weights=weights, order_seed=lambda epoch: epoch, world=world)

    alone, parts = feed(0, 1), [feed(rank, 2) for rank in range(2)]
    for step in (0, alone.per_epoch - 1, alone.per_epoch, 3 * alone.per_epoch + 1):
        batch = alone.batch(step)
        whole = torch.cat([targets for _, targets in batch.micros])
        assert batch.weight == int((whole >= 0).sum())
        shared = torch.cat([targets for part in parts for _, targets in part.batch(step).micros])
        assert torch.equal(whole, shared)
    assert not torch.equal(alone.batch(0).micros[0][1], alone.batch(alone.per_epoch).micros[0][1])
