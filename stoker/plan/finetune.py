"""Fine-tuning on paper: adapters beside layers, and weights that do not learn."""

import math
from collections.abc import Iterator
from dataclasses import replace

from stoker.errors import Finding, SpecError
from stoker.plan.tape import Tape, Weight
from stoker.spec.initialization.finetune import Finetune, Lora, matches


def finetune(tape: Tape, spec: Finetune | None) -> None:
    """After the model was played. What passes keep, and FLOPs, are those of a model that learns as a whole, and the adapters'."""
    if spec is None:
        return
    tape.weights = [one for weight in tape.weights for one in _single(weight)]
    if spec.adapter is not None:
        tape.weights = [one for weight in tape.weights for one in _beside(tape, spec, spec.adapter, weight)]
    tape.frozen = frozenset(w.name for w in tape.weights if spec.frozen(w.name) and not w.name.endswith((".lora_a", ".lora_b")))


def _single(weight: Weight) -> Iterator[Weight]:
    """Each block's weight by its own name: a pattern may fit some of them."""
    if weight.copies == 1 and "{}" not in weight.name:
        yield weight
        return
    for index in range(weight.copies):
        yield replace(weight, name=weight.name.format(index), copies=1)


def _beside(tape: Tape, spec: Finetune, adapter: Lora, weight: Weight) -> Iterator[Weight]:
    layer = weight.name.removesuffix(".weight")
    yield weight
    if not weight.places or layer == weight.name or not spec.adapted(layer):
        return
    (outputs, inputs), rank = weight.shape, adapter.rank
    yield replace(weight, name=f"{layer}.lora_a", shape=(rank, inputs), places=0)
    yield replace(weight, name=f"{layer}.lora_b", shape=(outputs, rank), places=0)
    work = 2 * weight.places * rank * (inputs + outputs) * tape.batch
    tape.forward += work
    tape.backward += 2 * work
    kept = rank + (inputs if adapter.dropout > 0 else 0)
    mask = math.ceil(inputs / 4) if adapter.dropout > 0 else 0  # a byte each, counted in numbers of four
    tape.keep_more(weight.places * (kept + mask), weight.item)


AT = "/initialization/finetune"


def refuse_idle_patterns(spec: Finetune | None, tape: Tape) -> None:
    """Raises SpecError for patterns that fit nothing, and when nothing is left that learns."""
    if spec is None:
        return
    names = [weight.name for weight in tape.weights]
    layers = [w.name.removesuffix(".weight") for w in tape.weights if w.places]
    adapter = spec.adapter
    asked = [(f"{AT}/freeze/{i}", pattern, names) for i, pattern in enumerate(spec.freeze)]
    asked += [(f"{AT}/unfreeze_at/{i}/pattern", later.pattern, names) for i, later in enumerate(spec.unfreeze_at)]
    asked += [(f"{AT}/adapter/targets/{i}", pattern, layers) for i, pattern in enumerate(adapter.targets if adapter else ())]
    asked += [(f"{AT}/adapter/train/{i}", pattern, names) for i, pattern in enumerate(adapter.train if adapter else ())]
    found = [
        Finding(
            pointer=pointer,
            code="pattern-fits-nothing",
            message=f"{pattern!r} matches nothing of this model",
            hint=f"there are {', '.join(known[:12])}{' …' if len(known) > 12 else ''}; `*` stands for any characters",
        )
        for pointer, pattern, known in asked
        if not any(matches(name, (pattern,)) for name in known)
    ]
    if not found and names and not tape.learned:
        message = "every weight of this model is frozen, and nothing is left that learns"
        found = [Finding(pointer=f"{AT}/freeze", code="nothing-learns", message=message, hint="freeze less")]
    if found:
        raise SpecError(found)
