"""What the run learns from: the data set, then the feed of batches and how long the run is in them."""

from dataclasses import dataclass

from stoker.spec.loss import Loss
from worker.trainer.assembly.context import Context
from worker.trainer.data import Codec, Dataset, Feed, Wanted, build_data, mask, with_noise
from worker.trainer.errors import SpecProblem
from worker.trainer.loss import SummedLoss
from worker.trainer.runtime.rhythm import Pace, pace_of
from worker.trainer.task import Aim
from worker.trainer.task.multi_task import width_of
from worker.trainer.training import micro_size
from worker.trainer.training.adversarial import replays_of
from worker.trainer.training.dynamic_batch import keeps_size, lay_out, run_length


@dataclass(frozen=True)
class BuiltData:
    dataset: Dataset
    goal: Loss | None
    """The loss of the spec, or the one that the task implies; None where the parts of the task have one each."""
    width: int
    """Outputs of the model: those of the data set, and more where the loss or several tasks need them."""

    @property
    def outputs(self) -> int:
        """Classes, numbers or tokens that the data set asks for."""
        return self.dataset.about.outputs


@dataclass(frozen=True)
class BuiltFeed:
    feed: Feed
    micro: int
    """Samples of one rank in one forward pass."""
    tokens: int
    """Tokens per sample, 0 where samples are not text."""
    pace: Pace
    """Durations of the spec as moments between steps."""


def read_data(context: Context) -> BuiltData:
    """Raises SpecProblem or DataProblem."""
    context.journal.phase("loading_data")
    spec, aim, seeds = context.spec, context.aim, context.seeds
    data = build_data(
        spec.data,
        _wanted(aim, spec.data.sample_weight_column) if aim.labelled else None,
        aim.count,
        context.home,
        seed=seeds.split,
        world=context.world,
        learned=context.learned,
        inherited=_inherited(context),
    )
    data = with_noise(spec.model, mask(spec.task, data, seeds.mask), seeds.latent)
    goal = spec.loss or aim.loss
    if aim.count is not None and aim.count != data.about.outputs:
        counted = "num_labels" if aim.labels else "num_outputs"
        raise SpecProblem(f"task.{counted} is {aim.count}, but the data set has {data.about.outputs}")
    return BuiltData(data, goal, width_of(spec.task, goal, data.about))


def build_feed(context: Context, data: BuiltData, loss: SummedLoss) -> BuiltFeed:
    """`loss`: it says how much each sample weighs. The length of the run is set on the clock. Raises SpecProblem."""
    training, train = context.spec.training, data.dataset.train
    micro = micro_size(training, context.spec.distributed.data_parts)
    feed = Feed(
        context.spec.data.loader,
        train,
        batch_size=training.batch_size,
        micro_size=micro,
        weights=loss.sample_weights(train.counted),
        streams=training.tbptt is not None and training.tbptt.stateful,
        order_seed=context.seeds.order,
        replays=replays_of(training.adversarial),
        world=context.world,
    )
    tokens = train.tokens_per_sample
    lay_out(training.dynamic_batch, feed.timeline, tokens)
    context.clock.total = run_length(training, feed.timeline, tokens)
    pace = pace_of(feed.timeline, training.batch_size, tokens, steady=keeps_size(training.dynamic_batch))
    return BuiltFeed(feed, micro, tokens, pace)


def _inherited(context: Context) -> Codec | None:
    """The tokenizer of the weights that the run starts from, or of its teacher."""
    if context.given is not None and context.given.codec is not None:
        return context.given.codec
    return None if context.taught is None else context.taught.about.codec


def _wanted(aim: Aim, weights: str | None) -> Wanted:
    parts = tuple(_wanted(part, None) for part in aim.parts)
    return Wanted(aim.classes, aim.columns, aim.labels, weights, aim.name, aim.count, parts, aim.targets)
