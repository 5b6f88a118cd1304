"""Attention, positions, norms and heads of transformers against references that are written out here."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from stoker.spec.model import TransformerDecoder, TransformerEncoder
from stoker.spec.model.transformer import LinearScaling, NtkScaling
from worker.trainer.errors import SpecProblem
from worker.trainer.model.transformer import Attention, Rotation, Sinusoids, alibi_slopes, build_attend, normed
from worker.trainer.model.transformer_decoder import Decoder, build_transformer_decoder
from worker.trainer.model.transformer_encoder import build_transformer_encoder

T, V = 12, 37
SMALL: dict[str, Any] = {"num_layers": 2, "hidden_size": 24, "num_heads": 4}


def decoder(**fields: Any) -> Decoder:
    torch.manual_seed(1)
    model = build_transformer_decoder(
        TransformerDecoder.model_validate(SMALL | {"init": {"type": "normal", "std": 0.3}} | fields), T, V
    )
    assert isinstance(model, Decoder)
    return model.double().eval()


def reference(
    q: Any, k: Any, v: Any, *, causal: bool, window: int | None = None, slopes: Any = None, cap: float | None = None
) -> Any:
    """Softmax attention in NumPy, head by head: q (B, H, T, K), k (B, G, T, K), v (B, G, T, W)."""
    out = np.zeros((*q.shape[:3], v.shape[-1]))
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            g = h // (q.shape[1] // k.shape[1])
            scores = q[b, h] @ k[b, g].T / math.sqrt(q.shape[-1])
            if cap is not None:
                scores = cap * np.tanh(scores / cap)
            for i in range(scores.shape[0]):
                for j in range(scores.shape[1]):
                    if (causal and j > i) or (window is not None and abs(i - j) >= window):
                        scores[i, j] = -np.inf
                    elif slopes is not None:
                        scores[i, j] -= slopes[h] * abs(i - j)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            out[b, h] = weights / weights.sum(-1, keepdims=True) @ v[b, g]
    return out


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "grouped": {"num_kv_heads": 2},
    "values of another width": {"key_dim": 5, "value_dim": 3, "num_kv_heads": 2},
    "window": {"window": 3},
    "capped": {"attention_softcap": 0.5, "num_kv_heads": 2},
    "capped window": {"attention_softcap": 0.5, "window": 4},
    "alibi": {"position": {"type": "alibi"}},
    "alibi window": {"position": {"type": "alibi"}, "window": 5, "num_heads": 6},
}


@pytest.mark.proves("ARCH-08", "ARCH-15")
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "all"])
@pytest.mark.parametrize("fields", KINDS.values(), ids=KINDS)
def test_attention_is_the_softmax_of_its_scores(fields: dict[str, Any], causal: bool) -> None:
    spec = TransformerDecoder.model_validate(SMALL | fields)
    random = np.random.default_rng(0)
    q, k, v = (
        random.standard_normal((2, heads, T, width))
        for heads, width in ((spec.num_heads, spec.key_width), (spec.kv_heads, spec.key_width), (spec.kv_heads, spec.value_width))
    )
    slopes = [2 ** (-8 * (i + 1) / 4) for i in range(4)] if spec.num_heads == 4 else [2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3]
    alibi = slopes if spec.position.type == "alibi" else None
    wanted = reference(q, k, v, causal=causal, window=spec.window, slopes=alibi, cap=spec.attention_softcap)
    ours = build_attend(spec, causal=causal)(torch.from_numpy(q), torch.from_numpy(k), torch.from_numpy(v), 0.0)
    assert np.abs(ours.numpy() - wanted).max() < 1e-6


@pytest.mark.proves("ARCH-16")
def test_slopes_of_alibi_are_those_of_the_paper() -> None:
    assert alibi_slopes(8).tolist() == [2.0**-i for i in range(1, 9)]
    assert torch.allclose(alibi_slopes(12), torch.tensor([*(2.0**-i for i in range(1, 9)), 2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5]))


DECODERS: dict[str, dict[str, Any]] = {
    "learned": {},
    "sinusoidal": {"position": {"type": "sinusoidal"}, "norm_placement": "post"},
    "rope": {"position": {"type": "rope", "dim": 4}, "qk_norm": True, "normalization": {"type": "rms"}},
    "alibi": {"position": {"type": "alibi"}, "num_kv_heads": 2},
    "window": {"window": 4},
    "capped": {"attention_softcap": 2.0, "final_softcap": 3.0},
    "other widths": {"embedding_size": 10, "key_dim": 5, "value_dim": 3},
    "batch norm": {"normalization": {"type": "batch"}},
}


@pytest.mark.proves("ARCH-08", "ARCH-11")
@pytest.mark.parametrize("fields", DECODERS.values(), ids=DECODERS)
def test_no_token_sees_a_later_one(fields: dict[str, Any]) -> None:
    """The gradient of each output with respect to later embeddings is zero exactly; to windows back, too."""
    model = decoder(**fields)
    vectors = model.tokens(torch.arange(T)[None]).detach().requires_grad_()
    model.tokens.register_forward_hook(lambda _, given, out: vectors)
    out = model(torch.arange(T)[None])
    for t in (0, T // 2, T - 2):
        (slope,) = torch.autograd.grad(out[0, t].square().sum(), vectors, retain_graph=True)
        assert torch.equal(slope[0, t + 1 :], torch.zeros_like(slope[0, t + 1 :]))
        assert (slope[0, t] != 0).any()
        if model_window := fields.get("window"):
            reach = SMALL["num_layers"] * (model_window - 1)
            assert torch.equal(slope[0, : max(0, t - reach)], torch.zeros_like(slope[0, : max(0, t - reach)]))


@pytest.mark.proves("ARCH-16")
@pytest.mark.parametrize("fields", DECODERS.values(), ids=DECODERS)
def test_order_matters(fields: dict[str, Any]) -> None:
    model, ids = decoder(**fields), torch.arange(T)[None]
    swapped = ids.clone()
    swapped[0, [2, 3]] = swapped[0, [3, 2]]
    assert not torch.allclose(
        model(ids)[0, -1] if "window" not in fields else model(ids)[0, 5],
        (model(swapped)[0, -1] if "window" not in fields else model(swapped)[0, 5]),
    )


@pytest.mark.proves("ARCH-14")
def test_heads_are_what_they_are_alone() -> None:
    """Each head of the layer equals attention with its slice of the matrices; one wide head of the same weights is another function."""
    spec = TransformerDecoder.model_validate(SMALL)
    torch.manual_seed(0)
    layer = Attention(spec, build_attend(spec, causal=True)).double()
    x = torch.randn(2, T, 24, dtype=torch.float64)
    parts = []
    for head in range(4):
        rows = slice(6 * head, 6 * head + 6)
        q, k, v = ((x @ m.weight[rows].T + m.bias[rows]).detach().numpy()[:, None] for m in (layer.q, layer.k, layer.v))
        parts.append(reference(q, k, v, causal=True)[:, 0])
    wanted = torch.from_numpy(np.concatenate(parts, -1)) @ layer.out.weight.T + layer.out.bias
    assert (layer(x, None) - wanted).abs().max() < 1e-6
    one = TransformerDecoder.model_validate(SMALL | {"num_heads": 1})
    single = Attention(one, build_attend(one, causal=True)).double()
    single.load_state_dict(layer.state_dict())
    assert (single(x, None) - wanted).abs().max() > 1e-3


@pytest.mark.proves("ARCH-15")
def test_widths_of_queries_keys_and_values() -> None:
    model = decoder(key_dim=5, value_dim=3, num_kv_heads=2)
    layer: Any = model.blocks[0].attention
    assert [tuple(m.weight.shape) for m in (layer.q, layer.k, layer.v, layer.out)] == [(20, 24), (10, 24), (6, 24), (24, 12)]


@pytest.mark.proves("ARCH-13")
def test_another_width_of_embeddings_is_one_projection_more() -> None:
    for tied in (True, False):
        plain, apart = decoder(tie_embeddings=tied), decoder(tie_embeddings=tied, embedding_size=10)
        assert tuple(apart.tokens.weight.shape) == (V, 10)
        added = apart.state_dict().keys() - plain.state_dict().keys()
        assert added == {"widen.weight"}
        assert tuple(apart.state_dict()["widen.weight"].shape) == (24, 10)
        assert plain.state_dict().keys() <= apart.state_dict().keys()


def test_logits_are_made_of_hidden_states_and_projection() -> None:
    for fields in ({}, {"tie_embeddings": False}, {"embedding_size": 10}, {"final_softcap": 2.0}):
        model, ids = decoder(**fields), torch.arange(T)[None]
        weight, bias = model.projection()
        logits = model.hidden(ids) @ weight.T
        assert bias is None
        assert weight.shape[0] == V
        wanted = 2.0 * np.tanh(logits.detach().numpy() / 2.0) if "final_softcap" in fields else logits.detach().numpy()
        assert np.abs(model(ids).detach().numpy() - wanted).max() < 1e-9


@pytest.mark.proves("ARCH-16")
def test_sinusoids_follow_the_formula() -> None:
    table = Sinusoids(10, 10000.0, 50).table
    wanted = [[(math.sin if d % 2 == 0 else math.cos)(p / 10000.0 ** (2 * (d // 2) / 10)) for d in range(10)] for p in range(50)]
    assert (table - torch.tensor(wanted)).abs().max() < 1e-6


@pytest.mark.proves("ARCH-16")
@pytest.mark.parametrize("scaling", [None, LinearScaling(factor=4.0), NtkScaling(factor=4.0)], ids=["none", "linear", "ntk"])
def test_rotated_products_depend_on_the_distance_alone(scaling: LinearScaling | NtkScaling | None) -> None:
    turn = Rotation(6, 100.0, 64, scaling)
    torch.manual_seed(0)
    q, k = (
        torch.randn(1, 1, 1, 10, dtype=torch.float64).expand(1, 1, 64, 10),
        torch.randn(1, 1, 1, 10, dtype=torch.float64).expand(1, 1, 64, 10),
    )
    products = turn(q)[0, 0] @ turn(k)[0, 0].T
    for offset in (-7, 0, 3, 20):
        line = torch.diagonal(products, offset)
        assert (line - line[0]).abs().max() < 1e-5
    assert torch.equal(turn(q)[..., 6:], q[..., 6:]), "only the first dim dimensions turn"
    assert not torch.allclose(turn(q)[..., :6][..., 1, :], q[..., 0, :6])


@pytest.mark.proves("ARCH-16")
def test_scaled_rotations() -> None:
    """Linear: position 4 p is where p was. Ntk: the slowest rotation is slowed by the factor, the fastest stays."""
    plain, linear, ntk = (Rotation(8, 100.0, 64, s) for s in (None, LinearScaling(factor=4.0), NtkScaling(factor=4.0)))
    assert torch.allclose(linear.cos[::4], plain.cos[:16])
    assert torch.allclose(linear.sin[::4], plain.sin[:16])
    assert torch.allclose(ntk.sin[:, 0], plain.sin[:, 0])
    assert torch.allclose(ntk.sin[::4, -1], plain.sin[:16, -1], atol=1e-6)


@pytest.mark.proves("ARCH-22")
def test_norms_of_tokens() -> None:
    x = torch.randn(3, T, 24, dtype=torch.float64) * 3 + 1
    layer: Any = decoder().norm
    alone = normed(layer, x)
    wanted = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + layer.eps).sqrt()
    assert (alone - wanted).abs().max() < 1e-6
    assert torch.equal(normed(layer, x[:1]), alone[:1]), "of the batch it knows nothing"
    rms: Any = decoder(normalization={"type": "rms"}).norm
    assert (normed(rms, x) - x / (x.square().mean(-1, keepdim=True) + rms.eps).sqrt()).abs().max() < 1e-6
    batch: Any = decoder(normalization={"type": "batch"}).norm
    flat = x.flatten(0, 1)
    wanted = (flat - flat.mean(0)) / (flat.var(0, unbiased=False) + batch.eps).sqrt()
    assert (normed(batch.train(), x) - wanted.view_as(x)).abs().max() < 1e-6


@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_an_encoder_of_numbers_reads_steps(pooling: str) -> None:
    spec = TransformerEncoder.model_validate(SMALL | {"pooling": pooling, "pooler": True, "segments": 2})
    torch.manual_seed(0)
    model: Any = build_transformer_encoder(spec, (T, 5), 3, text=False).eval()
    x = torch.randn(2, T, 5)
    hidden = model.encoded(x)
    read = hidden[:, 0] if pooling == "first" else hidden.mean(1)
    assert torch.allclose(model(x), model.head(torch.tanh(model.pooler(read))), atol=1e-6)
    last = x.clone()
    last[:, -1] += 1
    assert not torch.allclose(model.encoded(last)[:, 0], hidden[:, 0]), "the first step sees the last"
    with pytest.raises(SpecProblem, match="steps, features"):
        build_transformer_encoder(spec, (3, 8, 8), 3, text=False)


@pytest.mark.proves("ARCH-14")
def test_what_does_not_fit_is_named() -> None:
    for fields, word in (
        ({"position": {"type": "learned", "max_length": T - 1}}, "max_length"),
        ({"position": {"type": "rope", "dim": 2, "scaling": {"type": "ntk"}}}, "position.dim"),
        ({"num_kv_heads": 3}, "num_kv_heads"),
        ({"num_heads": 5}, "num_heads"),
    ):
        with pytest.raises(SpecProblem, match=word):
            decoder(**fields)


def test_every_weight_learns() -> None:
    model = decoder(embedding_size=10, value_dim=3, attention_softcap=4.0, final_softcap=9.0, gated_ffn=True).train()
    model(torch.arange(T)[None]).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for n, p in model.named_parameters() if not n.endswith("k.bias"))
    assert isinstance(model.tokens, nn.Embedding)
