"""Jobs that begin with what others learned."""

from tests.support.tiny.models import MODELS
from tests.support.tiny.parts import Document, arrays, table

BEFORE = "job_" + "0" * 26
"""Stands for the id of the job that a job comes after."""

SCHEMES = ("torch_default", "normal", "uniform", "trunc_normal", "xavier", "he", "lecun", "orthogonal", "constant")
"""Each for a layer of its own."""

BEGINNINGS: dict[str, Document] = {
    "tuned": table(
        model={"type": "mlp", "hidden_sizes": [4, 4]},
        initialization={
            "start": {"type": "pretrained", "source": "weights@1", "strict": False, "exclude_keys": ["2.*"], "reset_head": True},
            "finetune": {
                "freeze": ["0.*"],
                "unfreeze_at": [
                    {"pattern": "2.weight", "at": {"steps": 1}},
                    {"pattern": "2.bias", "at": {"epochs": 1}},
                    {"pattern": "0.weight", "at": {"tokens": 100}},
                ],
                "layer_lr_decay": 0.5,
            },
        },
        training={"max_steps": 2, "batch_size": 8},
    ),
    "warmed": table(
        model={"type": "mlp", "hidden_sizes": [4, 5]},  # one layer that the source has in another shape
        initialization={
            "start": {
                "type": "warm",
                "checkpoint": {"job": BEFORE, "checkpoint": 2},
                "strict": False,
                "exclude_keys": ["2.bias"],
                "reset_head": True,
            },
        },
    ),
    "adapted": table(
        model={"type": "mlp", "hidden_sizes": [4] * (len(SCHEMES) - 1)},
        initialization={
            "overrides": [{"pattern": str(2 * i), "init": {"type": scheme}} for i, scheme in enumerate(SCHEMES)],
            "finetune": {"adapter": {"type": "lora", "rank": 2, "targets": ["*"], "train": ["0.bias"]}},
        },
        checkpoint={"export": ["safetensors"]},
    ),
    "continued": MODELS["written"]
    | {
        "training": {"max_steps": 3, "batch_size": 8},
        "checkpoint": {"resume_from": {"job": BEFORE, "checkpoint": 2}},
    },
    "lesson": arrays(
        "grids",
        {"type": "mlp", "hidden_sizes": [4]},
        training={
            "max_steps": 2,
            "batch_size": 8,
            "distillation": {
                "teacher": {"job": BEFORE, "checkpoint": 2},
                "layer_map": [{"student": "3", "teacher": "9"}],
            },
        },
    ),
}
AFTER = {"continued": "written", "lesson": "arrays", "warmed": "tuned"}
"""Jobs whose document names `BEFORE`, and the job whose checkpoint of step 2 they read."""
