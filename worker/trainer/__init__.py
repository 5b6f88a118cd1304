"""The trainer: a program. A directory with `spec.json` goes in; journals, checkpoints and an exit code come out."""

from worker.trainer.warm import warm_imports

__all__ = ["warm_imports"]
