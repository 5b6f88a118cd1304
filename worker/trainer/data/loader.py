"""Loader specs into batches. Batch k of the run is a pure function of the data, the seed and k, for any number of ranks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

import torch

from stoker.spec.data.loader import Loader
from stoker.spec.derived.timeline import Place, Timeline
from worker.trainer.data.samples import Samples, ready
from worker.trainer.errors import DataProblem
from worker.trainer.runtime.world import World

BLOCK_BYTES = 2 << 20
"""Inputs that are gathered at once and then only sliced: large enough to pay for the call, small enough for a cache."""

Micro = tuple[torch.Tensor, torch.Tensor]
"""Inputs and targets of one forward pass."""


@dataclass(frozen=True)
class Batch:
    """This rank's part of one optimizer step."""

    micros: tuple[Micro, ...]
    """At least one, the same number on every rank; the last ones are empty where another rank has more samples."""
    weight: float
    """What the summed losses of all ranks are divided by."""
    scale: torch.Tensor
    """Parts / weight: gradients of the summed losses times this, averaged over the parts of a batch, are those of the mean loss."""

    def divided(self, size: int) -> "Batch":
        """The same samples in passes of at most `size` samples."""
        if all(len(inputs) <= size for inputs, _ in self.micros):
            return self
        cuts = [(micro, at) for micro in self.micros for at in range(0, max(1, len(micro[0])), size)]
        return replace(self, micros=tuple((x[at : at + size], y[at : at + size]) for (x, y), at in cuts))


class Feed:
    """The training split as batches."""

    def __init__(
        self,
        spec: Loader,
        samples: Samples,
        *,
        batch_size: int,
        micro_size: int,
        weights: torch.Tensor,
        order_seed: Callable[[int], int],
        world: World,
        streams: bool = False,
        replays: int = 1,
    ) -> None:
        """`weights`: what each sample counts in the mean loss, (n,) float64. With `streams`, each place of the batch goes through
        a stretch of consecutive samples; `replays` steps in a row use the same batch. Raises DataProblem when no batch fills.
        """
        self._replays = replays
        self._streams = streams
        self.samples, self.batch_size, self._micro, self._world = samples, batch_size, micro_size, world
        self._spec, self._weights, self._order_seed = spec, weights, order_seed
        try:
            self.timeline = Timeline(len(samples), batch_size, spec.drop_last)
        except ValueError as error:
            raise DataProblem(f"data.loader.drop_last: {error}; turn it off") from error
        self.per_epoch = self.timeline.per_epoch(batch_size)
        self.samples_per_epoch = min(len(samples), self.per_epoch * batch_size)
        self._sample_bytes = max(1, samples.space(1).nbytes)
        self._held, self._segments = range(0), self.timeline.segments
        self._batches: list[Batch] = []
        """The batches of the numbers that are held, as the timeline was then."""
        self._space = samples.space(0)
        """Where inputs are gathered, again and again: fresh memory costs more than the copy."""
        self._alike = float(weights[0]) if len(weights) and bool((weights == weights[0]).all()) else None
        """What each sample counts, where all count the same."""
        self._order: tuple[int, torch.Tensor] = (-1, torch.empty(0))

    def batch(self, step: int) -> Batch:
        """The batch of the optimizer step with this number, from 0. Its memory is used again once a batch of another block is read."""
        number = step // self._replays
        if number not in self._held or self.timeline.segments is not self._segments:
            self._hold(number)
        return self._batches[number - self._held.start]

    def _hold(self, number: int) -> None:
        """The batch with this number and its neighbours. Blocks begin at fixed places of the epoch."""
        place = self.timeline.place(number)
        together = max(1, min(self.timeline.per_epoch(place.size), BLOCK_BYTES // (self._sample_bytes * place.size)))
        first = place.at // together * together
        self._batches, self._segments = self._gather(place, first, together), self.timeline.segments
        start, later = number - (place.at - first), self._segments[place.segment + 1 :]
        self._held = range(start, min([start + len(self._batches), *(segment.step for segment in later)]))

    def inputs(self) -> Iterator[torch.Tensor]:
        """This rank's part of every batch of the first epoch, as they stand."""
        for step in range(self.per_epoch):
            for inputs, _ in self.batch(step * self._replays).micros:
                yield inputs

    def samples_after(self, steps: int) -> int:
        """Samples that the first steps of the run consume, over all ranks."""
        return self.timeline.samples_after(steps)

    def rows(self, epoch: int) -> torch.Tensor:
        """The order of an epoch: every row once."""
        if self._order[0] != epoch:
            generator = torch.Generator().manual_seed(self._order_seed(epoch))
            count = len(self.samples)
            order = torch.randperm(count, generator=generator) if self._spec.shuffle else torch.arange(count)
            self._order = epoch, self._in_streams(order) if self._streams else order
        return self._order[1]

    def _in_streams(self, order: torch.Tensor) -> torch.Tensor:
        used = len(order) // self.batch_size * self.batch_size
        return torch.cat((order[:used].view(self.batch_size, -1).T.flatten(), order[used:]))

    def _gather(self, place: Place, first: int, together: int) -> list[Batch]:
        """Blocks begin at fixed places of the epoch, so that a resumed run slices the same memory at the same offsets."""
        size, rank, ranks = place.size, self._world.data_index, self._world.data_parts
        start = place.begin + first * size
        rows = self.rows(place.epoch)[start : min(start + together * size, place.end)]
        parts = torch.split(rows, size)
        bounds = [(len(part) * rank // ranks, len(part) * (rank + 1) // ranks) for part in parts]
        cuts = [self._cuts(stop - start, -(-len(part) // ranks)) for (start, stop), part in zip(bounds, parts, strict=True)]
        own = rows if ranks == 1 else torch.cat([part[start:stop] for part, (start, stop) in zip(parts, bounds, strict=True)])
        sizes = [n for cut in cuts for n in cut]
        if len(self._space) < len(own):
            self._space = self.samples.space(len(own))
        drawn = self.samples.drawn(own, place.epoch, self._space)
        inputs, targets = (torch.split(self._staged(part), sizes) for part in drawn)
        micros = iter(list(zip(inputs, targets, strict=True)))
        weights = [self._weight(part) for part in parts]
        scales = {w: torch.tensor(ranks / w if w else 0.0, device=self._world.device) for w in set(weights)}
        return [Batch(tuple(islice(micros, len(cut))), w, scales[w]) for cut, w in zip(cuts, weights, strict=True)]

    def _weight(self, rows: torch.Tensor) -> float:
        return float(self._weights[rows].sum()) if self._alike is None else self._alike * len(rows)

    def _staged(self, values: torch.Tensor) -> torch.Tensor:
        """On the device; through page-locked memory the copy overlaps with what the GPU is doing."""
        on_gpu = self._world.device.type == "cuda"
        return ready(values.pin_memory() if on_gpu and self._spec.pin_memory else values, self._world.device)

    def _cuts(self, count: int, largest: int) -> list[int]:
        """Of `count` samples, where some rank has `largest`."""
        return [min(self._micro, max(0, count - at)) for at in range(0, max(1, largest), self._micro)]
