"""`stoker checkpoints`."""

from stoker.cli import emit, words
from stoker.cli.connection import Reference, connect, resolve
from stoker.views import CheckpointView


def _metrics(checkpoint: CheckpointView) -> str:
    return "  ".join(f"{key} {words.measure(value)}" for key, value in sorted(checkpoint.metrics.items())[:3]) or "–"


CHECKPOINTS: emit.Shape[CheckpointView] = emit.Shape(
    id=lambda checkpoint: str(checkpoint.step),
    columns=[
        emit.Column("STEP", lambda checkpoint: str(checkpoint.step), right=True),
        emit.Column("STATE", lambda checkpoint: checkpoint.state),
        emit.Column("TAGS", lambda checkpoint: " ".join(checkpoint.tags) or "–"),
        emit.Column("SIZE", lambda checkpoint: words.size(checkpoint.bytes), right=True),
        emit.Column("METRICS", _metrics, gives_way=True),
        emit.Column("AGE", lambda checkpoint: words.age(checkpoint.created_at), right=True),
    ],
    nothing="no checkpoints yet",
)


def checkpoints(job: Reference = "@last", quiet: emit.Quiet = False, fields: emit.Fields = None) -> None:
    """List a job's checkpoints."""
    with connect() as client:
        emit.many(client.checkpoints(resolve(client, job).id), CHECKPOINTS, quiet=quiet, fields=fields)
