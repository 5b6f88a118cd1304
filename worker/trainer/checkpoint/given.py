"""The weights that a run starts from: of another job's checkpoint, or of files that other programs wrote."""

import hashlib
from pathlib import Path
from typing import assert_never

import torch
from safetensors import SafetensorError, safe_open

from stoker.spec import JobSpec
from stoker.spec.initialization import Cold, Pretrained, Warm
from stoker.spec.model import Model, TransformerDecoder, TransformerEncoder
from worker.trainer.checkpoint.from_hugging_face import read_hugging_face
from worker.trainer.checkpoint.model import judged
from worker.trainer.checkpoint.read import Stored
from worker.trainer.data import Description
from worker.trainer.errors import SpecProblem
from worker.trainer.initialization import AT, FOLDER, Given
from worker.trainer.regularization.spectral_norm import divided


def given(spec: JobSpec, home: Path) -> Given | None:
    """None for a cold start. Raises SpecProblem when the files are not there, damaged, or not those that the spec names."""
    start = spec.initialization.start
    match start:
        case Cold():
            return None
        case Warm():
            return _warm(start, home / "data" / FOLDER)
        case Pretrained():
            return _pretrained(start, home / "data" / start.source, spec.model)
        case _:
            assert_never(start)


def _warm(start: Warm, path: Path) -> Given:
    source = f"checkpoint {start.checkpoint.checkpoint} of {start.checkpoint.job}"
    if not path.is_dir():
        raise SpecProblem(f"{AT}.checkpoint: {source} is no longer there; submit again with one that is")
    try:
        made_by = JobSpec.model_validate_json((path / "spec.json").read_bytes())
        with Stored(path) as stored:
            return Given(divided(judged(stored, path, made_by)), source, Description.load(path).codec)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise SpecProblem(f"{AT}.checkpoint: {source} cannot be used: {error}") from error


def _pretrained(start: Pretrained, path: Path, model: Model) -> Given:
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise SpecProblem(f"{AT}.source: the data set {start.source} has no .safetensors file")
    if start.sha256 is not None:
        _verify(files, start.sha256, start.source)
    if start.names == "huggingface":
        return _foreign(start, path, model)
    tensors: dict[str, torch.Tensor] = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as stored:
                tensors |= {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  # it is no mapping
        except (OSError, SafetensorError) as error:
            raise SpecProblem(f"{AT}.source: {file.name} of {start.source} cannot be read: {error}") from error
    return Given(tensors, start.source)


def _foreign(start: Pretrained, path: Path, model: Model) -> Given:
    """By our names; what has none keeps its own, so that it is reported as not expected."""
    try:
        found, aside = read_hugging_face(path), tuple[str, ...]()
        if isinstance(model, TransformerDecoder | TransformerEncoder):
            found, aside = found.headed(model)
    except (ValueError, RuntimeError) as error:  # a tensor of a format that torch does not have
        raise SpecProblem(f"{AT}.source: {start.source} cannot be read: {error}") from error
    return Given({**{name: torch.empty(0) for name in found.unexpected}, **found.tensors}, start.source, aside=aside)


def _verify(files: list[Path], wanted: str, source: str) -> None:
    if len(files) != 1:
        raise SpecProblem(f"{AT}.sha256: {source} has {len(files)} weights files, and a digest is of one; leave it out")
    with files[0].open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wanted:
        raise SpecProblem(f"{AT}.sha256: {files[0].name} of {source} has {found}, not {wanted}")
