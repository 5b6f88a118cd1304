"""What a worker says that its image can do, from what is installed and on the bus."""

from pathlib import Path

import pytest

from worker.node import devices
from worker.settings import WorkerSettings


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages that this interpreter has too."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def _package(folder: Path, name: str) -> None:
    """One that must be found without being imported."""
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text("raise RuntimeError('imported')")


def _bus(folder: Path, vendor: str, device: str) -> Path:
    card = folder / "0000:00:05.0"
    card.mkdir(parents=True)
    (card / "vendor").write_text(vendor + "\n")
    (card / "device").write_text(device + "\n")
    return folder


def test_horovod_is_reported_where_it_is_installed(installed: Path) -> None:
    assert devices.capacity(WorkerSettings()).backends == ()
    _package(installed, "horovod")
    assert devices.capacity(WorkerSettings()).backends == ("horovod",)


@pytest.mark.parametrize(
    ("vendor", "device", "tpus"), [("0x1ae0", "0x0063", 1), ("0x1ae0", "0x0042", 0), ("0x10de", "0x0063", 0)]
)
def test_a_tpu_is_reported_where_torch_xla_can_use_it(
    vendor: str, device: str, tpus: int, installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0x1ae0:0x0042 is a virtual network card of the same maker."""
    monkeypatch.setattr(devices, "_PCI", _bus(installed / "bus", vendor, device))
    assert devices.capacity(WorkerSettings()).tpus == 0
    _package(installed, "torch_xla")
    assert devices.capacity(WorkerSettings()).tpus == tpus


def test_an_operator_may_say_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOKER_WORKER_TPUS", "4")
    assert devices.capacity(WorkerSettings()).tpus == 4
