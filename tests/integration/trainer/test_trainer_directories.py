"""Directories that Hugging Face's transformers wrote, trained from and exported again: the same tokens and the same outputs, before
the first step and after the last, on one process and on two. Outputs are compared in float64: these weights are bold, and float32 alone
would differ from itself.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from server.datasets.measure.__main__ import measure
from stoker.document.document import Document
from stoker.document.opened import opened
from stoker.document.resolve import resolve
from stoker.events import Notice
from stoker.facts import DatasetFacts
from stoker.spec import JobSpec
from tests.support.directories import TEXT, gpt2_directory
from tests.support.trainer_runs import Nursery, events, final_checkpoint, finished, log
from worker.trainer.checkpoint import given
from worker.trainer.errors import SpecProblem
from worker.trainer.initialization import fill
from worker.trainer.model import build_model
from worker.trainer.predict import load

ROOT = Path(__file__).parents[3]
STILL = 1e-12
"""A learning rate that moves no float32 weight of ordinary size."""
SENTENCES = [
    "the word was with the fire",
    "warm",
    "In the Beginning",
    "the fire was warm and the word was with the fire again " * 2,
]
LIBRARY = """
import json, sys, warnings
warnings.simplefilter("ignore")
from pathlib import Path
import torch
from transformers import (AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer, BertConfig, BertForMaskedLM,
    BertForSequenceClassification, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast)
from transformers.utils import logging
from tests.support.directories import bert_tokenizer, gpt2_tokenizer, llama_tokenizer
logging.set_verbosity_error()
torch.manual_seed(0)
other = dict(hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=32,
             initializer_range=0.2)
purposes = dict(pad_token="[PAD]", mask_token="[MASK]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]")

def make(root, sentences):
    gpt, bert, llama = gpt2_tokenizer(), bert_tokenizer(), llama_tokenizer()
    rows = bert.get_vocab_size()
    made = {
        "gpt2": (GPT2LMHeadModel(GPT2Config(vocab_size=280, n_positions=32, n_embd=24, n_layer=2, n_head=4, initializer_range=0.2)),
                 gpt, dict(eos_token="<|endoftext|>")),
        "llama": (LlamaForCausalLM(LlamaConfig(vocab_size=llama.get_vocab_size() + 6, num_key_value_heads=2, **other)),
                  llama, dict(eos_token="</s>", bos_token="<s>")),
        "bert": (BertForMaskedLM(BertConfig(vocab_size=rows, **other)), bert, purposes),
        "bert-classes": (BertForSequenceClassification(BertConfig(vocab_size=rows, num_labels=2, **other)), bert, purposes),
    }
    for name, (model, tokenizer, special) in made.items():
        for key, weight in model.named_parameters():
            if "bias" in key or "orm" in key or "ln_" in key:  # fresh ones are zeros and ones, which prove nothing
                torch.nn.init.normal_(weight, 1.0 if "weight" in key else 0.0, 0.3)
        model.eval().save_pretrained(root / name)
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(root / name)
    reader = AutoTokenizer.from_pretrained(root / "bert-classes")
    cut = reader(sentences, padding="max_length", truncation=True, max_length=16, return_tensors="pt")
    with torch.no_grad():
        classes = made["bert-classes"][0].double()(input_ids=cut["input_ids"], attention_mask=cut["attention_mask"]).logits
    return {"classes": classes.tolist(), "class_ids": cut["input_ids"].tolist()}

def ask(folder, sentence):
    reader = AutoTokenizer.from_pretrained(folder)
    kind = AutoModelForMaskedLM if "bert" in json.loads((folder / "config.json").read_text())["model_type"] else AutoModelForCausalLM
    model, told = kind.from_pretrained(folder, output_loading_info=True)
    ids = reader(sentence, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = model.eval().double()(torch.tensor([ids])).logits
    return {"ids": ids, "logits": logits.tolist(), "missing": sorted(told["missing_keys"]), "unexpected": sorted(told["unexpected_keys"]),
            "eos": model.config.eos_token_id, "ends": reader.eos_token_id}

for line in sys.stdin:
    command = json.loads(line)
    answer = make(Path(command["make"]), command["said"]) if "make" in command else ask(Path(command["ask"]), command["said"])
    print("ANSWER" + json.dumps(answer), flush=True)
"""


class Library:
    """transformers, in an interpreter of its own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", LIBRARY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )

    def __call__(self, **command: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("ANSWER"):
                answer: dict[str, Any] = json.loads(line.removeprefix("ANSWER"))
                return answer
        raise AssertionError("the library said nothing")

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="module")
def library() -> Iterator[Library]:
    made = Library()
    yield made
    made.close()


@pytest.fixture(scope="module")
def root(library: Library, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("directories")
    (folder / "said.json").write_text(json.dumps(library(make=str(folder), said=SENTENCES)))
    return folder


def facts_of(name: str, folder: Path) -> DatasetFacts:
    """As the server measures them."""
    content = measure([(path.name, path) for path in sorted(folder.iterdir())], None, None)
    return DatasetFacts(name=name, version=1, digest="0" * 64, bytes=1, content=content)


def job(task: dict[str, Any], data: dict[str, Any], **more: Any) -> dict[str, Any]:
    model = {"type": "hf", "source": "theirs", "dropout": 0.0, "attention_dropout": 0.0, "embedding_dropout": 0.0}
    whole = {"task": task, "model": model, "data": data, "optimizer": {"type": "sgd", "lr": STILL}}
    return whole | {"training": {"max_steps": 1, "batch_size": 4}} | more


def windows(task: str, **more: Any) -> dict[str, Any]:
    return job({"type": task}, {"source": {"type": "text", "dataset": "set"}, "sequence": {"length": 16}}, **more)


def workspace(home: Path, document: dict[str, Any], theirs: Path, **files: str) -> JobSpec:
    """A directory to run in, resolved as the server does it."""
    (home / "data" / "set@1").mkdir(parents=True)
    for name, text in files.items():
        (home / "data" / "set@1" / name.replace("_", ".")).write_text(text)
    shutil.copytree(theirs, home / "data" / "theirs@1")
    found = opened(document, facts_of("theirs", theirs))
    assert found.findings == ()
    made = resolve(Document(found.value, origins=dict(found.origins)), facts_of("set", home / "data" / "set@1"))
    (home / "spec.json").write_text(made.canonical)
    return made.spec


@pytest.mark.parametrize(
    ("name", "task", "ranks"), [("gpt2", "causal_lm", 2), ("llama", "causal_lm", 1), ("bert", "masked_lm", 1)]
)
def test_a_run_begins_and_ends_with_the_outputs_of_transformers(
    name: str, task: str, ranks: int, nursery: Nursery, library: Library, root: Path, tmp_path: Path
) -> None:
    how = {"strategy": "ddp", "processes_per_node": 2} if ranks == 2 else {"strategy": "single"}
    document = windows(task, distributed=how, checkpoint={"export": ["huggingface"]})
    workspace(tmp_path / "run", document, root / name, words_txt=TEXT * 40)
    assert nursery.run(tmp_path / "run", ranks) == [0] * ranks, (finished(tmp_path / "run").message, log(tmp_path / "run"))
    ours = load(final_checkpoint(tmp_path / "run"))
    theirs = library(ask=str(root / name), said=TEXT.strip())
    exported = library(ask=str(tmp_path / "run" / "artifacts" / "export" / "huggingface"), said=TEXT.strip())
    assert ours.about.codec is not None
    assert ours.about.codec.encode(TEXT.strip()).tolist() == theirs["ids"] == exported["ids"]
    with torch.no_grad():
        logits = ours.model.double()(torch.tensor([theirs["ids"][:16]])).numpy()
    short = library(ask=str(root / name), said=ours.about.codec.decode(theirs["ids"][:16]))
    assert short["ids"] == theirs["ids"][:16]
    assert np.std(short["logits"]) > 0.5, "logits that say nothing prove nothing"
    assert np.abs(logits - np.array(short["logits"])).max() < 1e-4
    assert exported["missing"] == exported["unexpected"] == []
    assert np.abs(np.array(exported["logits"]) - np.array(theirs["logits"])).max() < 1e-4
    assert exported["eos"] == theirs["ends"], "the tokenizer's own, whatever an old config.json said"
    told = next(e for e in events(tmp_path / "run") if isinstance(e, Notice) and e.code == "weights_loaded")
    assert (told.level, told.data["missing"], told.data["unexpected"]) == ("info", [], [])


def table() -> str:
    rows = [f'"{SENTENCES[i % 3]}",{"ab"[i % 2]}' for i in range(40)]
    return "\n".join(["review,label", *rows, ""])


def classes(start: dict[str, Any] | None = None) -> dict[str, Any]:
    data = {"source": {"type": "csv", "dataset": "set", "text": "review"}, "sequence": {"length": 16}}
    begins = {} if start is None else {"initialization": {"start": {"type": "pretrained", "source": "theirs"} | start}}
    return job({"type": "classification", "target": "label"}, data, **begins)


def test_classes_of_texts_are_those_of_transformers(nursery: Nursery, root: Path, tmp_path: Path) -> None:
    """With [CLS] and [SEP] around each text, [SEP] kept where it is cut, and [PAD] after it, which changes nothing."""
    workspace(tmp_path / "run", classes({}), root / "bert-classes", words_csv=table())
    assert nursery.run(tmp_path / "run") == [0], (finished(tmp_path / "run").message, log(tmp_path / "run"))
    ours, said = load(final_checkpoint(tmp_path / "run")), json.loads((root / "said.json").read_text())
    assert ours.about.prepared(SENTENCES).tolist() == said["class_ids"]
    with torch.no_grad():
        logits = ours.model.double()(ours.about.prepared(SENTENCES).long()).numpy()
    assert np.abs(logits - np.array(said["classes"])).max() < 1e-4


def test_other_heads_are_left_aside_and_new_ones_are_fresh(root: Path, tmp_path: Path) -> None:
    """A body that was masked_lm's has no pooler; what lacks is refused by name, and left out on purpose it is drawn."""
    spec = workspace(tmp_path / "run", classes(), root / "bert", words_csv=table())
    model, found = _model(spec), given(spec, tmp_path / "run")
    assert found is not None
    with pytest.raises(SpecProblem, match=r"lacks pooler.bias, pooler.weight; name them in exclude_keys"):
        fill(spec.initialization.start, model, found)  # type: ignore[arg-type]  # it is Pretrained
    start = {"reset_head": True, "exclude_keys": ["pooler.*"]}
    spec = workspace(tmp_path / "again", classes(start), root / "bert", words_csv=table())
    told = fill(spec.initialization.start, model, found)  # type: ignore[arg-type]  # it is Pretrained
    assert told.data["aside"] == ["head_bias", *(f"transform{at}.{kind}" for at in ("", "_norm") for kind in ("bias", "weight"))]
    assert told.data["fresh"] == ["head.bias", "head.weight", "pooler.bias", "pooler.weight"]
    assert (told.data["missing"], told.data["unexpected"]) == ([], [])


def _model(spec: JobSpec) -> torch.nn.Module:
    return build_model(spec.model, (16,), 2, text=True, vocabulary=getattr(spec.data.tokenizer, "vocab_size", None), padding=0)


def test_going_on_reads_nothing_of_the_directory(nursery: Nursery, root: Path, tmp_path: Path) -> None:
    home = tmp_path / "run"
    more = {"training": {"max_steps": 2, "batch_size": 4}, "checkpoint": {"interval": {"steps": 1}, "keep_last": 10}}
    workspace(home, windows("causal_lm", **more), root / "gpt2", words_txt=TEXT * 40)
    assert nursery.run(home) == [0], log(home)
    before = load_file(final_checkpoint(home) / "model.safetensors")
    shutil.rmtree(final_checkpoint(home))
    shutil.rmtree(home / "data" / "theirs@1")
    assert nursery.run(home) == [0], (finished(home).message, log(home))
    after = load_file(final_checkpoint(home) / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    folder = tmp_path / "plain"
    folder.mkdir()
    for name, data in gpt2_directory().items():
        (folder / name).write_bytes(data)
    return folder


BLOCK = "transformer.h.0"


@pytest.mark.parametrize(
    ("config", "change", "word"),
    [
        ({"n_layer": 3}, {}, "lacks blocks.2.attention.k.bias"),
        ({"n_layer": 1}, {}, r"no place for transformer\.h\.1"),
        ({"n_inner": 80}, {}, r"blocks\.0\.ffn\.down\.weight is \[16, 64\] in theirs@1 and \[16, 80\]"),
        ({}, {f"{BLOCK}.attn.c_attn.weight": torch.ones(16, 47)}, r"c_attn\.weight has the shape \[16, 47\]"),
        ({}, {f"{BLOCK}.attn.c_attn.bias": torch.ones(())}, r"c_attn\.bias has the shape \[\]"),
        ({}, {f"{BLOCK}.mlp.c_fc.weight": torch.ones(2, 8, 64)}, r"c_fc\.weight has the shape \[2, 8, 64\]"),
        ({}, {"transformer.h.0.adapter.weight": torch.ones(1)}, r"no place for transformer\.h\.0\.adapter\.weight"),
    ],
)
def test_weights_that_are_not_those_of_the_config_are_refused_by_name(
    config: dict[str, Any], change: dict[str, torch.Tensor], word: str, plain: Path, tmp_path: Path
) -> None:
    (plain / "config.json").write_text(json.dumps(json.loads((plain / "config.json").read_text()) | config))
    save_file(load_file(plain / "model.safetensors") | change, plain / "model.safetensors")
    spec = workspace(tmp_path / "run", windows("causal_lm"), plain, words_txt=TEXT * 40)
    with pytest.raises(SpecProblem, match=word):
        _begin(spec, tmp_path / "run")


def _begin(spec: JobSpec, home: Path) -> None:
    found = given(spec, home)
    assert found is not None
    fill(spec.initialization.start, build_model(spec.model, (16,), 280, text=True), found)  # type: ignore[arg-type]  # it is Pretrained


def test_a_run_says_what_is_wrong_with_a_damaged_directory(nursery: Nursery, plain: Path, tmp_path: Path) -> None:
    """One whose bytes changed after they were measured."""
    workspace(tmp_path / "run", windows("causal_lm"), plain, words_txt=TEXT * 40)
    file = tmp_path / "run" / "data" / "theirs@1" / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-8])
    assert nursery.run(tmp_path / "run") == [2]
    assert "model.safetensors is not a safetensors file" in str(finished(tmp_path / "run").message)
    file.write_bytes(whole)
    file.with_name("tokenizer.json").write_text("{}")
    assert nursery.run(tmp_path / "run") == [2]
    assert "tokenizer.json of theirs@1 cannot be read" in str(finished(tmp_path / "run").message)
