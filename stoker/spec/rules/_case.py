"""What rules look at: a completed spec, facts of its data set, and what many rules need, computed once."""

from dataclasses import dataclass
from functools import cached_property

from stoker.facts import ArrayFacts, ArrayFile, ColumnFacts, DatasetFacts, ImageFacts, TableFacts, TextFacts, WeightFacts
from stoker.spec.base import Duration
from stoker.spec.data import Arrays, text_column
from stoker.spec.derived.arithmetic import in_steps, steps_per_epoch
from stoker.spec.derived.problem import Problem, problem_of
from stoker.spec.distributed import DDP, FSDP, ContextParallel, Cuttable, PipelineParallel, TensorParallel
from stoker.spec.job import JobSpec
from stoker.spec.loss import Wasserstein
from stoker.spec.model import GAN, GRU, LSTM, RNN, Layers, Transformer
from stoker.spec.model.layers import Layer
from stoker.spec.model.shapes import Misfit
from stoker.spec.rules._networks import Network, batch_norm_of, every, misfit_of, networks
from stoker.spec.rules._steps import total_steps
from stoker.spec.task import Generation
from stoker.spec.task.multi_task import Head, MultiTask


@dataclass(frozen=True)
class Case:
    """A completed spec and the facts of its data set, where they are known."""

    spec: JobSpec
    facts: DatasetFacts | None

    @property
    def content(self) -> TableFacts | TextFacts | ImageFacts | ArrayFacts | WeightFacts | None:
        return None if self.facts is None else self.facts.content

    @cached_property
    def problem(self) -> Problem:
        return problem_of(self.spec, self.facts)

    @cached_property
    def columns(self) -> dict[str, ColumnFacts]:
        """Columns of the table by name; empty where the data set is not a table or not known."""
        return {column.name: column for column in self.content.columns} if isinstance(self.content, TableFacts) else {}

    @cached_property
    def arrays(self) -> dict[str, ArrayFile]:
        """The files of a source of arrays that the task reads, by the key that names them; a gan reads no targets."""
        source = self.spec.data.source
        if not isinstance(source, Arrays) or not isinstance(self.content, ArrayFacts):
            return {}
        files = self.content.files
        return {key: files[name] for key in self.array_keys if (name := getattr(source, key)) in files}

    @property
    def array_keys(self) -> tuple[str, ...]:
        return ("inputs",) if isinstance(self.spec.task, Generation) else ("inputs", "targets")

    @cached_property
    def text_in_table(self) -> bool:
        """Whether the samples are texts in a column of a table."""
        return text_column(self.spec.data.source) is not None

    @cached_property
    def networks(self) -> tuple[Network, ...]:
        """The model itself, or the two of a gan; none where it is in a directory that nobody has opened yet."""
        return tuple(networks(self.spec.model, self.problem))

    @cached_property
    def layers(self) -> tuple[tuple[str, Layer], ...]:
        """Pointer and layer of all networks of type layers, inner layers of residual stacks included."""
        stacks = ((each.pointer, each.model) for each in self.networks)
        return tuple(pair for at, model in stacks if isinstance(model, Layers) for pair in every(model.layers, f"{at}/layers"))

    @cached_property
    def misfits(self) -> dict[str, Misfit]:
        """The first place in each network where layers do not fit each other, by the pointer of the network."""
        return {each.pointer: found for each in self.networks if (found := misfit_of(each)) is not None}

    @cached_property
    def batch_norm(self) -> str | None:
        """Pointer of the first BatchNorm of the model."""
        return next((at for each in self.networks if (at := batch_norm_of(each.model, each.pointer)) is not None), None)

    @property
    def transformer(self) -> Transformer | None:
        return self.spec.model if isinstance(self.spec.model, Transformer) else None

    @property
    def recurrent(self) -> RNN | LSTM | GRU | None:
        return self.spec.model if isinstance(self.spec.model, RNN | LSTM | GRU) else None

    @property
    def penalized(self) -> bool:
        """Whether a gan pays for the slope of its discriminator."""
        loss = self.spec.loss
        return isinstance(loss, Wasserstein) and loss.gradient_penalty > 0 and isinstance(self.spec.model, GAN)

    @cached_property
    def heads(self) -> tuple[tuple[str, Head], ...]:
        """Pointer and task of each of several tasks."""
        tasks = self.spec.task.tasks if isinstance(self.spec.task, MultiTask) else ()
        return tuple((f"/task/tasks/{index}", head) for index, head in enumerate(tasks))

    @cached_property
    def monitored(self) -> tuple[str, ...]:
        """Metrics of the validation split that the run reports."""
        task, metrics = self.spec.task, self.spec.evaluation.metrics or ()
        keys = ["loss", *(task.modes(metrics) if isinstance(task, MultiTask) else (metric.key for metric in metrics))]
        return tuple(f"validation/{key}" for key in keys)

    @property
    def tensor_parallel(self) -> TensorParallel | None:
        spec = self.spec.distributed
        return spec.tensor_parallel if isinstance(spec, Cuttable) else None

    @property
    def context_parallel(self) -> ContextParallel | None:
        spec = self.spec.distributed
        return spec.context_parallel if isinstance(spec, Cuttable) else None

    @property
    def pipeline_parallel(self) -> PipelineParallel | None:
        spec = self.spec.distributed
        return spec.pipeline_parallel if isinstance(spec, DDP) else None

    @property
    def offloading(self) -> FSDP | None:
        """The strategy, where it keeps parts of the model in the memory of the host."""
        spec = self.spec.distributed
        return spec if isinstance(spec, FSDP) and spec.offload != "none" else None

    @property
    def stateful(self) -> bool:
        """Whether recurrent state goes on from batch to batch."""
        cut = self.spec.training.tbptt
        return cut is not None and cut.stateful

    @cached_property
    def per_epoch(self) -> int | None:
        """Optimizer steps per epoch, where the data set is known."""
        samples = self.problem.samples
        if samples is None:
            return None
        return steps_per_epoch(samples.train, self.spec.training.batch_size, self.spec.data.loader.drop_last)

    @property
    def tokens_per_step(self) -> int | None:
        sequence = self.spec.data.sequence
        return None if sequence is None else self.spec.training.batch_size * sequence.length

    def steps_of(self, length: Duration) -> int | None:
        """A duration in optimizer steps, where arithmetic knows them."""
        if length.epochs is not None and self.per_epoch is None:
            return None
        return in_steps(length, self.per_epoch or 1, self.tokens_per_step)

    @cached_property
    def total_steps(self) -> int | None:
        """Optimizer steps of the run, where arithmetic knows them."""
        return total_steps(self.spec, self.problem.samples, self.steps_of)
