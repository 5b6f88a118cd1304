"""Metrics in files, as others read them, and the spec that repeats a run."""

import json
import signal
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event

from stoker.document.canonical import digest
from stoker.events import Artifact, Metrics
from stoker.spec import JobSpec
from tests.support.trainer_runs import Nursery, blobs, events, final_checkpoint, log, same_bits, series, workspace

SPEC: dict[str, Any] = {
    "task": {"type": "classification"},
    "model": {"type": "mlp", "hidden_sizes": [8], "dropout": 0.2},
    "data": {"source": {"type": "arrays", "dataset": "set@1"}, "split": {"validation": 0.2, "test": 0.2}},
    "training": {"epochs": 3, "batch_size": 16},
    "evaluation": {"metrics": ["accuracy", "auroc"]},
    "logging": {"interval": {"steps": 2}, "sinks": ["jsonl", "tensorboard"], "hyperparameters": True},
}
CASTAGNOLI = 0x82F63B78


def checksum(data: bytes) -> int:
    """CRC-32C of RFC 3720, masked as TFRecord does."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (CASTAGNOLI if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(path: Path) -> Iterator[bytes]:
    """Length, checksum, data, checksum: how event files are framed."""
    data, at = path.read_bytes(), 0
    while at < len(data):
        (size, head) = struct.unpack_from("<QI", data, at)
        assert checksum(data[at : at + 8]) == head
        body = data[at + 12 : at + 12 + size]
        assert struct.unpack_from("<I", data, at + 12 + size) == (checksum(body),)
        yield body
        at += 16 + size


def scalars(path: Path) -> dict[tuple[int, str], float]:
    found: dict[tuple[int, str], float] = {}
    for body in records(path):
        event = Event.FromString(body)
        for value in event.summary.value:
            if value.HasField("simple_value"):
                assert (event.step, value.tag) not in found
                found[event.step, value.tag] = value.simple_value
    return found


def said(home: Path) -> list[Metrics]:
    return [event for event in events(home) if isinstance(event, Metrics)]


def artifacts(home: Path) -> dict[str, Path]:
    return {event.name: home / event.path for event in events(home) if isinstance(event, Artifact)}


@pytest.fixture(scope="module")
def told(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = workspace(tmp_path_factory.mktemp("told") / "run", SPEC, **blobs(120))
    assert nursery.run(home) == [0], log(home)
    return home


@pytest.mark.proves("LOG-01")
def test_lines_hold_every_metric_once_in_order(told: Path) -> None:
    head, *lines = [json.loads(line) for line in artifacts(told)["metrics/from-step-00000000.jsonl"].read_text().splitlines()]
    assert [(line["step"], line["values"]) for line in lines] == [(event.step, event.values) for event in said(told)]
    assert [line["step"] for line in lines] == sorted(line["step"] for line in lines)
    assert head["hyperparameters"]["training.batch_size"] == 16
    assert head["digest"] == digest(JobSpec.model_validate_json((told / "spec.json").read_bytes()))


@pytest.mark.proves("LOG-01")
def test_event_files_hold_every_metric_and_the_hyperparameters(told: Path) -> None:
    path = artifacts(told)["tensorboard/events.out.tfevents.from-step-00000000"]
    ours = {(event.step, key): value for event in said(told) for key, value in event.values.items()}
    theirs = scalars(path)
    assert theirs.keys() == ours.keys()
    assert [theirs[key] for key in ours] == pytest.approx(list(ours.values()), rel=1e-6, nan_ok=True)
    bodies = list(records(path))
    assert Event.FromString(bodies[0]).file_version == "brain.Event:2"
    plugins = {value.metadata.plugin_data.plugin_name for body in bodies for value in Event.FromString(body).summary.value}
    assert "hparams" in plugins
    assert any(b"optimizer.lr" in body for body in bodies)


@pytest.mark.proves("LOG-02")
def test_the_stored_spec_repeats_the_run_to_the_bit(nursery: Nursery, told: Path, tmp_path: Path) -> None:
    stored = json.loads(artifacts(told)["hyperparameters.json"].read_text())
    again = workspace(tmp_path / "again", stored["spec"], **blobs(120))
    assert nursery.run(again) == [0], log(again)
    assert json.loads(artifacts(again)["hyperparameters.json"].read_text()) == stored
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert same_bits(final_checkpoint(told) / name, final_checkpoint(again) / name)
    assert series(told) == series(again)


@pytest.mark.proves("LOG-01")
def test_a_resumed_run_adds_a_file(nursery: Nursery, tmp_path: Path) -> None:
    spec = SPEC | {"training": {"epochs": 100_000, "batch_size": 16}}
    home = workspace(tmp_path / "run", spec, **blobs(60))
    running = nursery.start(home)
    running.reached(10)
    running.signal(signal.SIGTERM)
    assert running.wait() == [75], log(home)
    stopped = max(event.step for event in said(home))
    (home / "spec.json").write_text(json.dumps(spec | {"training": {"max_steps": stopped + 6, "batch_size": 16}}))
    assert nursery.run(home) == [0], log(home)
    files = sorted(name for name in artifacts(home) if name.startswith("metrics/"))
    assert len(files) == 2
    first, second = ([json.loads(line) for line in artifacts(home)[name].read_text().splitlines()[1:]] for name in files)
    assert [line["step"] for line in (*first, *second)] == [event.step for event in said(home)]
    assert first[-1]["step"] <= int(files[1][-14:-6]) < second[0]["step"]
    assert len([name for name in artifacts(home) if name.startswith("tensorboard/")]) == 2
