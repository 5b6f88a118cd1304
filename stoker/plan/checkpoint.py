"""Bytes of one checkpoint, file by file as `worker.trainer.checkpoint` writes them."""

import math
from collections.abc import Iterable

from stoker.facts import DatasetFacts, ImageFacts, TextFacts
from stoker.plan.known import Known
from stoker.plan.prediction import CheckpointSizeView
from stoker.plan.recurrent import streams_bytes
from stoker.plan.remembered import remembered
from stoker.plan.spread import shards
from stoker.plan.tape import FP32, INT64, Shape, Tape, Weight
from stoker.spec import JobSpec
from stoker.spec.data import Arrays, Bpe, ByteTokenizer, CharTokenizer, Csv, FileTokenizer, ImageFolder, Parquet
from stoker.spec.distributed import DDP, Cuttable, LocalSGD
from stoker.spec.model import GAN
from stoker.spec.training.adversarial import FreeAttack

RNG_BYTES = 5056
"""State of PyTorch's generator on a CPU; that on a GPU is 16 bytes beside it."""
STATE_BYTES, METRIC_BYTES = 360, 35
"""Of state.json without metrics, and per metric."""
HEADER_BYTES = len('"":{"dtype":"F32","shape":[],"data_offsets":[]},')
"""Per tensor in the header of its file, beside name, shape and offsets."""
STEPS_BYTES, STEP_BYTES = 13, 25
"""Of data.json: the list of fitted steps, and per step."""
FILE_BYTES = 142
"""Per file in the manifest."""
BPE_TOKEN_BYTES, BPE_BYTES = 34, 4900
"""Of tokenizer.json: per learned token, in vocabulary and merges, and the rest with the 256 bytes."""
FILE_TOKEN_BYTES = 40
"""The same per token of a published tokenizer: word pieces have about 20, byte pairs with their merges about 60."""


def optimizer_bytes(spec: JobSpec, tape: Tape) -> int:
    """In memory."""
    return _bytes(remembered(spec, tape))


def _bytes(tensors: Iterable[Weight]) -> int:
    return sum(tensor.size * tensor.item for tensor in tensors)


def buffers_bytes(tape: Tape) -> int:
    """Running statistics are float32, their counts (scalars) int64."""
    return sum(buffer.size * (FP32 if buffer.shape else INT64) for buffer in tape.buffers)


def keeps_best(spec: JobSpec) -> bool:
    """Whether the weights of the best evaluation are held and saved beside the newest."""
    return spec.training.early_stopping is not None and spec.training.early_stopping.restore_best


def average_bytes(spec: JobSpec, tape: Tape) -> int:
    """Of an average of the weights, in float32 at least; with it go statistics of its own where those are computed anew."""
    if spec.training.ema is None and spec.training.swa is None:
        return 0
    weights, buffers = averaged(spec, tape)
    return sum(w.size for w in weights) * FP32 + sum(b.size * (FP32 if b.shape else INT64) for b in buffers)


def averaged(spec: JobSpec, tape: Tape) -> tuple[list[Weight], list[Weight]]:
    """Weights that are averaged, those of a gan's generator alone; and statistics that are computed anew for them."""
    within = "generator." if isinstance(spec.model, GAN) else ""
    weights = [weight for weight in tape.weights if weight.name.startswith(within)]
    return weights, [] if spec.training.swa is None else [b for b in tape.buffers if b.name.startswith(within)]


def checkpoint_of(spec: JobSpec, facts: DatasetFacts, known: Known, tape: Tape, ranks: int) -> CheckpointSizeView:
    """Without the text of the spec, which `CheckpointSizeView.with_spec` adds."""
    content = tape.weight_bytes + buffers_bytes(tape)
    model = content + _headers(spec, _entries((*tape.weights, *tape.buffers), ("",)), content, "model/")
    best = model if keeps_best(spec) else 0
    moments = remembered(spec, tape)
    optimizer = _bytes(moments)
    optimizer += _headers(spec, _entries(moments, ("",)), optimizer, "optimizer/")
    state = (
        _ranks(ranks, tape.gpu)
        + _apart(spec, tape)
        + _average(spec, tape)
        + _carried(spec, known)
        + _recorded(spec, ranks)
        + streams_bytes(spec)
        + _documents(spec, facts, known)
    )
    total = model + best + optimizer + state
    kept = spec.checkpoint.keep_last + spec.checkpoint.keep_best + 1
    return CheckpointSizeView(
        model_bytes=model,
        optimizer_bytes=optimizer,
        best_bytes=best,
        state_bytes=state,
        shards=shards(spec.distributed),
        total_bytes=total,
        kept=kept,
        kept_bytes=kept * total,
    )


Entry = tuple[int, Shape, int]
"""Characters of all names of equal tensors together, their shape, and how many they are."""


def _entries(weights: Iterable[Weight], suffixes: tuple[str, ...]) -> list[Entry]:
    """Per weight and suffix; `{}` in a name is the index of each copy."""
    return [
        ((len(w.name) + len(suffix)) * w.copies + (_digits(w.copies) - 2 * w.copies if "{}" in w.name else 0), w.shape, w.copies)
        for w in weights
        for suffix in suffixes
    ]


def _digits(count: int) -> int:
    """Characters of 0, 1 … count - 1 written one after another."""
    total, power = count, 10
    while power < count:
        total += count - power
        power *= 10
    return total


def _header(entries: Iterable[Entry], content: int) -> int:
    """Of a safetensors file: length, then JSON with name, type, shape and both offsets of each tensor, padded to 8."""
    offsets = 2 * len(str(content)) + 1
    size = 1
    for names, shape, count in entries:
        size += names + count * (HEADER_BYTES + len(",".join(map(str, shape))) + offsets)
    return 8 + -(-size // 8) * 8


PIECE_BYTES, ENTRY_BYTES = 57, 43
"""Of shards.json, beside names and shapes: per piece of a tensor, and per tensor."""


def _headers(spec: JobSpec, entries: list[Entry], content: int, store: str) -> int:
    """Whole, the header of one file; in pieces, the headers of all shards, and what the index says of each tensor and piece.

    Stages share out tensors, other strategies cut each of them; layers that are cut over ranks leave vectors whole.
    """
    how, held = spec.distributed, shards(spec.distributed)
    if held == 1:
        return _header(entries, content)
    cuts = held // (how.pipeline_degree if isinstance(how, DDP) else 1)
    vectors = cuts // (how.tensor_degree if isinstance(how, Cuttable) else 1)
    total, offsets = 0, 2 * len(str(content // held)) - 1
    for names, shape, count in entries:
        digits = len(",".join(map(str, shape)))
        parts = min(cuts if len(shape) > 1 else vectors, shape[0]) if shape else 1
        total += parts * (names + count * (len(store) + HEADER_BYTES + digits + offsets))
        total += names + count * (ENTRY_BYTES + digits + parts * (PIECE_BYTES + digits + 2 * len(shape)))
    return total


def _ranks(ranks: int, gpu: bool) -> int:
    """ranks.safetensors: random states, an unreported loss and the part of the batch of each rank."""
    content = ranks * (RNG_BYTES + 2 * INT64 + (16 if gpu else 0))
    return content + _header([(11, (ranks, RNG_BYTES), 3 + gpu)], content)


def _apart(spec: JobSpec, tape: Tape) -> int:
    """parts.safetensors: where ranks learn apart, weights and moments of each, as between two averages."""
    match spec.distributed:
        case LocalSGD(sync_every=every, average_optimizer_state=shared):
            own = [w for w in remembered(spec, tape) if w.shape] if every > 1 or not shared else []
            kept = [*(tape.weights if every > 1 else ()), *own]
            ranks, count = spec.distributed.world_size, sum(weight.copies for weight in tape.weights)
            content = ranks * sum(weight.size * weight.item for weight in kept)
            digits = _digits(count) / count  # of the index of a weight, which stands for its name
            names = sum((len("local_sgd/weight.") + digits) * w.copies for w in (tape.weights if every > 1 else ()))
            names += sum((len("local_sgd/state..") + len(w.name.rpartition(".")[2]) + digits) * w.copies for w in own)
            shapes: list[Entry] = [(0, (ranks, *weight.shape), weight.copies) for weight in kept]
            return content + _header([(round(names), (), 0), *shapes], content) + FILE_BYTES if kept else 0
        case _:
            return 0


def _average(spec: JobSpec, tape: Tape) -> int:
    """parts.safetensors where weights are averaged."""
    content = average_bytes(spec, tape)
    weights, buffers = averaged(spec, tape)
    tensors = (*weights, *buffers)
    if not content:
        return 0
    if shards(spec.distributed) > 1:
        return content + _headers(spec, _entries(tensors, ("",)), content, "parts/average/")
    return content + _header([(n + len("average/") * c, s, c) for n, s, c in _entries(tensors, ("",))], content) + FILE_BYTES


def carried_bytes(spec: JobSpec, known: Known) -> int:
    """Of the disturbances that each rank of a free attack carries from step to step."""
    if not isinstance(spec.training.adversarial, FreeAttack):
        return 0
    return -(-spec.training.batch_size // spec.distributed.data_parts) * math.prod(known.shape) * FP32


def _carried(spec: JobSpec, known: Known) -> int:
    """parts.safetensors with those of all ranks."""
    content = carried_bytes(spec, known) * spec.distributed.world_size
    places = -(-spec.training.batch_size // spec.distributed.data_parts)
    shape = (spec.distributed.world_size, places, *known.shape)
    return content + _header([(len("adversary/disturbance"), shape, 1)], content) + FILE_BYTES if content else 0


def _recorded(spec: JobSpec, ranks: int) -> int:
    """parts.safetensors with what the discriminator of a gan lost on each rank since the last report."""
    if not isinstance(spec.model, GAN):
        return 0
    averaged_too = spec.training.ema is not None or spec.training.swa is not None
    file = 0 if averaged_too else FILE_BYTES
    return ranks * INT64 + _header([(len("discriminator/loss"), (ranks,), 1)], ranks * INT64) + file


def _documents(spec: JobSpec, facts: DatasetFacts, known: Known) -> int:
    """The JSON files but job.json, the fitted normalization and the manifest."""
    state = STATE_BYTES + METRIC_BYTES * (1 + len(spec.evaluation.metrics or ()))
    steps = (spec.data.normalization is not None) + known.text + (known.vocabulary is not None)
    sizes = [state, 60 + _names(spec, facts, known) + STEPS_BYTES + STEP_BYTES * steps]
    if spec.data.normalization is not None:
        features = 1
        if spec.data.normalization.per_channel:
            features = known.shape[0]
        sizes.append(_header([(10, (features,), 2)], 2 * features * FP32) + 2 * features * FP32)
    if known.text:
        sizes.append(_tokenizer(spec, facts, known))
    tensors = 4 if keeps_best(spec) else 3
    return sum(sizes) + FILE_BYTES * (tensors + len(sizes) + 1)


def _names(spec: JobSpec, facts: DatasetFacts, known: Known) -> int:
    """Names of columns and classes in data.json."""
    match spec.data.source:
        case Csv(columns=columns) | Parquet(columns=columns):
            return sum(len(name) + 4 for name in columns or ()) + 4 * known.outputs
        case ImageFolder():
            counts = facts.content.counts if isinstance(facts.content, ImageFacts) else {}
            return sum(len(name) + 4 for name in counts)
        case Arrays():
            return 4 * known.outputs
        case _:
            return 0


def _tokenizer(spec: JobSpec, facts: DatasetFacts, known: Known) -> int:
    match spec.data.tokenizer:
        case None | ByteTokenizer():
            return 16
        case CharTokenizer():
            return 32 + 2 * facts.content.distinct_characters if isinstance(facts.content, TextFacts) else 32
        case Bpe(vocab_size=size):
            return BPE_BYTES + BPE_TOKEN_BYTES * (size - 256)
        case FileTokenizer():
            return FILE_TOKEN_BYTES * (known.vocabulary or known.outputs)
