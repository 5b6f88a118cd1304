"""Parameter counts of models that everybody knows, as their authors published them."""

from typing import Any

import pytest

from stoker.plan import Limits, plan
from tests.support.plan_cases import Json, arrays, classifier, language, pictures, resolved, text

ROOMY = Limits(memory_bytes=1 << 60)


def parameters(model: Json, vocabulary: int, length: int) -> int:
    data: dict[str, Any] = {
        "source": {"type": "text", "dataset": "set@1"},
        "tokenizer": {"type": "bpe", "vocab_size": vocabulary},
        "sequence": {"length": length},
    }
    content = text(100_000_000)
    return plan(resolved(language(model, data=data), content), content, limits=ROOMY).parameters.total


def llama(**sizes: int | bool) -> Json:
    shared = {
        "normalization": {"type": "rms"},
        "position": {"type": "rope"},
        "activation": "silu",
        "gated_ffn": True,
        "bias": False,
    }
    return shared | sizes


@pytest.mark.parametrize(
    ("model", "vocabulary", "length", "published"),
    [
        pytest.param({"num_layers": 12, "hidden_size": 768, "num_heads": 12}, 50_257, 1024, 124_439_808, id="gpt2"),
        pytest.param({"num_layers": 48, "hidden_size": 1600, "num_heads": 25}, 50_257, 1024, 1_557_611_200, id="gpt2-xl"),
        pytest.param(
            llama(num_layers=32, hidden_size=4096, num_heads=32, ffn_size=11_008, tie_embeddings=False),
            32_000,
            4096,
            6_738_415_616,
            id="llama-2-7b",
        ),
        pytest.param(
            llama(num_layers=32, hidden_size=4096, num_heads=32, num_kv_heads=8, ffn_size=14_336, tie_embeddings=False),
            32_000,
            4096,
            7_241_732_096,
            id="mistral-7b",
        ),
        pytest.param(
            llama(num_layers=30, hidden_size=576, num_heads=9, num_kv_heads=3, ffn_size=1536, tie_embeddings=True),
            49_152,
            2048,
            134_515_008,
            id="smollm2-135m",
        ),
    ],
)
def test_language_models(model: Json, vocabulary: int, length: int, published: int) -> None:
    assert parameters(model, vocabulary, length) == published


def test_lenet_5_on_mnist() -> None:
    """LeCun et al. 1998 with all of C3's connections, as every tutorial builds it."""
    tanh: Json = {"type": "activation", "kind": "tanh"}
    pool: Json = {"type": "pool", "kind": "avg"}
    layers: list[Json] = [
        {"type": "conv", "channels": 6, "kernel_size": 5, "padding": 2},
        tanh,
        pool,
        {"type": "conv", "channels": 16, "kernel_size": 5},
        tanh,
        pool,
        {"type": "flatten"},
        {"type": "linear", "units": 120},
        tanh,
        {"type": "linear", "units": 84},
        tanh,
        {"type": "linear", "units": 10},
    ]
    content = arrays(1000, 1, 28, 28)
    assert plan(resolved(pictures({"type": "layers", "layers": layers}), content), content).parameters.total == 61_706


def test_a_perceptron_on_mnist() -> None:
    """784-512-512-10, of the Keras and PyTorch first steps."""
    content = arrays(1000, 784)
    spec = classifier(
        {"type": "mlp", "hidden_sizes": [512, 512]},
        task={"type": "classification", "num_classes": 10},
        data={"source": {"type": "arrays", "dataset": "set@1"}},
    )
    assert plan(resolved(spec, content), content).parameters.total == 669_706


def test_flops_of_gpt2_follow_the_textbook() -> None:
    """2 per parameter of a product and token, and attention on top: 2 N + 4 x layers x context x width (Kaplan et al. 2020)."""
    content = text(100_000_000)
    data = {
        "source": {"type": "text", "dataset": "set@1"},
        "tokenizer": {"type": "bpe", "vocab_size": 50_257},
        "sequence": {"length": 1024},
    }
    spec = resolved(language({"num_layers": 12, "hidden_size": 768, "num_heads": 12}, data=data), content)
    flops = plan(spec, content).flops
    products = 12 * 12 * 768**2 + 50_257 * 768
    assert flops.forward_per_token_flops == 2 * products + 4 * 12 * 1024 * 768
    assert flops.step_per_token_flops == 3 * flops.forward_per_token_flops
