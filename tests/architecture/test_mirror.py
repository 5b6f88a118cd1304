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

ROOMS = {
    "assembly": "from a spec to a run",
    "gan": "training of two networks in turn",
    "measure": "speed and cost of a run",
    "runtime": "what every part of a run stands on",
    "staging": "how tensors get to disk and back",
}
"""Folders of the trainer that serve every family. Whatever lies in a family's folder belongs to the family."""

ROOT_FILES = {"__main__", "errors", "loop", "predict", "recovery", "serve", "warm"}
"""Files at the root of the trainer that are no family: the programs, the loop, and what ends a run early."""


def families(spec: Path) -> set[str]:
    """Files that declare what a user may ask: they define a class of the grammar, or a choice among several."""
    found = set()
    for path in spec.rglob("*.py"):
        name = path.relative_to(spec).with_suffix("").as_posix()
        if name in ("base", "job", "distributed/_ranks", "loss/_weighted"):
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


def unmirrored(spec: Path, trainer: Path, untrained: set[str], rooms: set[str], root_files: set[str]) -> list[str]:
    """Complaints: families that nothing builds, builders that nothing asks for, exceptions that no longer are."""
    asked, built = families(spec), builders(trainer)
    roots = {name.partition("/")[0] for name in asked}
    strays = {name for name in built - asked if name.partition("/")[0] not in roots | rooms | root_files}
    return sorted(
        [f"stoker/spec/{name}.py has no worker/trainer/{name}.py" for name in asked - built - untrained]
        + [f"worker/trainer/{name}.py has no stoker/spec/{name}.py" for name in strays]
        + [f"{name} is excused but is no unmirrored family" for name in untrained - (asked - built)]
        + [f"{name} is excused but is no trainer file" for name in (rooms | root_files) - {b.partition("/")[0] for b in built}]
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
    assert unmirrored(SPEC, TRAINER, set(NOT_TRAINED), set(ROOMS), ROOT_FILES) == []


def test_docstrings_name_builders_that_exist() -> None:
    assert misnamed(SPEC, TRAINER) == []


def test_a_family_without_builder_is_reported(tmp_path: Path) -> None:
    spec, trainer = tmp_path / "spec", tmp_path / "trainer"
    spec.mkdir()
    trainer.mkdir()
    (spec / "loss.py").write_text('"""Built by `worker.trainer.losses`."""\nclass Mse(Spec):\n    pass\n')
    (spec / "load.py").write_text("class Document:\n    pass\n")
    (trainer / "optimizer.py").write_text("")
    assert unmirrored(spec, trainer, {"resources"}, {"runtime"}, {"loop"}) == [
        "loop is excused but is no trainer file",
        "resources is excused but is no unmirrored family",
        "runtime is excused but is no trainer file",
        "stoker/spec/loss.py has no worker/trainer/loss.py",
        "worker/trainer/optimizer.py has no stoker/spec/optimizer.py",
    ]
    assert misnamed(spec, trainer) == ["loss.py names worker.trainer.losses"]
