"""A family is two files of one name: what may be asked (`stoker/spec`), and how it is done (`worker/trainer`)."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SPEC, TRAINER = ROOT / "stoker" / "spec", ROOT / "worker" / "trainer"

NOT_TRAINED = {
    "resources": "honoured by the scheduler and the agent, which place and start the ranks",
    "model/hf": "written out as a decoder or an encoder before there is a run",
    "checkpoint_ref": "the server finds the checkpoint, the agent puts it in place",
}
"""Spec families without a trainer file, and why."""

MACHINERY = {
    "absent": "libraries that another one shall not import",
    "checkpoint/given": "the files that a run is to begin from",
    "checkpoint/merged": "the weights of a checkpoint with its adapters in them",
    "contest": "the passes of two networks that learn in turn",
    "distances": "metrics of generated samples",
    "gallery": "what a generator made, left behind at the end",
    "pair": "two optimizers as one",
    "data/noise": "what generated samples are made of, for a model of type gan",
    "criterion": "the loss that a task, its data and its weights ask for together",
    "softcap": "a bend that models and the last stage of a pipeline share",
    "checkpoint/model": "the model of a checkpoint, alone: to be used, or to teach",
    "__main__": "the program: a directory in, an exit code out",
    "loop": "the step, repeated",
    "model/layer_modules": "modules that stacks of layers need beside torch's own",
    "adapter": "the part of finetune that learns beside a layer",
    "serve": "the other loop: a rank that holds weights for others",
    "assemble": "builders called in order",
    "world": "ranks and devices",
    "tpu": "what is different on a TPU",
    "journal": "what the run says",
    "control": "what ranks agree on between steps",
    "objective": "model and loss as one module",
    "passes": "the forward and backward passes of a step, whatever the strategy",
    "diagnosis": "the part of evaluation that says at the end how a model fits",
    "spectral_norm": "the part of regularization that divides matrices",
    "update": "precision and clipping in the order that the step needs",
    "heart": "the pulse that the agent watches",
    "stragglers": "the part of debug that names ranks which hold up the others",
    "guard": "the judgement of each step that debug asks for",
    "statistics": "what averaged weights ask of BatchNorm",
    "habit": "what is done between steps on a rhythm of its own",
    "artifact": "files that belong to a job's results",
    "stopwatch": "where the time of a run goes",
    "figures": "the part of logging that measures speed",
    "flops": "what one sample costs",
    "peaks": "what a device can do at most",
    "sinks": "the part of logging that writes metrics into files",
    "attribution": "the part of interpretability that is slow to import",
    "inspection/anomaly": "the part of debug that finds the source of NaN",
    "inspection/probes": "the part of debug that looks inside the model",
    "inspection/profiler": "the part of debug that records steps",
    "inspection/summary": "the part of debug that lists the layers",
    "inspection/weights": "the part of debug that looks at weights and gradients",
    "distributed/timed": "any strategy with its forward passes timed",
    "shards": "tensors of which each rank holds a part",
    "distributed/heap": "what the C library does with memory that is given back",
    "distributed/mesh": "ranks as a grid, for every strategy that cuts the model",
    "distributed/gradients": "gradients that no wrapper exchanges",
    "distributed/nothing": "a pass over no samples, where every rank must make it",
    "lion": "an optimizer that PyTorch does not have",
    "muon": "an optimizer that PyTorch has for whole matrices only",
    "names": "what the spec and checkpoints call a weight",
    "state": "what parts of a run hand to the checkpoint",
    "remedy": "how a run is brought back",
    "distributed/deferred": "the part of ddp for steps that may have to be made again",
    "distributed/replica": "what the loop asks of any strategy",
    "rhythm": "durations of several families, as moments between steps",
    "errors": "why a run fails",
    "loss/summed": "what every loss does",
    "loss/weighted": "any loss of samples that weigh more than others",
    "loss/chunked": "the part of cross_entropy for large vocabularies",
    "loss/reading": "what metrics see of outputs and targets",
    "metrics": "the part of evaluation that is slow to import",
    "staging": "how tensors get to disk and back",
    "staging/copied": "a copy in host memory, written by a thread",
    "staging/forked": "a child that sees memory as it was",
    "staging/job": "files to be written, and the writing",
    "staging/room": "free memory",
    "staging/sheet": "tensors as a file of the safetensors format",
    "staging/stage": "which of these a save takes",
    "staging/task": "a save that is being written",
    "staging/tensorfile": "tensors read out of such a file",
    "checkpoint/boxes": "which rank has which part of a tensor, and writes it",
    "checkpoint/collect": "a model of which every rank has a part, as one file",
    "checkpoint/commit": "when a checkpoint begins to exist",
    "checkpoint/content": "what a checkpoint consists of",
    "checkpoint/export": "the final weights for other programs",
    "checkpoint/hugging_face": "transformers as the library of that name knows them",
    "checkpoint/from_hugging_face": "the same, backwards",
    "checkpoint/find": "which checkpoint a run continues from",
    "checkpoint/keep": "which checkpoints stay on the worker's disk",
    "checkpoint/places": "names of directories and files",
    "checkpoint/read": "tensors of a checkpoint, whole or in part",
    "checkpoint/rescue": "what is saved of a run that fails",
    "checkpoint/restore": "a run put where a checkpoint left it",
    "checkpoint/save": "from a run to a checkpoint",
    "predict": "a checkpoint put to use",
    "warm": "what an interpreter loads ahead of a run",
    "data/build": "the parts of the data family called in order",
    "data/codec": "what tokenizers become",
    "data/description": "what a data set taught the run",
    "data/samples": "what every source becomes",
    "data/masked": "the part of masked_lm that hides tokens",
    "loss/masked": "the part of masked_lm that counts hidden tokens alone",
    "data/images": "the part of data.source that reads pictures",
    "data/table": "the part of data.source that reads tables",
}
"""Trainer files that are no family, and why they are there."""


def families(spec: Path) -> set[str]:
    """Files that declare what a user may ask: they define a class of the grammar, or a choice among several."""
    found = set()
    for path in spec.rglob("*.py"):
        name = path.relative_to(spec).with_suffix("").as_posix()
        if name in ("_base", "job", "distributed/_ranks", "loss/_weighted"):
            continue
        if any(_declares(node) for node in ast.walk(ast.parse(path.read_text()))):
            found.add(name.removesuffix("/__init__"))
    return found


def _declares(node: ast.AST) -> bool:
    if isinstance(node, ast.ClassDef):
        return any(
            isinstance(base, ast.Name)
            and base.id in ("Spec", "Metric", "Warmup", "Grouped", "Ranks", "Cuttable", "Transformer", "SampleWeighted")
            for base in node.bases
        )
    return isinstance(node, ast.keyword) and node.arg == "discriminator"


def builders(trainer: Path) -> set[str]:
    names = {path.relative_to(trainer).with_suffix("").as_posix() for path in trainer.rglob("*.py")}
    return {name.removesuffix("/__init__") for name in names} - {"__init__"}


def unmirrored(spec: Path, trainer: Path, untrained: set[str], machinery: set[str]) -> list[str]:
    """Complaints: families that nothing builds, builders that nothing asks for, exceptions that no longer are."""
    asked, built = families(spec), builders(trainer)
    return sorted(
        [f"stoker/spec/{name}.py has no worker/trainer/{name}.py" for name in asked - built - untrained]
        + [f"worker/trainer/{name}.py has no stoker/spec/{name}.py" for name in built - asked - machinery]
        + [f"{name} is excused but is no unmirrored family" for name in untrained - (asked - built)]
        + [f"{name} is excused but is no trainer file" for name in machinery - built]
    )


def misnamed(spec: Path, trainer: Path) -> list[str]:
    """Docstrings that send the reader to a trainer module that is not there."""
    built = {name.replace("/", ".") for name in builders(trainer)}
    complaints = []
    for path in sorted(spec.rglob("*.py")):
        for name in re.findall(r"`worker\.trainer\.([a-z_.]+)`", path.read_text()):
            if name not in built:
                complaints.append(f"{path.relative_to(spec)} names worker.trainer.{name}")
    return complaints


def test_every_family_has_its_builder_and_the_reverse() -> None:
    assert unmirrored(SPEC, TRAINER, set(NOT_TRAINED), set(MACHINERY)) == []


def test_docstrings_name_builders_that_exist() -> None:
    assert misnamed(SPEC, TRAINER) == []


def test_a_family_without_builder_is_reported(tmp_path: Path) -> None:
    spec, trainer = tmp_path / "spec", tmp_path / "trainer"
    spec.mkdir()
    trainer.mkdir()
    (spec / "loss.py").write_text('"""Built by `worker.trainer.losses`."""\nclass Mse(Spec):\n    pass\n')
    (spec / "load.py").write_text("class Document:\n    pass\n")
    (trainer / "optimizer.py").write_text("")
    assert unmirrored(spec, trainer, {"resources"}, {"loop"}) == [
        "loop is excused but is no trainer file",
        "resources is excused but is no unmirrored family",
        "stoker/spec/loss.py has no worker/trainer/loss.py",
        "worker/trainer/optimizer.py has no stoker/spec/optimizer.py",
    ]
    assert misnamed(spec, trainer) == ["loss.py names worker.trainer.losses"]
