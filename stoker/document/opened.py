"""What a document takes from Hugging Face directories, written out before it is parsed: `model: {type: hf, source: gpt2}` becomes the
fields of a transformer, and its weights and its tokenizer what the run begins with and reads by.

No file is opened here: what matters of one was measured when its data set was uploaded.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from stoker.document.grammar import leaves
from stoker.document.strict_json import JsonValue
from stoker.errors import Finding
from stoker.facts import DatasetFacts, WeightFacts
from stoker.spec.derived.hugging_face import Configured, configured
from stoker.spec.model.hf import HF

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


def source_of(value: Fields) -> str | None:
    """The data set whose directory the document takes; None for a document without one. Broken parts are left to the grammar."""
    model = _read(value.get("model"))
    return None if model is None else model.source


def opened(value: Fields, facts: DatasetFacts) -> Opened:
    """`facts`: of the data set of `source_of`."""
    work = _Work(value, facts)
    work.read()
    return Opened(work.value, work.origins, tuple(work.findings), work.rows)


class _Work:
    """One document on its way."""

    def __init__(self, value: Fields, facts: DatasetFacts) -> None:
        self.value, self.facts, self.name = value, facts, f"{facts.name}@{facts.version}"
        self.content = facts.content if isinstance(facts.content, WeightFacts) else WeightFacts(tensors=0, parameters=0)
        self.origins: dict[str, str] = {}
        self.findings: list[Finding] = []
        self.rows: int | None = None

    def read(self) -> None:
        hf = _read(self.value.get("model"))
        theirs = None if hf is None else self._configured()
        if hf is None or theirs is None:
            return
        self._model(hf, theirs)
        self._reads_text()
        if hf.weights and self._begins():
            self.rows = theirs.vocabulary
        self._tokenizer(theirs)

    def _configured(self) -> Configured | None:
        if self.content.config is None:
            self._refuse(f"{MODEL}/source", "hf-no-config", f"{self.name} has no config.json", WHOLE)
            return None
        try:
            return configured(self.content.config)
        except ValueError as error:
            hint = "take a directory of gpt2, llama or bert without it, or write the fields of a transformer and train it from the start"
            self._refuse(f"{MODEL}/source", "hf-unsupported", f"{self.name}: {error}", hint)
            return None

    def _model(self, hf: HF, theirs: Configured) -> None:
        """What stands beside the directory wins; an encoder gets the head of the task."""
        made = theirs.model.model_dump(mode="json", exclude={"preset"})
        if theirs.model.type == "transformer_encoder":
            filled = _at(self.value, "task", "type") == "masked_lm"
            made |= {"head_transform": filled, "pooler": not filled}
        own = hf.model_dump(mode="json", include={"dropout", "attention_dropout", "embedding_dropout", "init"}, exclude_none=True)
        if "init" not in own:
            del made["init"]
        self._put("model", made | own, besides=own)

    def _reads_text(self) -> None:
        source = _at(self.value, "data", "source")
        if isinstance(source, dict) and source.get("type") != "text" and source.get("text") is None:
            hint = "name the column that holds text in data.source.text, or use another model"
            self._refuse(
                f"{MODEL}/source",
                "hf-reads-text",
                f"the model of {self.name} reads text, but the samples of this task are not text",
                hint,
            )

    def _begins(self) -> bool:
        """Writes the start out; whether the run begins with the directory's weights."""
        if _at(self.value, "checkpoint", "resume_from") is not None:
            return False
        section = self.value.get("initialization") or {}
        if not isinstance(section, dict):
            return False
        start = section.get("start")
        if start is None:
            start = {} if _at(self.value, "task", "type") in LANGUAGE else {"reset_head": True}
        elif not isinstance(start, dict) or not self._same(start):
            hint = f"set weights: false for the architecture alone, or start: {{type: pretrained, source: {self.facts.name}, …}}"
            message = f"the run is to begin with the weights of {self.name}, and `initialization.start` says otherwise"
            self._refuse(f"{MODEL}/weights", "hf-two-beginnings", message, hint)
            return False
        brought = {"type": "pretrained", "source": self.name, "names": "huggingface"}
        self._put("initialization", section | {"start": start | brought}, besides=section)
        return True

    def _same(self, start: Fields) -> bool:
        """Whether a start that the document has is from this directory too."""
        ref, names = start.get("source"), start.get("names", "huggingface")
        return start.get("type") == "pretrained" and ref in (self.facts.name, self.name) and names == "huggingface"

    def _tokenizer(self, theirs: Configured) -> None:
        """The directory's, unless the document has another."""
        data, tokens = self.value.get("data"), self.content.vocabulary
        if not isinstance(data, dict):
            return
        given = data.get("tokenizer")
        if given is not None and not (isinstance(given, dict) and self._its_own(given)):
            return
        if tokens is None:
            hint = f"{WHOLE}; or set data.tokenizer to the one that its weights were trained with"
            self._refuse(TOKENIZER, "hf-no-tokenizer", f"{self.name} has no tokenizer.json that can be read", hint)
            return
        if tokens > theirs.vocabulary:
            message = (
                f"tokenizer.json of {self.name} gives {tokens} ids, and vocab_size of its config.json is {theirs.vocabulary}"
            )
            self._refuse(TOKENIZER, "hf-vocabulary", message, "use the tokenizer that the weights were trained with")
            return
        last = self._lacks() and theirs.vocabulary > tokens  # the last row is the token that the tokenizer has not
        brought = {"type": "file", "source": self.name, "vocab_size": theirs.vocabulary - last}
        brought |= {"mask_id": self.content.mask_id, "pad_id": self.content.pad_id}
        own = {key: inner for key, inner in (given or {}).items() if inner is not None} | {"source": self.name}
        self._put("data", data | {"tokenizer": brought | own}, besides=data)

    def _its_own(self, given: Fields) -> bool:
        return given.get("type") == "file" and given.get("source") in (self.facts.name, self.name)

    def _lacks(self) -> bool:
        """Whether the task needs a token that the tokenizer does not have."""
        if _at(self.value, "task", "type") == "masked_lm":
            return self.content.mask_id is None
        return _at(self.value, "data", "source", "text") is not None and self.content.pad_id is None

    def _put(self, key: str, made: Fields, *, besides: Fields) -> None:
        """A section of the document, of which `besides` is the user's."""
        mine = {pointer for pointer, _ in leaves(besides, f"/{key}")}
        self.origins |= {pointer: f"hf:{self.name}" for pointer, _ in leaves(made, f"/{key}") if pointer not in mine}
        self.value = {**self.value, key: made}

    def _refuse(self, pointer: str, code: str, message: str, hint: str) -> None:
        self.findings.append(Finding(pointer=pointer, code=code, message=message, hint=hint))


def _at(value: JsonValue, *keys: str) -> JsonValue:
    """Below these keys, or None."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _read(value: JsonValue) -> HF | None:
    """The model of a document, where it is a directory and whole."""
    if not isinstance(value, dict) or value.get("type") != "hf":
        return None
    try:
        return HF.model_validate_json(json.dumps(value, allow_nan=False))
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
