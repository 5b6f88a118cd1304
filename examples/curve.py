"""Draw a language model's loss curves with its unigram baseline: `python examples/curve.py JOB TEXT_FILE OUT.png` (needs matplotlib)."""

import sys
from collections import Counter
from math import log
from pathlib import Path

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot

from stoker import Client


def unigram(text: bytes, held_out: float = 0.02) -> float:
    """Nats per byte of the end of a text under the byte frequencies of what comes before."""
    cut = int(len(text) * (1 - held_out))
    counts, total = Counter(text[:cut]), cut
    return sum(-log((counts[byte] + 1) / (total + 256)) for byte in text[cut:]) / (len(text) - cut)


def main(job: str, text: str, out: str) -> None:
    with Client() as client:
        if job == "@last":
            job = next(client.jobs(limit=1)).id
        series = client.metrics(job, ["train/loss", "validation/loss"]).keys
    baseline = unigram(Path(text).read_bytes())
    figure, axes = pyplot.subplots(figsize=(7, 3.6), layout="constrained")
    train, held = series["train/loss"], series["validation/loss"]
    axes.plot(train.steps, train.mean, color="#8aa4bf", linewidth=1.2, label="train/loss")
    axes.plot(held.steps, held.mean, color="#c2410c", marker="o", markersize=4, label="validation/loss")
    axes.axhline(baseline, color="#555555", linestyle="--", linewidth=1, label=f"unigram baseline {baseline:.2f}")
    axes.set(xlabel="optimizer step", ylabel="nats per byte", ylim=(0, None), title=f"kjv-gpt: held-out loss {held.mean[-1]:.2f}")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out, dpi=120)


if __name__ == "__main__":
    main(*sys.argv[1:])
