"""Samples are a protocol: rows that are not in memory feed training, masks and noise as tensors do."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from stoker.spec.data import Loader
from stoker.spec.task import MaskedLM
from tests.support.samples import HOST
from worker.trainer.data import Dataset, Description, Feed, Samples, TensorSamples, mask
from worker.trainer.data.noise import WithNoise
from worker.trainer.data.samples import Pair, ready
from worker.trainer.runtime.world import World

ALONE = World(0, 1, HOST, 0, 1)
ROWS, WIDTH = 100, 6


@dataclass(frozen=True)
class Stored:
    """Rows of a file, of which only those asked for are read."""

    path: Path
    targets: torch.Tensor

    def rows(self) -> np.memmap[tuple[int, int], np.dtype[np.int32]]:
        return np.memmap(self.path, np.int32, "r", shape=(ROWS, WIDTH))

    def __len__(self) -> int:
        return ROWS

    @property
    def tokens_per_sample(self) -> int:
        return WIDTH

    @property
    def counted(self) -> torch.Tensor:
        return self.targets

    def space(self, rows: int) -> torch.Tensor:
        return torch.empty(rows, WIDTH, dtype=torch.int32)

    def drawn(self, rows: torch.Tensor, epoch: int, space: torch.Tensor | None = None) -> Pair:
        out = self.space(len(rows)) if space is None else space[: len(rows)]
        out.copy_(torch.from_numpy(self.rows()[rows.numpy()]))
        return out, self.targets[rows]

    def slice(self, start: int, stop: int, device: torch.device) -> Pair:
        return ready(torch.from_numpy(self.rows()[start:stop].copy()), device), ready(self.targets[start:stop], device)

    def mean(self) -> torch.Tensor:
        return torch.from_numpy(self.rows().mean(0, np.float64, keepdims=True))

    def extremes(self) -> torch.Tensor:
        return torch.from_numpy(np.stack([self.rows().min(0), self.rows().max(0)]))

    def with_targets(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Stored":
        return replace(self, targets=change(self.targets))

    def reconstructing(self) -> Samples:
        return Stored(self.path, torch.from_numpy(self.rows().copy()))


def both(tmp_path: Path) -> tuple[Samples, Samples]:
    ids = np.random.default_rng(0).integers(0, 50, (ROWS, WIDTH), np.int32)
    ids.tofile(tmp_path / "rows")
    targets = torch.arange(ROWS)
    return TensorSamples(torch.from_numpy(ids), targets), Stored(tmp_path / "rows", targets)


def batches(samples: Samples) -> list[list[int]]:
    weights = torch.ones(ROWS, dtype=torch.float64)
    feed = Feed(Loader(), samples, batch_size=7, micro_size=3, weights=weights, order_seed=lambda epoch: epoch, world=ALONE)
    return [torch.cat((x, y.reshape(len(y), -1)), 1).flatten().tolist() for k in range(30) for x, y in feed.batch(k).micros]


def test_rows_of_a_file_make_the_batches_that_tensors_make(tmp_path: Path) -> None:
    held, stored = both(tmp_path)
    assert batches(stored) == batches(held)
    assert torch.equal(stored.mean(), held.mean())
    assert torch.equal(stored.extremes(), held.extremes())
    halved: list[Samples] = [each.with_targets(lambda targets: targets // 2) for each in (held, stored)]
    assert halved[0].slice(10, 12, HOST)[1].tolist() == halved[1].slice(10, 12, HOST)[1].tolist() == [5, 5]


def test_tokens_are_hidden_in_rows_of_a_file_as_in_tensors(tmp_path: Path) -> None:
    held, stored = (mask(MaskedLM(), Dataset(part, part, part, Description((WIDTH,), 50)), 3).train for part in both(tmp_path))
    assert batches(stored) == batches(held)
    assert torch.equal(stored.counted, held.counted)
    assert torch.equal(held.counted, both(tmp_path)[0].drawn(torch.arange(ROWS), 0)[0][:, :1]), "ids of the text, not its classes"
    for one, other in zip(stored.slice(3, 9, HOST), held.slice(3, 9, HOST), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(stored.extremes(), held.extremes())
    assert stored.tokens_per_sample == held.tokens_per_sample == WIDTH


def test_noise_is_added_to_rows_of_a_file_as_to_tensors(tmp_path: Path) -> None:
    held, stored = (WithNoise(part, 4, "normal", 1) for part in both(tmp_path))
    assert batches(stored) == batches(held)
    assert torch.equal(stored.mean(), held.mean())
    assert len(stored) == ROWS
    assert torch.equal(stored.counted, held.counted)
