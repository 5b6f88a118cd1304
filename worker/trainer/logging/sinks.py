"""Where metrics are written beside the database: files among the results, complete whenever a checkpoint is."""

import importlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from stoker.document.canonical import digest
from stoker.events import Event, Metrics, Saved, Started
from stoker.spec import JobSpec
from worker.trainer.errors import SpecProblem
from worker.trainer.runtime.artifact import ArtifactWriter


class Sink(Protocol):
    """One file per attempt, named after the step it starts from, so that a resumed run adds to what is there."""

    name: str

    def open(self, path: Path, step: int) -> None:
        """Before anything is written. `step`: steps made before."""

    def hyperparameters(self, values: Mapping[str, Any], identity: str) -> None:
        """The resolved spec by dotted path, and its digest."""

    def metrics(self, event: Metrics) -> None: ...

    def flush(self) -> None:
        """The file is whole after it."""


class JsonLines:
    """A line of JSON per event: step, t and values; what is no number stands as a string, as in the HTTP API."""

    name = "metrics/from-step-{step:08d}.jsonl"

    def open(self, path: Path, step: int) -> None:
        self._file = path.open("w", encoding="utf-8")

    def hyperparameters(self, values: Mapping[str, Any], identity: str) -> None:
        self._line({"hyperparameters": values, "digest": identity})

    def metrics(self, event: Metrics) -> None:
        values = {key: value if math.isfinite(value) else _in_words(value) for key, value in event.values.items()}
        self._line({"step": event.step, "t": event.t, "values": values})

    def flush(self) -> None:
        self._file.flush()

    def _line(self, value: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(value, allow_nan=False) + "\n")


def _in_words(value: float) -> str:
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


class TensorBoard:
    """An event file. Its writer is imported when it is opened: it takes a second to load."""

    name = "tensorboard/events.out.tfevents.from-step-{step:08d}"

    def __init__(self) -> None:
        """Raises SpecProblem where tensorboardX is not installed."""
        try:
            self._summary = importlib.import_module("tensorboardX.summary")
            self._event = importlib.import_module("tensorboardX.proto.event_pb2").Event
            self._records = importlib.import_module("tensorboardX.record_writer").RecordWriter
        except ModuleNotFoundError as error:
            raise SpecProblem(
                f"logging.sinks: tensorboard needs the package {error.name}, and this worker does not have it"
            ) from error

    def open(self, path: Path, step: int) -> None:
        path.unlink(missing_ok=True)
        self._writer = self._records(str(path))
        self._write(self._event(file_version="brain.Event:2"))

    def hyperparameters(self, values: Mapping[str, Any], identity: str) -> None:
        plain = {
            path: value if isinstance(value, bool | int | float | str) else json.dumps(value) for path, value in values.items()
        }
        for summary in self._summary.hparams(plain | {"digest": identity}, {}):
            self._write(self._event(summary=summary))

    def metrics(self, event: Metrics) -> None:
        made = self._event(step=event.step, wall_time=event.t)
        for key, value in event.values.items():
            made.summary.value.add(tag=key, simple_value=value)
        self._write(made)

    def flush(self) -> None:
        self._writer.flush()

    def _write(self, event: Any) -> None:
        self._writer.write(event.SerializeToString())


class Sinks:
    """Hears what the run says, on its first rank, and keeps the files."""

    def __init__(self, sinks: tuple[Sink, ...], spec: JobSpec, artifacts: ArtifactWriter) -> None:
        self._sinks, self._spec, self._shelf = sinks, spec, artifacts
        self._names: list[str] = []

    def __call__(self, event: Event) -> None:
        match event:
            case Started():
                self._open(event.step)
            case Metrics():
                for sink in self._sinks:
                    sink.metrics(event)
            case Saved():
                self.keep(event.step, "")
            case _:
                return

    def keep(self, step: int, reason: str) -> None:
        """What was written so far is among the results."""
        if not self._names or not self._shelf.is_lead:
            return
        for sink, name in zip(self._sinks, self._names, strict=True):
            sink.flush()
            self._shelf.tell(name)

    def _open(self, step: int) -> None:
        self._names = [sink.name.format(step=step) for sink in self._sinks]
        for sink, name in zip(self._sinks, self._names, strict=True):
            sink.open(self._shelf.path(name), step)
        if self._spec.logging.hyperparameters:
            values, identity = dict(flat(self._spec.model_dump(mode="json"))), digest(self._spec)
            for sink in self._sinks:
                sink.hyperparameters(values, identity)
            self._shelf.text(
                "hyperparameters.json",
                json.dumps({"digest": identity, "spec": self._spec.model_dump(mode="json")}, indent=1) + "\n",
            )


def flat(value: Any, path: str = "") -> list[tuple[str, Any]]:
    """Leaves by dotted path; lists stay whole."""
    if isinstance(value, dict) and value:
        return [leaf for key, inner in value.items() for leaf in flat(inner, f"{path}.{key}" if path else key)]
    return [(path, value)]
