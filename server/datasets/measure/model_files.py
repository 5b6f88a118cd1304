"""What stands beside the weights of a Hugging Face directory: read as JSON alone, nothing of it is executed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from server.datasets.measure.reject import reject
from stoker.document.strict_json import JsonRejected, strict_json
from stoker.text import counted

MAX_CONFIG_BYTES = 1 << 20
MAX_KEPT_BYTES = 1 << 16
MAX_TOKENIZER_BYTES = 64 << 20
MAX_TOKENS = 1_000_000
NAMES_OF_CLASSES = ("id2label", "label2id", "task_specific_params")
"""Of a config, what may be long and says nothing of the model."""
MASKS, PADS = ("[MASK]", "<mask>"), ("[PAD]", "<pad>")
"""Special tokens as most directories write them, where tokenizer_config.json does not say."""

Files = Sequence[tuple[str, Path]]


def config_in(files: Files) -> dict[str, Any] | None:
    """config.json (`Any`: JSON). Raises Rejected when it is no object of a sensible size."""
    location = dict(files).get("config.json")
    if location is None:
        return None
    found = {key: value for key, value in _read("config.json", location).items() if key not in NAMES_OF_CLASSES}
    if len(orjson.dumps(found)) > MAX_KEPT_BYTES:
        reject(
            f"config.json holds more than {MAX_KEPT_BYTES} bytes in addition to the names of classes; remove what the model does not need.",
            "config.json",
        )
    return found


def tokens_in(files: Files) -> dict[str, int | None]:
    """What WeightFacts says of tokenizer.json, as the library tokenizers writes it. Raises Rejected."""
    locations = dict(files)
    if "tokenizer.json" not in locations:
        return {}
    whole = _loose("tokenizer.json", locations["tokenizer.json"])
    added = whole.get("added_tokens") or []
    model = whole.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(added, list) or not isinstance(vocabulary, dict | list):
        return {}  # of another kind, as that beside an export of Stoker's own names
    ids: dict[str, Any] = {str(token.get("content")): token.get("id") for token in added if isinstance(token, dict)}
    numbers = [*(vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary))), *ids.values()]
    if not numbers or any(type(number) is not int or not 0 <= number < MAX_TOKENS for number in numbers):
        reject(f"tokenizer.json has a token without an id from 0 to {MAX_TOKENS - 1}, or none at all.", "tokenizer.json")
    named = _loose("tokenizer_config.json", where) if (where := locations.get("tokenizer_config.json")) else {}
    mask, pad = _id_of(named.get("mask_token"), MASKS, ids), _id_of(named.get("pad_token"), PADS, ids)
    return {"vocabulary": max(numbers) + 1, "mask_id": mask, "pad_id": pad}


def _id_of(named: object, usual: Sequence[str], ids: dict[str, int]) -> int | None:
    """By the name that tokenizer_config.json gives it, {"content": …} or a string."""
    name = named.get("content") if isinstance(named, dict) else named
    return next((ids[each] for each in ((name,) if isinstance(name, str) else usual) if each in ids), None)


def check_index(files: Files) -> None:
    """Every file that an index of weights names is there. Raises Rejected."""
    found = dict(files)
    for name in sorted(found):
        if name.endswith(".safetensors.index.json"):
            named = _loose(name, found[name]).get("weight_map")
            if not isinstance(named, dict) or not all(isinstance(file, str) for file in named.values()):
                reject(f"{name} has no weight_map that names files.", name)
            if lost := sorted(set(named.values()) - found.keys()):
                reject(f"{name} names {counted(len(lost), 'file')} that were not uploaded; upload the whole directory.", name)


def _read(path: str, location: Path) -> dict[str, Any]:
    if location.stat().st_size > MAX_CONFIG_BYTES:
        reject(f"{path} is larger than {MAX_CONFIG_BYTES} bytes.", path)
    try:
        found = strict_json(location.read_bytes())
    except JsonRejected as error:
        reject(f"{path} cannot be read: {error.detail}.", path)
    return _object(path, found)


def _loose(path: str, location: Path) -> dict[str, Any]:
    """A vocabulary has more values than a document may have, model_max_length is often 1e30, and nothing of them but ids is kept."""
    if location.stat().st_size > MAX_TOKENIZER_BYTES:
        reject(f"{path} is larger than {MAX_TOKENIZER_BYTES} bytes.", path)
    try:
        found = orjson.loads(location.read_bytes())
    except orjson.JSONDecodeError as error:
        reject(f"{path} cannot be read: {error}.", path)
    return _object(path, found)


def _object(path: str, found: object) -> dict[str, Any]:
    if not isinstance(found, dict):
        reject(f"{path} must hold a JSON object.", path)
    return found
