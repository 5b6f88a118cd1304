"""The weights a run ends with, for other programs: artifacts made from its last checkpoint, tensor by tensor."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import assert_never

import torch

from stoker.spec.checkpoint import Export
from stoker.spec.task import CausalLM, MaskedLM
from worker.trainer.assembly import Run
from worker.trainer.checkpoint.hugging_face import Made, config_of, special_of, tensors_of, tokenizer_of
from worker.trainer.checkpoint.merged import Merged
from worker.trainer.checkpoint.model import adapter_of
from worker.trainer.checkpoint.places import directory
from worker.trainer.checkpoint.read import Stored
from worker.trainer.regularization.spectral_norm import TAIL
from worker.trainer.runtime.artifact import ArtifactWriter
from worker.trainer.runtime.names import plain
from worker.trainer.staging.sheet import CODES, header, raw


def export(run: Run) -> None:
    """After the last save; only rank 0 does anything. Raises OSError when the disk does not take it."""
    artifacts = ArtifactWriter(run.home, run.journal, run.world.is_lead)
    for kind in run.spec.checkpoint.export if run.world.is_lead else ():
        with Merged(directory(run.home, run.clock.step), adapter_of(run.spec)) as stored:
            for name, text in documents_of(run, kind).items():
                artifacts.text(f"export/{kind}/{name}", text)
            put = partial(write, made=made_of(run, kind, stored), metadata=metadata_of(run))
            artifacts.keep(f"export/{kind}/model.safetensors", put)


def made_of(run: Run, kind: Export, stored: Stored) -> list[Made]:
    """What the file holds."""
    match kind:
        case "safetensors":
            return list(_as_read(stored))
        case "huggingface":
            return list(tensors_of(run.spec.model, stored))
        case _:
            assert_never(kind)


def _as_read(stored: Stored) -> Iterator[Made]:
    """What the model computes with: a weight that is divided whenever it is read stands there divided."""
    names = stored.names("model")
    bounds = [name.removesuffix(".u") for name in names if name.endswith(TAIL)]
    divided = {plain(f"{at.removesuffix('.0')}.original"): at for at in bounds}
    for name in sorted(names):
        same = Made.same(stored, name)
        if name in divided:
            yield replace(same, make=partial(_divided, stored, name, divided[name]))
        elif not any(name.startswith(f"{at}.") for at in bounds):
            yield same


def _divided(stored: Stored, name: str, at: str) -> torch.Tensor:
    weight, u, v = (stored.whole("model", key) for key in (name, f"{at}.u", f"{at}.v"))
    return weight / torch.dot(u, weight.flatten(1) @ v)


def documents_of(run: Run, kind: Export) -> Mapping[str, str]:
    """Files beside it, by name."""
    about = run.data.about
    match kind:
        case "safetensors":
            found = {
                "config.json": json.dumps(
                    {
                        "model": run.spec.model.model_dump(),
                        "shape": about.shape,
                        "outputs": about.outputs,
                        "classes": about.classes,
                        **({"tasks": [asdict(answer) for answer in about.answers]} if about.answers else {}),
                    },
                    indent=1,
                )
            }
            return found | ({} if about.codec is None else {"tokenizer.json": about.codec.dump()})
        case "huggingface":
            filled = about.codec is None or isinstance(run.spec.task, CausalLM | MaskedLM)
            sizes = (about.outputs, None) if filled or about.vocabulary is None else (about.vocabulary, about.outputs)
            config = config_of(run.spec.model, about.shape[0], sizes[0], next(run.model.parameters()).dtype, sizes[1])
            config |= special_of(about.codec)
            return {"config.json": json.dumps(config, indent=1), **tokenizer_of(about.codec)}
        case _:
            assert_never(kind)


def metadata_of(run: Run) -> Mapping[str, str]:
    return {"format": "pt", "model": run.spec.model.type, "step": str(run.clock.step), "made_by": "stoker"}


def write(path: Path, made: Iterable[Made], metadata: Mapping[str, str]) -> None:
    """One tensor in memory at a time."""
    ordered = sorted(made, key=lambda one: (-one.dtype.itemsize, one.name))
    lines = [(one.name, CODES[one.dtype], one.shape, torch.Size(one.shape).numel() * one.dtype.itemsize) for one in ordered]
    with path.open("wb") as file:
        file.write(header(lines, metadata))
        for one in ordered:
            file.write(raw(one.make()))
