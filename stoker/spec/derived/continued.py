"""What may differ in a job that goes on from another job's checkpoint: how long, how fast and where, not what or from what."""

from collections.abc import Iterator
from typing import Any

from stoker.errors import Finding
from stoker.spec.job import METADATA, JobSpec

FREE = (
    *(f"/{name}" for name in METADATA),
    "/api_version",
    "/schedule",
    "/optimizer/lr",
    *(f"/training/{name}" for name in ("epochs", "max_steps", "max_tokens", "max_seconds", "early_stopping")),
    *(f"/training/{name}" for name in ("micro_batch_size", "gradient_accumulation_steps")),
    *(
        f"/{name}"
        for name in (
            "activation_checkpointing",
            "distributed",
            "resources",
            "evaluation",
            "checkpoint",
            "logging",
            "debug",
            "interpretability",
        )
    ),
)
"""Pointers that may have another value, and what is below them."""


def differences(before: JobSpec, now: JobSpec) -> list[Finding]:
    """What keeps `now` from going on where `before` was, both resolved."""
    return [
        Finding(
            pointer=pointer,
            code="continued-otherwise",
            message=f"the job that is continued had {_shown(old)} here, and its checkpoint only fits that",
            hint="leave it as it was; schedule, optimizer.lr, lengths, distribution and reports may change",
        )
        for pointer, old in _changed("", before.model_dump(mode="json"), now.model_dump(mode="json"))
    ]


def _changed(at: str, old: Any, new: Any) -> Iterator[tuple[str, Any]]:
    """Values of any JSON type, hence `Any`."""
    if old == new or (at.startswith(FREE) and any(at == free or at.startswith(f"{free}/") for free in FREE)):
        return
    if isinstance(old, dict) and isinstance(new, dict) and old.get("type") == new.get("type"):
        for key in sorted(old.keys() | new.keys()):
            yield from _changed(f"{at}/{key}", old.get(key), new.get(key))
    else:
        yield at, old


def _shown(value: Any) -> str:
    """A scalar as it is, anything else by the name of its kind."""
    if isinstance(value, dict):
        return str(value.get("type") or "something else")
    return repr(value) if isinstance(value, str) else "another list" if isinstance(value, list) else str(value).lower()
