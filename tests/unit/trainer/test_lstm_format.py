"""An LSTM under bfloat16 autocast runs on CPUs whose oneDNN has none, and is left alone on all others."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from worker.trainer.model import lstm_format as module
from worker.trainer.model.lstm_format import lstm_format


@pytest.fixture
def narrow() -> nn.LSTM:
    return nn.LSTM(3, 4, batch_first=True)


def test_without_a_bfloat16_lstm_it_computes_in_fp32(narrow: nn.LSTM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "has_bfloat16_lstm", lambda: False)
    x = torch.randn(2, 5, 3)
    with torch.autocast("cpu", torch.bfloat16), lstm_format(narrow, x):
        said = narrow(x)[0]
    assert torch.equal(said, narrow(x)[0])


def test_it_changes_nothing_elsewhere(narrow: nn.LSTM, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(2, 5, 3)
    monkeypatch.setattr(module, "has_bfloat16_lstm", lambda: False)
    assert isinstance(lstm_format(narrow, x), nullcontext)  # no autocast
    with torch.autocast("cpu", torch.bfloat16):
        assert isinstance(lstm_format(nn.GRU(3, 4), x), nullcontext)
        assert isinstance(lstm_format(narrow, x.to("meta")), nullcontext)
        monkeypatch.setattr(module, "has_bfloat16_lstm", lambda: True)
        assert isinstance(lstm_format(narrow, x), nullcontext)


def test_this_cpu_is_asked_without_drawing_random_numbers() -> None:
    before = torch.get_rng_state()
    module.has_bfloat16_lstm.cache_clear()
    module.has_bfloat16_lstm()
    assert torch.equal(torch.get_rng_state(), before)
