"""Small directories as Hugging Face's transformers writes them, made without it."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors.numpy import save
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXT = "in the beginning was the word and the word was with the fire and the fire was warm. "
LENGTH, WIDTH = 32, 16


def gpt2_tokenizer(rows: int = 280) -> Tokenizer:
    """Byte-level, with one special token."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=rows, initial_alphabet=alphabet, special_tokens=["<|endoftext|>"], show_progress=False
    )
    made.train_from_iterator([TEXT * 20], trainer)
    return made


def bert_tokenizer(rows: int = 60) -> Tokenizer:
    """Pieces of lower-case words, between [CLS] and [SEP]; long texts are cut and short ones filled up, as some directories say."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    made.train_from_iterator([TEXT], trainers.WordPieceTrainer(vocab_size=rows, special_tokens=special, show_progress=False))
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    made.decoder = decoders.WordPiece()
    made.enable_padding(pad_id=0, pad_token="[PAD]", length=512)
    made.enable_truncation(512)
    return made


def llama_tokenizer(rows: int = 90) -> Tokenizer:
    """As SentencePiece has it: a mark for spaces, and bytes for what was never seen."""
    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    made.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="always")])
    special = ["<unk>", "<s>", "</s>"]
    made.train_from_iterator([TEXT * 20], trainers.BpeTrainer(vocab_size=rows, special_tokens=special, show_progress=False))
    return made


def gpt2_directory(rows: int = 280, **config: Any) -> dict[str, bytes]:
    """A GPT-2 of two blocks; files by name. `config`: what config.json says instead."""
    said: dict[str, Any] = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": rows,
        "n_positions": LENGTH,
        "n_embd": WIDTH,
        "n_layer": 2,
        "n_head": 2,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "id2label": {str(i): f"LABEL_{i}" for i in range(2)},
    }
    tokenizer = gpt2_tokenizer(rows)
    return {
        "config.json": json.dumps(said | config).encode(),
        "model.safetensors": save(gpt2_weights(rows), metadata={"format": "pt"}),
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": json.dumps({"eos_token": "<|endoftext|>"}).encode(),
        "LICENSE": b"none",
    }


def gpt2_weights(rows: int) -> dict[str, Any]:
    random = np.random.default_rng(0)
    shapes = {"wte.weight": (rows, WIDTH), "wpe.weight": (LENGTH, WIDTH), **_affine("ln_f")}
    for block in ("h.0", "h.1"):
        shapes |= _affine(f"{block}.ln_1") | _affine(f"{block}.ln_2")
        for name, (into, out) in {
            "attn.c_attn": (WIDTH, 3 * WIDTH),
            "attn.c_proj": (WIDTH, WIDTH),
            "mlp.c_fc": (WIDTH, 4 * WIDTH),
            "mlp.c_proj": (4 * WIDTH, WIDTH),
        }.items():
            shapes |= {f"{block}.{name}.weight": (into, out), f"{block}.{name}.bias": (out,)}
    return {f"transformer.{name}": random.normal(0, 0.2, shape).astype(np.float32) for name, shape in shapes.items()}


def _affine(name: str) -> Mapping[str, tuple[int, ...]]:
    return {f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)}
