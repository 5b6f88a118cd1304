"""What a plan says: the prediction made from a spec before anything runs. Bytes and FLOPs are exact integers."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, PlainSerializer


def _for_json(value: int | float) -> int | float:
    return value if abs(value) < 2**63 else float(value)


Big = Annotated[int | float, PlainSerializer(_for_json, when_used="json")]
"""An exact integer, which JSON carries as a float where it would not fit 64 bits."""


class View(BaseModel):
    """Lenient: an older client reads a newer server's plan."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class PartView(View):
    name: str
    """Part of the model, `attention` or `head`."""
    parameters: int


class ParametersView(View):
    total: int
    trainable: int | None = None
    """Those that learn; null in a plan that was made before the two were told apart."""
    parts: tuple[PartView, ...]
    """In the order of the model."""


class FlopsView(View):
    """Multiply-adds of matrix products and convolutions, counted as two; element-wise work and recomputation are not counted."""

    forward_per_sample_flops: Big
    step_per_sample_flops: Big
    """Forward and backward."""
    forward_per_token_flops: Big | None
    step_per_token_flops: Big | None
    step_flops: Big
    """One optimizer step of a whole batch, over all ranks."""
    total_flops: Big | None
    """The run without its evaluations; null when its length is unknown."""


class SamplesView(View):
    """Samples per split; for text, windows of tokens."""

    train: int
    validation: int
    test: int
    tokens_per_sample: int | None
    estimated: bool
    """Whether the counts are an estimate: a learned tokenizer decides how many tokens a text has."""


class StepsView(View):
    per_epoch: int
    total: Big | None
    unknown: str | None
    """Why the total is null."""
    epochs: float | None
    """Passes over the training split that the total makes."""
    samples: Big | None
    """Samples that the run trains on, repeats counted."""
    tokens: Big | None
    """Tokens that the run trains on, repeats counted."""
    estimated: bool


class BatchView(View):
    size: int
    micro: int
    accumulation: int
    ranks: int


class MemoryView(View):
    """Largest need of one rank by part, in bytes, and of all ranks together."""

    weights_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    activations_bytes: int
    """What the forward pass of one micro-batch keeps for the backward pass."""
    workspace_bytes: int
    """Short-lived tensors beside them."""
    buffers_bytes: int
    best_bytes: int
    """Copy of the weights of the best evaluation, where early stopping is to restore them."""
    average_bytes: int = 0
    """Average of the weights that is judged in their place."""
    teacher_bytes: int = 0
    """The model that teaches; not what its pass takes."""
    dataset_bytes: int
    """Samples held by each rank."""
    loading_bytes: int
    """Copies made while the data set is read, before there is a model."""
    communication_bytes: int
    """The bucket of gradients that is being exchanged."""
    runtime_bytes: int
    """Interpreter, PyTorch and its libraries."""
    fresh_bytes: int
    """One rank of a run that starts from nothing."""
    resumed_bytes: int
    """One rank of a run that continues from a checkpoint, read into the model that stands already."""
    saving_bytes: int = 0
    """One rank, beside the rest: what a background save holds until it is written; a run without room for it waits instead."""
    rank_bytes: int
    """One rank, the larger of fresh and resumed."""
    device_bytes: int | None = None
    """What one rank needs of its GPU where weights wait in the host's memory; null where all of it is held against the GPU."""
    total_bytes: int
    """All ranks together."""


class CheckpointSizeView(View):
    model_bytes: int
    optimizer_bytes: int
    best_bytes: int
    """The weights of the best evaluation, where early stopping is to restore them."""
    state_bytes: int
    """Random states, position, spec, description of the data, and manifest."""
    shards: int = 1
    """Files in which model and optimizer are spread, 1 where they are whole; the last checkpoint's model is whole in any case."""
    total_bytes: int
    kept: int
    """Checkpoints that retention keeps at most, and the one being written."""
    kept_bytes: int

    def with_spec(self, size: int) -> "CheckpointSizeView":
        """With the text of the spec, in bytes, which every checkpoint holds."""
        total = self.total_bytes + size
        return self.model_copy(
            update={"state_bytes": self.state_bytes + size, "total_bytes": total, "kept_bytes": self.kept * total}
        )


class Alternative(View):
    """A change of the spec that needs less memory."""

    summary: str
    patch: dict[str, Any]
    """Spec path to value, `training.micro_batch_size`: 4; ready for `-o path=value`."""
    rank_bytes: int
    total_bytes: int
    fits: bool


class Plan(View):
    """Everything predicted; stored with the job."""

    model: str
    parameters: ParametersView
    flops: FlopsView
    samples: SamplesView
    batch: BatchView
    steps: StepsView
    memory: MemoryView
    fewest_total_bytes: int | None = None
    """Memory of all ranks on distributed.min_nodes, each of which then takes a larger share; null where all nodes are needed."""
    checkpoint: CheckpointSizeView
    limit_bytes: int | None = None
    """Memory the plan was held against: resources.memory_gb or a worker's; null when none is known."""
    device_limit_bytes: int | None = None
    """Memory of one GPU that a rank was held against."""
    fits: bool | None = None
    strategy: str | None = None
    """Which strategy `auto` is, and why."""
    alternatives: tuple[Alternative, ...] = ()
