"""`stoker init`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from stoker.cli.failure import Failure
from stoker.cli.terminal import say

Kind = Literal["classification", "regression", "language_model"]

_TABLE = """\
# A Stoker job. `stoker explain KEY` says what a key means, `stoker validate` checks the file, `stoker plan` predicts the run.
name: {name}
task:
  type: {task}
  target: {target}            # column to predict
model:
  type: mlp
  hidden_sizes: [128, 64]
  dropout: 0.1
data:
  source: {{type: csv, dataset: {dataset}}}   # stoker datasets upload {dataset} FILE.csv
  split: {{validation: 0.15, test: 0.15}}
  normalization: {{type: standard}}
optimizer: {{type: adamw, lr: 1e-3}}
schedule: {{type: cosine, warmup_steps: 50}}
training:
  epochs: 30
  batch_size: 64
"""
_TEXT = """\
# A Stoker job. `stoker explain KEY` says what a key means, `stoker validate` checks the file, `stoker plan` predicts the run.
name: {name}
task: {{type: causal_lm}}
model:
  type: transformer_decoder
  num_layers: 4
  hidden_size: 128
  num_heads: 4
  dropout: 0.1
data:
  source: {{type: text, dataset: {dataset}}}   # stoker datasets upload {dataset} FILE.txt
  tokenizer: {{type: bpe, vocab_size: 1024}}
  sequence: {{length: 128}}
  split: {{validation: 0.05, test: 0.05}}
optimizer: {{type: adamw, lr: 3e-4, weight_decay: 0.1}}
schedule: {{type: cosine, warmup_steps: 100}}
training:
  max_steps: 1000
  batch_size: 32
  gradient_clipping: {{type: norm, max_norm: 1.0}}
evaluation: {{interval: {{steps: 200}}}}
checkpoint: {{interval: {{steps: 200}}}}
"""


def init(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="File to write.")] = Path("job.yaml"),
    kind: Annotated[Kind, typer.Option("--kind", help="Task that the file is written for.")] = "classification",
    name: Annotated[str, typer.Option("--name", help="Name of the job.")] = "first",
    dataset: Annotated[str, typer.Option("--dataset", help="Data set it learns from.")] = "mydata",
    target: Annotated[str, typer.Option("--target", help="Column to predict.")] = "label",
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Write a job file to start from.

    stoker init
    stoker init gpt.yaml --kind language_model --dataset shakespeare
    """
    if path.exists() and not force:
        raise Failure(f"{path} exists", "name another file, or replace it with --force", code=2)
    path.write_text(text_of(kind, name, dataset, target), encoding="utf-8")
    say(f"wrote {path}")
    say(f"  next: stoker validate {path} && stoker submit {path} --watch")


def text_of(kind: Kind, name: str, dataset: str, target: str) -> str:
    """The file's text."""
    if kind == "language_model":
        return _TEXT.format(name=name, dataset=dataset)
    return _TABLE.format(name=name, dataset=dataset, target=target, task=kind)
