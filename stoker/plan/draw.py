"""A spec's model, played on paper."""

from collections.abc import Callable
from typing import assert_never

from stoker.errors import Finding, SpecError
from stoker.plan.decoder import play_decoder
from stoker.plan.encoder import play_encoder
from stoker.plan.finetune import finetune
from stoker.plan.gan import play_gan
from stoker.plan.heads import last_layer, play_heads, play_losses, refuse_shared_heads
from stoker.plan.known import Known
from stoker.plan.layers import play_cnn, play_layers
from stoker.plan.loss import in_chunks, play_loss
from stoker.plan.mlp import play_mlp
from stoker.plan.recurrent import play_recurrent
from stoker.plan.sharing import share
from stoker.plan.spectral import bound
from stoker.plan.tape import Tape, Value
from stoker.spec import JobSpec
from stoker.spec.derived.arithmetic import hidden_tokens
from stoker.spec.derived.automatic import usual_loss
from stoker.spec.loss import Contested, CrossEntropy, NonSaturating
from stoker.spec.model import CNN, GAN, GRU, HF, LSTM, MLP, RNN, Layers, TransformerDecoder, TransformerEncoder
from stoker.spec.model.shapes import Misfit
from stoker.spec.task import Generation, MaskedLM, Multilabel
from stoker.spec.task.multi_task import MultiTask


def draw(spec: JobSpec, known: Known, batch: int) -> Tape:
    """One training pass of `batch` samples on one rank. Raises SpecError for layers that do not fit."""
    tape = Tape(batch, gpu=spec.resources.device == "cuda", mixed=spec.precision.mixed, pure=spec.precision.pure)
    if isinstance(spec.model, GAN):
        return _contest(spec, spec.model, known, tape)
    samples = tape.start(known.shape)
    vocabulary = known.vocabulary or (known.outputs if known.text else None)
    match spec.model:
        case MLP():
            out = play_mlp(tape, spec.model, samples, known.outputs)
        case Layers() as stack:
            out = _stack("/model/layers", lambda: play_layers(tape, stack, samples, vocabulary))
        case CNN() as network:
            out = _stack("/model", lambda: play_cnn(tape, network, samples, known.outputs))
        case RNN() | LSTM() | GRU():
            out = play_recurrent(
                tape, spec.model, samples, known.outputs, vocabulary=known.vocabulary, text=known.text, cut=spec.training.tbptt
            )
        case TransformerDecoder():
            out = play_decoder(
                tape,
                spec.model,
                known.shape[0],
                known.outputs,
                again=spec.activation_checkpointing.recomputed(spec.model.num_layers),
            )
        case TransformerEncoder():
            out = play_encoder(
                tape,
                spec.model,
                samples,
                known.outputs,
                vocabulary=vocabulary,
                filled=known.vocabulary is None,
                again=spec.activation_checkpointing.recomputed(spec.model.num_layers),
            )
        case HF():
            message = "a Hugging Face directory is read by the server, and this document has not been there"
            raise SpecError([Finding(pointer="/model/type", code="unresolved", message=message)])
        case _:
            assert_never(spec.model)
    last = last_layer(tape)
    share(tape, spec.model.sharing)
    if isinstance(spec.task, MultiTask):
        refuse_shared_heads(tape, last, bool(spec.model.sharing))
        out = play_heads(tape, spec.task, out)
    bound(spec.regularization, tape)
    finetune(tape, spec.initialization.finetune)
    if isinstance(spec.task, MultiTask):
        play_losses(tape, spec.task, out)
        return tape
    if isinstance(spec.task, MaskedLM):
        out = tape.chosen(out, hidden_tokens(known.shape[0], spec.task.mask_rate))
    weighted = spec.data.sample_weight_column is not None
    loss = spec.loss or usual_loss(spec.task)
    play_loss(tape, loss, out, labels=isinstance(spec.task, Multilabel), weighted=weighted)
    if isinstance(loss, CrossEntropy) and loss.chunk_tokens is not None:
        in_chunks(tape, loss.chunk_tokens, out, judged=spec.evaluation.batch_size or batch)
    return tape


def _contest(spec: JobSpec, model: GAN, known: Known, tape: Tape) -> Tape:
    """Two networks, each with its passes."""
    loss = spec.loss if isinstance(spec.loss, Contested) else NonSaturating()
    every = spec.task.discriminator_steps if isinstance(spec.task, Generation) else 1
    try:
        play_gan(tape, model, known.shape, loss, spec.regularization, every)
    except Misfit as misfit:
        message = f"a layer does not fit what the one before it gives: {misfit.sentence}"
        raise SpecError([Finding(pointer=misfit.pointer, code="layers-shape", message=message)]) from misfit
    return tape


def _stack(pointer: str, play: Callable[[], Value]) -> Value:
    """Rules refuse a stack that does not fit before anybody plans it; one that gets here is refused all the same."""
    try:
        return play()
    except Misfit as misfit:
        message = f"a layer does not fit what the one before it gives: {misfit.sentence}"
        raise SpecError([Finding(pointer=pointer, code="layers-shape", message=message)]) from misfit
