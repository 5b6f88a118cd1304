"""Use the models of the demo, from the downloaded checkpoints only: `python examples/demo_use.py DATA DIGITS_CHECKPOINT KJV_CHECKPOINT LOSS`.

DATA is the folder that demo_data.py made, LOSS the held-out loss that the server shows for the language model, in nats per
token. Exits 1 when a model is not what the demo promises.
"""

import sys
from collections import Counter
from math import log
from pathlib import Path

import numpy as np
import torch

from stoker.spec.derived.arithmetic import split_sizes
from worker.trainer.data.split import split_rows
from worker.trainer.predict import Predictor, load
from worker.trainer.reproducibility import build_seeds

SHADES = " .:-=+*#%@"
ACCURACY = 0.97
"""Minimum accuracy on held-out digits."""
MARGIN = 0.75
"""The language model's loss must be at most this share of a unigram model's."""


def digits(data: Path, checkpoint: Path) -> bool:
    """Name the digits that the run never trained on, and show a few."""
    table = np.loadtxt(data / "digits.csv", delimiter=",", skiprows=1, dtype=np.float32)
    pixels, labels = table[:, :64], table[:, 64].astype(int)
    model = load(checkpoint)
    seed = build_seeds(model.spec.reproducibility).split
    rows = split_rows(model.spec.data.split, len(table), torch.from_numpy(labels).long(), seed).test.numpy()
    named = model.predict(pixels[rows]).astype(int)
    accuracy = float((named == labels[rows]).mean())
    print(f"digits: {accuracy:.2%} of {len(rows)} held-out digits named right (at least {ACCURACY:.0%} promised)")
    shown = rows[:6]
    pictures = [_picture(pixels[row].reshape(8, 8)) for row in shown]
    print("\n".join("   ".join(parts) for parts in zip(*pictures, strict=True)))
    print("   ".join(f"says {says}, is {labels[row]}".ljust(16) for says, row in zip(named, shown, strict=False)))
    return accuracy >= ACCURACY


def _picture(pixels: np.ndarray) -> list[str]:
    """Eight lines of sixteen characters, the values from 0 to 16 as shades."""
    return ["".join(SHADES[min(9, int(value * 10 / 17))] * 2 for value in line) for line in pixels]


def language(data: Path, checkpoint: Path, loss: float) -> bool:
    """Hold the loss against a model that knows only how frequent each token is, and let the model write."""
    model = load(checkpoint)
    baseline = unigram_loss(model, (data / "kjv.txt").read_text(encoding="utf-8"))
    verdict = f"{1 - loss / baseline:.0%} below the {baseline:.3f} of a unigram model (at least {1 - MARGIN:.0%} promised)"
    print(f"kjv: held-out loss {loss:.3f} nats per token, {verdict}")
    for line in model.generate("And God said", tokens=240, temperature=0.7, seed=1).splitlines():
        print(f"  | {line}")
    return loss <= MARGIN * baseline


def unigram_loss(model: Predictor, text: str) -> float:
    """Mean nats per held-out token under the training split's frequencies, with one added to every count."""
    codec = model.about.codec
    if codec is None:
        raise ValueError("this checkpoint was not trained on text")
    sizes = split_sizes(len(text), model.spec.data.split)
    held_out = text[sizes.train + (sizes.validation if sizes.test else 0) :]
    counts = Counter(codec.encode(text[: sizes.train]).tolist())
    total = counts.total() + model.about.outputs
    ids = codec.encode(held_out).tolist()
    return -sum(log((counts[i] + 1) / total) for i in ids) / len(ids)


def main(data: str, digits_checkpoint: str, kjv_checkpoint: str, loss: str) -> int:
    good = digits(Path(data), Path(digits_checkpoint))
    print()
    return 0 if language(Path(data), Path(kjv_checkpoint), float(loss)) and good else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
