"""Checkpoints: everything a run would otherwise forget, in a directory that is there whole or not at all.

    checkpoints/step-00000100/
      manifest.json           step, and path, bytes and SHA-256 of every other file; written last
      model.safetensors       weights and buffers by name
      optimizer.safetensors   `<weight>.<moment>`
      best.safetensors        the model at the best evaluation, when early stopping is to restore it
      parts.safetensors       `<part>/<tensor>` of every part of the run with a memory of its own, if any
      shards.json             where no rank holds the whole model: of each tensor its shape, and which file has which box of it
      shard-0003.safetensors  what rank 3 wrote, `model/<name>`, `optimizer/<name>`, …; then there are fewer of the files above
      ranks.safetensors       per rank: the random generators and the unreported training loss
      state.json              step, clock, evaluations, early stopping, numbers of those parts
      spec.json               the job spec
      data.json               shape, outputs, classes, columns, and the fitted steps from rows to samples, in their order
      scaling.safetensors     tensors of the step of that name, normalization
      tokenizer.json          the document of the step of that name, for text

The directory is written under another name, each file flushed, the manifest last, and then renamed (reliability.md). Nothing
in it is a pickle. It needs nothing beside it: `worker.trainer.predict` uses the model from it, and a run of any number of
ranks and any strategy continues from it, reading the boxes it needs. The last checkpoint of a run always has model.safetensors.
"""

from worker.trainer.checkpoint.find import find, inspect
from worker.trainer.checkpoint.given import given
from worker.trainer.checkpoint.model import load_model
from worker.trainer.checkpoint.places import directory
from worker.trainer.checkpoint.rescue import note_updates, rescue
from worker.trainer.checkpoint.restore import restore
from worker.trainer.checkpoint.save import abandon, save, settle, watch

__all__ = [
    "abandon",
    "directory",
    "find",
    "given",
    "inspect",
    "load_model",
    "note_updates",
    "rescue",
    "restore",
    "save",
    "settle",
    "watch",
]
