"""A trained model in the user's hands: load a checkpoint directory and use it, with no server and no trainer around it.

from worker.trainer.predict import load
model = load("checkpoints/step-00000200")
model.predict(rows)                      # classes or numbers
model.generate("In the beginning", tokens=100, temperature=0.8, seed=0)
model.samples(16, seed=0)                # of a gan: new samples, as they would stand in the data set
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from stoker.spec import JobSpec
from stoker.spec.loss import GaussianNLL
from stoker.spec.model import GAN
from stoker.spec.task.multi_task import MultiTask
from worker.trainer.checkpoint.model import load_model
from worker.trainer.data import Answer, Description
from worker.trainer.data.samples import ready
from worker.trainer.gan.samples import draw
from worker.trainer.model import GanModel
from worker.trainer.task import build_task
from worker.trainer.task.multi_task import bounds, widths_of

SAMPLES, TEXTS = 1024, 256
"""Rows that go through the model at once."""


@dataclass(frozen=True)
class Predictor:
    spec: JobSpec
    model: nn.Module
    about: Description

    @torch.no_grad()
    def outputs(self, inputs: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Raw outputs (n, outputs) for inputs (n, *shape) as they stand in the data set, or n texts; the steps that the run
        fitted are applied here.

        Raises ValueError when the shape of a sample is not the one the model was trained on, for a gan, and for a model of a
        stream of text.
        """
        if isinstance(self.model, GanModel):
            raise ValueError("a gan makes samples and has no outputs for given ones: use samples(count)")
        if not build_task(self.spec.task).labelled:
            raise ValueError("a model of a stream of text has no outputs for samples: use generate(prompt)")
        values = ready(self.about.prepared(inputs), torch.device("cpu"))
        at_once = SAMPLES if values.is_floating_point() else TEXTS
        return np.concatenate([self.model(part).numpy() for part in torch.split(values, at_once)])

    def probabilities(self, inputs: npt.ArrayLike, task: str | None = None) -> npt.NDArray[np.float32]:
        """(n, classes), in the order of `about.classes`, or (n, labels), each by itself; `task`: which of several is asked.

        Raises ValueError when there is no such task.
        """
        answer, said = self._said(inputs, task)
        if answer is not None and not answer.classes:
            raise ValueError(f"task {answer.name} is a regression; it has no classes")
        outputs = torch.from_numpy(said)
        return (torch.sigmoid(outputs) if build_task(self.spec.task).labels else torch.softmax(outputs, dim=-1)).numpy()

    def predict(self, inputs: npt.ArrayLike, task: str | None = None) -> npt.NDArray[np.generic]:
        """(n,) classes by the names they have in the data set, (n, labels) zeros and ones, or (n, outputs) numbers: the means,
        where the head has variances beside them; `task`: which of several is asked. Raises ValueError when there is no such task.
        """
        answer, outputs = self._said(inputs, task)
        if answer is not None:
            classes: npt.NDArray[np.generic] = np.asarray(answer.classes)
            return classes[outputs.argmax(-1)] if answer.classes else np.asarray(outputs[:, : answer.outputs])
        aim = build_task(self.spec.task)
        if aim.labels:
            return np.asarray(outputs >= 0, dtype=np.int64)
        if not aim.classes:
            return np.asarray(outputs[:, : self.about.outputs])
        names: npt.NDArray[np.generic] = np.asarray(self.about.classes)[outputs.argmax(-1)]
        return names

    def _said(self, inputs: npt.ArrayLike, task: str | None) -> tuple[Answer | None, npt.NDArray[np.float32]]:
        """What one of several tasks wants to know and what its head says; None and all outputs where there is one task."""
        if not isinstance(self.spec.task, MultiTask):
            if task is not None:
                raise ValueError(f"the model has one task, and no {task!r}")
            return None, self.outputs(inputs)
        columns = zip(self.about.answers, bounds(widths_of(self.spec.task, self.about)), strict=True)
        named = {answer.name: (answer, place) for answer, place in columns}
        if task not in named:
            raise ValueError(f"name one of the tasks: {', '.join(named)}")
        answer, (start, stop) = named[task]
        return answer, self.outputs(inputs)[:, start:stop]

    def variances(self, inputs: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """(n, outputs): how far the targets are expected from the predicted numbers, in squared units of them.

        Raises ValueError for a model that was not trained with gaussian_nll.
        """
        if not isinstance(self.spec.loss, GaussianNLL):
            raise ValueError("only a model trained with loss gaussian_nll predicts variances")
        open_ = torch.from_numpy(self.outputs(inputs)[:, self.about.outputs :])
        return (torch.nn.functional.softplus(open_) + self.spec.loss.min_variance).numpy()

    def samples(self, count: int, seed: int = 0) -> npt.NDArray[np.float32]:
        """(count, *shape): new samples as they would stand in the data set, the same for one seed.

        Raises ValueError for a model that is no gan.
        """
        if not isinstance(self.model, GanModel) or not isinstance(self.spec.model, GAN):
            raise ValueError("only a gan makes samples; text is continued with generate(prompt)")
        return draw(self.model, self.spec.model, self.about, count, seed)[1].numpy()

    def generate(self, prompt: str, tokens: int = 100, temperature: float = 1.0, seed: int = 0) -> str:
        """The prompt and what the model writes after it. Temperature 0 always takes the likeliest token.

        Raises ValueError for a model that was not trained on text, and for an empty prompt.
        """
        if self.about.codec is None or self.about.padded:
            raise ValueError("this model was not trained to continue text")
        start = [int(i) for i in self.about.codec.encode(prompt)]
        if not start:
            raise ValueError("the prompt is empty")
        return self.about.codec.decode([*start, *self._continue(start, tokens, temperature, seed)])

    @torch.no_grad()
    def _continue(self, start: list[int], tokens: int, temperature: float, seed: int) -> Iterator[int]:
        generator, ids = torch.Generator().manual_seed(seed), list(start)
        for _ in range(tokens):
            window = torch.tensor([ids[-self.about.shape[0] :]])
            logits = self.model(window)[0, -1]
            if temperature > 0:
                chosen = torch.multinomial(torch.softmax(logits / temperature, dim=-1), 1, generator=generator)
            else:
                chosen = logits.argmax()
            ids.append(int(chosen))
            yield ids[-1]


def load(checkpoint: Path | str) -> Predictor:
    """From a checkpoint directory alone. Raises OSError, ValueError or RuntimeError when it is not a whole checkpoint."""
    saved = load_model(Path(checkpoint))
    return Predictor(saved.spec, saved.model, saved.about)
