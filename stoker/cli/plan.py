"""`stoker plan`."""

from rich.console import Console

from stoker.cli import emit, source, words
from stoker.cli.connection import connect
from stoker.cli.terminal import out
from stoker.errors import Finding, Invalid
from stoker.plan import Plan
from stoker.plan.prediction import ParametersView


def plan(file: source.JobFile, override: source.Overrides = None, fields: emit.Fields = None) -> None:
    """Predict parameters, memory, steps and sizes without running anything.

    stoker plan job.yaml -o training.batch_size=256
    """
    document = source.read(file, override or [])
    source.check(document)
    with connect() as client:
        try:
            answer = client.plan(document.value)
        except Invalid as error:
            raise source.from_server(error, document) from error
    source.warn([Finding.model_validate(found) for found in answer.get("warnings", ())], document)
    emit.one(answer, lambda: draw(out(), Plan.model_validate(answer["plan"]), answer["spec_digest"]), fields=fields)


PARTS = (
    "weights",
    "gradients",
    "optimizer",
    "activations",
    "workspace",
    "buffers",
    "best",
    "dataset",
    "loading",
    "communication",
    "runtime",
)
"""Parts of a rank's memory."""


def _learned(parameters: ParametersView) -> str:
    few = parameters.trainable is not None and parameters.trainable != parameters.total
    return f" ({parameters.trainable:,} trainable)" if few else ""


def draw(console: Console, predicted: Plan, digest: str) -> None:
    """For a person."""
    say = console.print
    say(predicted.model, style="bold")
    parts = ", ".join(f"{part.name} {words.count(part.parameters)}" for part in predicted.parameters.parts if part.parameters)
    total = predicted.flops.total_flops
    batch, steps, memory = predicted.batch, predicted.steps, predicted.memory
    rows = {
        "parameters": f"{predicted.parameters.total:,}{_learned(predicted.parameters)}  ({parts})",
        "samples": f"{predicted.samples.train:,} train, {predicted.samples.validation:,} validation, {predicted.samples.test:,} test",
        "batch": f"{batch.size} = {batch.micro} x {batch.accumulation} accumulated x {batch.ranks} ranks",
        "steps": f"{words.count(steps.total)}  ({steps.per_epoch:,} per epoch)"
        if steps.total is not None
        else steps.unknown or "–",
        "FLOPs": f"{words.count(predicted.flops.step_flops)} per step" + (f", {words.count(total)} in all" if total else ""),
        "memory": f"{words.size(memory.rank_bytes)} per rank, {words.size(memory.total_bytes)} in all",
        "checkpoint": f"{words.size(predicted.checkpoint.total_bytes)}, at most {words.size(predicted.checkpoint.kept_bytes)} kept",
        "digest": digest[:16],
    }
    if predicted.strategy is not None:
        rows["strategy"] = predicted.strategy
    for name, text in rows.items():
        say(f"  {name:<13} {text}")
        if name == "memory":
            for part in PARTS:
                if count := getattr(memory, f"{part}_bytes"):
                    say(f"    {part:<13} {words.size(count):>10}", style="dim")
    if predicted.fits is False:
        say("  does not fit; these would:", style="yellow")
        for option in predicted.alternatives:
            flags = " ".join(f"-o {path}={value}" for path, value in option.patch.items())
            say(
                f"    {option.summary}: {flags}  ({words.size(option.rank_bytes)} per rank{'' if option.fits else ', still too much'})"
            )
