"""Which steps there are, which of them a data spec asks for and in which order, and how a list of fitted steps is saved."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import JsonValue
from safetensors.torch import load_file, save_file

from stoker.spec.data import ByteTokenizer, Data
from stoker.spec.data.sequence import Sequence as Windows
from worker.trainer.data.codec import Codec
from worker.trainer.data.normalization import Normalize, Scaling
from worker.trainer.data.sequence import Pad, Padding
from worker.trainer.data.step import Fitted, State, Step
from worker.trainer.data.tokenizer import Tokenization, Tokenize
from worker.trainer.runtime.world import World

KINDS: dict[str, type[Fitted]] = {kind.kind: kind for kind in (Scaling, Tokenization, Padding)}


def of_numbers(spec: Data) -> tuple[Step, ...]:
    return () if spec.normalization is None else (Normalize(spec.normalization),)


def of_texts(spec: Data, texts: Sequence[str], home: Path, world: World, inherited: Codec | None) -> tuple[Step, ...]:
    """Where each text is a sample."""
    windows = spec.sequence or Windows()
    return Tokenize(spec.tokenizer or ByteTokenizer(), texts, windows.length, home, world, inherited), Pad(windows)


def of_stream(spec: Data, text: str, home: Path, world: World, inherited: Codec | None) -> tuple[Step, ...]:
    """Where samples are windows of one text."""
    return (Tokenize(spec.tokenizer or ByteTokenizer(), (text,), None, home, world, inherited),)


def save_steps(steps: Iterable[Fitted], directory: Path) -> tuple[list[JsonValue], list[str]]:
    """Writes tensors and documents. Returns the entries of data.json and the names of the files."""
    entries, files = list[JsonValue](), list[str]()
    for step in steps:
        state = step.state()
        entries.append({"type": step.kind, **state.values})
        if state.tensors:
            files.append(f"{step.kind}.safetensors")
            save_file({name: tensor.contiguous() for name, tensor in state.tensors.items()}, directory / files[-1])
        if state.document is not None:
            files.append(f"{step.kind}.json")
            (directory / files[-1]).write_text(state.document)
    assert len(set(files)) == len(files), "a list has each kind of step once"
    return entries, files


def load_steps(entries: Iterable[dict[str, JsonValue]], directory: Path) -> tuple[Fitted, ...]:
    """The reverse. Raises ValueError for a step that this version does not have or cannot read, OSError for a missing file."""
    return tuple(_load(dict(entry), directory) for entry in entries)


def _load(values: dict[str, JsonValue], directory: Path) -> Fitted:
    name = str(values.pop("type", None))
    if name not in KINDS:
        known = ", ".join(KINDS)
        raise ValueError(
            f"data.json: step {name!r} is unknown; this version has {known}; use the version that wrote the checkpoint, or a newer one"
        )
    tensors, document = directory / f"{name}.safetensors", directory / f"{name}.json"
    return KINDS[name].from_state(
        State(
            values,
            {key: tensor.clone() for key, tensor in load_file(tensors).items()} if tensors.exists() else {},
            document.read_text() if document.exists() else None,
        )
    )


def entries_before_steps(data: dict[str, JsonValue], directory: Path) -> list[dict[str, JsonValue]]:
    """Entries for a checkpoint from before data.json listed its steps: then the files told which there were."""
    length = data["shape"][0] if data.get("padded") and isinstance(data["shape"], list) else None
    entries = list[dict[str, JsonValue]]()
    if (directory / "scaling.safetensors").exists():
        entries.append({"type": "scaling"})
    if (directory / "tokenizer.json").exists():
        entries.append({"type": "tokenizer", "limit": length})
    if length is not None:
        tokens = Tokenization.from_state(State(document=(directory / "tokenizer.json").read_text()))
        entries.append({"type": "padding", "length": length, "token": tokens.padding})
    return entries
