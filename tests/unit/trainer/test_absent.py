"""What is called absent is not found while that lasts, and found again after it."""

import importlib
import sys
from importlib.metadata import PackageNotFoundError, version

import pytest

from worker.trainer.runtime.absent import absent

NAMES = ("matplotlib", "moto")


@pytest.fixture
def not_yet_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.partition(".")[0] in NAMES]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.usefixtures("not_yet_imported")
@pytest.mark.parametrize("asked", ["moto", "moto.core"])
def test_neither_modules_nor_distributions_are_found(asked: str) -> None:
    before = list(sys.meta_path)
    with absent(*NAMES):
        with pytest.raises(ModuleNotFoundError, match="No module named 'moto'"):
            importlib.import_module(asked)
        with pytest.raises(PackageNotFoundError):
            version("matplotlib")
        assert importlib.import_module("colorsys").hls_to_rgb
        assert version("pytest") == pytest.__version__
    assert sys.meta_path == before
    assert version("matplotlib")
    assert importlib.import_module("moto").__name__ == "moto"


def test_what_is_imported_already_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torchmetrics asks for it after scikit-learn: it sees scipy among the modules, then imports a part of it."""
    before = importlib.import_module("moto")
    monkeypatch.delitem(sys.modules, "moto.settings", raising=False)
    with absent(*NAMES):
        assert importlib.import_module("moto") is before
        assert importlib.import_module("moto.settings").__name__ == "moto.settings"
        assert version("moto")


def test_an_error_inside_ends_it_too() -> None:
    before = list(sys.meta_path)
    with pytest.raises(KeyError), absent("moto"):
        raise KeyError
    assert sys.meta_path == before
