"""What a document takes from Hugging Face directories, written out before it is parsed: `model: {type: hf, source: gpt2}` becomes the
fields of a transformer, and its weights and its tokenizer what the run begins with and reads by.

No file is opened here: what matters of one was measured when its data set was uploaded.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from stoker.errors import Finding
from stoker.facts import DatasetFacts, TokenizerFacts, WeightFacts
from stoker.spec._base import Spec
from stoker.spec.data.tokenizer import HFTokenizer
from stoker.spec.grammar import leaves
from stoker.spec.hugging_face import Configured, configured
from stoker.spec.model.hf import HF
from stoker.spec.strict_json import JsonValue

Fields = dict[str, JsonValue]
MODEL, START, TOKENIZER = "/model", "/initialization/start", "/data/tokenizer"
LANGUAGE = ("causal_lm", "masked_lm")
"""Tasks whose head is the directory's own."""
WHOLE = "upload the whole directory: config.json, *.safetensors and tokenizer.json"


@dataclass(frozen=True)
class Opened:
    """A document without directories."""

    value: Fields
    origins: Mapping[str, str] = field(default_factory=dict)
    """JSON pointer of each leaf that a directory brought → `hf:NAME@VERSION`."""
    findings: tuple[Finding, ...] = ()
    rows: int | None = None
    """Of the embedding whose weights the run begins with."""


def sources(value: Fields) -> dict[str, str]:
    """JSON pointer → data set, of all that the document takes from directories. Broken parts are left to the grammar."""
    model, tokenizer = _read(HF, value.get("model")), _read(HFTokenizer, _at(value, "data", "tokenizer"))
    found = {} if model is None else {f"{MODEL}/source": model.source}
    if tokenizer is not None and tokenizer.source is not None:
        found[f"{TOKENIZER}/source"] = tokenizer.source
    return found


def opened(value: Fields, known: Mapping[str, DatasetFacts]) -> Opened:
    """`known`: facts of each data set of `sources`, by the pointer."""
    work = _Work(value, known)
    work.read()
    return Opened(work.value, work.origins, tuple(work.findings), work.rows)


class _Work:
    """One document on its way."""

    def __init__(self, value: Fields, known: Mapping[str, DatasetFacts]) -> None:
        self.value, self.known = value, known
        self.origins: dict[str, str] = {}
        self.findings: list[Finding] = []
        self.rows: int | None = None

    def read(self) -> None:
        hf = _read(HF, self.value.get("model"))
        theirs = None if hf is None else self._configured(self.known[f"{MODEL}/source"])
        if hf is not None and theirs is not None:
            facts = self.known[f"{MODEL}/source"]
            self._model(hf, theirs, facts)
            self._text(hf, facts)
            if hf.weights and self._begins(facts):
                self.rows = theirs.vocabulary
        if hf is None or theirs is not None:
            self._tokenizer(theirs)

    def _configured(self, facts: DatasetFacts) -> Configured | None:
        config = facts.content.config if isinstance(facts.content, WeightFacts) else None
        if config is None:
            self._refuse(f"{MODEL}/source", "hf-no-config", f"{_named(facts)} has no config.json", WHOLE)
            return None
        try:
            return configured(config)
        except ValueError as error:
            hint = "take a directory of gpt2, llama or bert without it, or write the fields of a transformer and train it from the start"
            self._refuse(f"{MODEL}/source", "hf-unsupported", f"{_named(facts)}: {error}", hint)
            return None

    def _model(self, hf: HF, theirs: Configured, facts: DatasetFacts) -> None:
        """What stands beside the directory wins; an encoder gets the head of the task."""
        made = theirs.model.model_dump(mode="json", exclude={"preset"})
        if theirs.model.type == "transformer_encoder":
            filled = _at(self.value, "task", "type") == "masked_lm"
            made |= {"head_transform": filled, "pooler": not filled}
        own = hf.model_dump(mode="json", include={"dropout", "attention_dropout", "embedding_dropout", "init"}, exclude_none=True)
        if "init" not in own:
            del made["init"]
        self._put("model", made | own, facts, besides=own)

    def _text(self, hf: HF, facts: DatasetFacts) -> None:
        source = _at(self.value, "data", "source")
        if isinstance(source, dict) and source.get("type") != "text" and source.get("text") is None:
            hint = "name the column that holds text in data.source.text, or use another model"
            self._refuse(
                f"{MODEL}/source", "hf-reads-text", f"the model of {_named(facts)} reads text, and samples are none", hint
            )

    def _begins(self, facts: DatasetFacts) -> bool:
        """Writes the start out; whether the run begins with the directory's weights."""
        if _at(self.value, "checkpoint", "resume_from") is not None:
            return False
        section = self.value.get("initialization") or {}
        if not isinstance(section, dict):
            return False
        start = section.get("start")
        if start is None:
            start = {} if _at(self.value, "task", "type") in LANGUAGE else {"reset_head": True}
        elif not isinstance(start, dict) or not self._same(start, facts):
            hint = f"set weights: false for the architecture alone, or start: {{type: pretrained, source: {facts.name}, …}}"
            message = f"the run is to begin with the weights of {_named(facts)}, and `initialization.start` says otherwise"
            self._refuse(f"{MODEL}/weights", "hf-two-beginnings", message, hint)
            return False
        brought = {"type": "pretrained", "source": _named(facts), "names": "huggingface"}
        self._put("initialization", section | {"start": start | brought}, facts, besides=section)
        return True

    @staticmethod
    def _same(start: Fields, facts: DatasetFacts) -> bool:
        """Whether a start that the document has is from this directory too."""
        ref, names = start.get("source"), start.get("names", "huggingface")
        return start.get("type") == "pretrained" and ref in (facts.name, _named(facts)) and names == "huggingface"

    def _tokenizer(self, theirs: Configured | None) -> None:
        """The directory's, unless the document has one."""
        data = self.value.get("data")
        if not isinstance(data, dict):
            return
        given, of_model = data.get("tokenizer"), self.known.get(f"{MODEL}/source")
        if given is None and of_model is None:
            return
        spec = HFTokenizer() if given is None else _read(HFTokenizer, given)
        if spec is None:
            return
        facts = self.known.get(f"{TOKENIZER}/source", of_model)
        if facts is None:
            self._refuse(
                f"{TOKENIZER}/source", "hf-no-source", "no data set is named", "name the one whose tokenizer.json is to be used"
            )
            return
        found = facts.content.tokenizer if isinstance(facts.content, WeightFacts) else None
        if found is None:
            hint = f"{WHOLE}; or set data.tokenizer to the one that its weights were trained with"
            self._refuse(TOKENIZER, "hf-no-tokenizer", f"{_named(facts)} has no tokenizer.json that can be read", hint)
            return
        self._put("data", data | {"tokenizer": self._filled(spec, found, facts, theirs)}, facts, besides=data)

    def _filled(self, spec: HFTokenizer, found: TokenizerFacts, facts: DatasetFacts, theirs: Configured | None) -> Fields:
        mask = found.mask_id if spec.mask_id is None else spec.mask_id
        pad = found.pad_id if spec.pad_id is None else spec.pad_id
        rows = spec.vocab_size
        if rows is None:
            config = facts.content.config if isinstance(facts.content, WeightFacts) else None
            total = theirs.vocabulary if theirs is not None else (config or {}).get("vocab_size")
            rows = _rows(found.tokens, total, lacks=self._lacks(mask, pad))
        if rows < found.tokens:
            self._refuse(
                f"{TOKENIZER}/vocab_size",
                "hf-vocabulary",
                f"tokenizer.json of {_named(facts)} gives {found.tokens} ids, and vocab_size is {rows}",
                "use the tokenizer that the weights were trained with",
            )
        for name, token in (("mask_id", spec.mask_id), ("pad_id", spec.pad_id)):
            if token is not None and token >= rows:
                message = f"{name} {token} is beyond the {rows} tokens of the vocabulary"
                self._refuse(f"{TOKENIZER}/{name}", "hf-vocabulary", message, f"set it below {rows}, or leave it out")
        return {"type": "hf", "source": _named(facts), "vocab_size": rows, "mask_id": mask, "pad_id": pad}

    def _lacks(self, mask: int | None, pad: int | None) -> bool:
        """Whether the task needs a token that the tokenizer does not have."""
        if _at(self.value, "task", "type") == "masked_lm":
            return mask is None
        return _at(self.value, "data", "source", "text") is not None and pad is None

    def _put(self, key: str, made: Fields, facts: DatasetFacts, *, besides: Fields) -> None:
        """A section of the document, of which `besides` is the user's."""
        mine = {pointer for pointer, _ in leaves(besides, f"/{key}")}
        self.origins |= {pointer: f"hf:{_named(facts)}" for pointer, _ in leaves(made, f"/{key}") if pointer not in mine}
        self.value = {**self.value, key: made}

    def _refuse(self, pointer: str, code: str, message: str, hint: str) -> None:
        self.findings.append(Finding(pointer=pointer, code=code, message=message, hint=hint))


def _rows(tokens: int, total: object, *, lacks: bool) -> int:
    """Of the embedding, without that of a token which the tokenizer lacks: the last one, where there are more than it has ids."""
    if type(total) is not int or total < 1:
        return tokens
    return total - 1 if lacks and total > tokens else total


def _named(facts: DatasetFacts) -> str:
    return f"{facts.name}@{facts.version}"


def _at(value: JsonValue, *keys: str) -> JsonValue:
    """Below these keys, or None."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


S = TypeVar("S", bound=Spec)


def _read(kind: type[S], value: JsonValue) -> S | None:
    """The part of a document, where it is of this kind and whole."""
    if not isinstance(value, dict) or value.get("type") != "hf":
        return None
    try:
        return kind.model_validate_json(json.dumps(value, allow_nan=False))
    except (ValueError, TypeError, RecursionError):  # a ValidationError is one
        return None


def unread(opened: Opened, rows: int | None) -> Iterator[Finding]:
    """Weights whose embedding has another number of rows than the data's tokens ask for."""
    if opened.rows is not None and rows is not None and rows != opened.rows:
        yield Finding(
            pointer=TOKENIZER,
            code="hf-vocabulary",
            message=f"the weights have an embedding of {opened.rows} rows (vocab_size of config.json), and the data asks for {rows}",
            hint="leave data.tokenizer out for the directory's own, or set model.weights: false",
        )
