"""Jobs on tables: each with an optimizer, a schedule, a loss, a way to draw weights, a method of explanation and more.

What is independent shares a job: there are as many as the longest list has members, and not one for each.
"""

from typing import Any

from tests.support.tiny.parts import Document, data, table

LABELS = data("csv", "labels", columns=["a", "c"]) | {"sample_weight_column": "weight"}
NUMBER = {"type": "regression", "target": ["b"]}


def _mlp(init: str, **more: Any) -> Document:
    return {"type": "mlp", "hidden_sizes": [4], "init": {"type": init}} | more


TABLES: dict[str, Document] = {
    "sgd": table(
        data=LABELS | {"normalization": {"type": "standard"}},
        model=_mlp("normal", normalization={"type": "batch"}, dropout=0.1),
        loss={"type": "cross_entropy", "z_loss": 0.1, "temperature": 2.0, "label_smoothing": 0.1, "class_weights": "balanced"},
        optimizer={"type": "sgd", "momentum": 0.9, "nesterov": True},
        schedule={"type": "cyclic", "mode": "exp_range", "gamma": 0.9, "cycle_momentum": True, "step_size_up": {"steps": 2}},
        training={"epochs": 2, "batch_size": 8, "gradient_clipping": {"type": "norm"}, "early_stopping": {"patience": 1}},
        evaluation={
            "metrics": ["accuracy", {"type": "accuracy", "top_k": 2}, "precision", "recall", "f1", "auroc"],
            "interval": {"steps": 2},
            "batches": 1,
        },
        interpretability={"method": "integrated_gradients", "samples": 2},
    ),
    "adam": table(
        data=LABELS | {"normalization": {"type": "minmax"}},
        model=_mlp("uniform", normalization={"type": "layer"}),
        loss={"type": "nll", "class_weights": "balanced"},
        optimizer={"type": "adam", "weight_decay": 0.1, "param_groups": [{"pattern": "*.bias", "weight_decay": 0.0}]},
        schedule={"type": "one_cycle", "cycle_momentum": True},
        training={
            "max_steps": 3,
            "batch_size": 8,
            "gradient_clipping": {"type": "value"},
            "ema": {"start": {"steps": 2}},
            "adversarial": {"method": "pgd", "clip": {"low": -9.0, "high": 9.0}},
        },
        precision={"mode": "fp16_mixed", "loss_scale": {"mode": "dynamic"}},
        interpretability={"method": "saliency", "samples": 2},
    ),
    "adamw": table(
        data=LABELS,
        model=_mlp("trunc_normal", normalization={"type": "rms"}),
        loss={"type": "focal", "alpha": 0.5},
        optimizer={"type": "adamw"},
        schedule={"type": "cosine", "restarts": {"t_0": {"steps": 2}}, "warmup_steps": 1},
        training={"max_steps": 5, "batch_size": 8, "swa": {"start": {"steps": 1}}, "adversarial": {"method": "free"}},
        precision={"mode": "fp16_pure", "loss_scale": {"mode": "static", "scale": 8.0}},
        interpretability={"method": "deep_lift", "samples": 2},
    ),
    "nadam": table(
        data=LABELS,
        task={"type": "multilabel", "target": ["even"]},
        model=_mlp("xavier"),
        loss={"type": "bce", "pos_weight": 2.0},
        optimizer={"type": "nadam"},
        schedule={"type": "multistep", "milestones": [{"steps": 1}, {"steps": 3}], "min_lr": 5e-5},
        regularization={
            "l1": {"strength": 0.01, "proximal": True},
            "l2": {"strength": 0.01},
            "elastic_net": {"strength": 0.01},
            "group_lasso": {"strength": 0.01},
            "orthogonal": {"strength": 0.01},
            "spectral_norm": {},
        },
        training={"max_steps": 4, "batch_size": 8},
        evaluation={"sparsity_report": {}, "fit_diagnosis": {"samples": 20, "least": 0.0}},
        interpretability={"method": "gradient_shap", "samples": 2},
    ),
    "radam": table(
        data=LABELS,
        task=NUMBER,
        model=_mlp("he"),
        loss={"type": "mse", "sample_weight_normalization": "samples"},
        optimizer={"type": "radam"},
        schedule={"type": "exponential", "gamma": 0.5, "every": {"steps": 1}, "min_lr": 2e-4},
        training={"max_steps": 4, "batch_size": 8, "dynamic_batch": {"mode": "fit_memory"}},
        evaluation={"metrics": ["mae", "rmse", "r2"]},
        interpretability={"method": "lrp", "samples": 2},
    ),
    "adamax": table(
        data=LABELS,
        task=NUMBER,
        model=_mlp("lecun"),
        loss={"type": "mae"},
        optimizer={"type": "adamax"},
        schedule={"type": "polynomial", "power": 2.0, "min_lr": 1e-4},
        training={
            "max_steps": 4,
            "batch_size": 8,
            "dynamic_batch": {"mode": "schedule", "milestones": [{"after": {"steps": 2}, "batch_size": 12}]},
        },
        interpretability={"method": "occlusion", "samples": 2},
    ),
    "rmsprop": table(
        data=LABELS,
        task=NUMBER,
        model=_mlp("orthogonal"),
        loss={"type": "huber"},
        optimizer={"type": "rmsprop"},
        schedule={"type": "plateau", "patience": 0},
        training={
            "max_steps": 6,
            "batch_size": 8,
            "dynamic_batch": {"mode": "on_plateau", "patience": 1, "min_delta": 1e6, "max": 12},
        },
        evaluation={"interval": {"steps": 1}},
        interpretability={"method": "feature_ablation", "samples": 2},
    ),
    "adagrad": table(
        data=LABELS,
        task=NUMBER,
        model=_mlp("torch_default"),
        loss={"type": "gaussian_nll"},
        optimizer={"type": "adagrad"},
        schedule={"type": "step", "step_size": {"epochs": 1}, "gamma": 0.5},
        training={"epochs": 2, "batch_size": 8},
        debug={"nan_policy": {"type": "skip_step"}, "spike": {"window": 4, "policy": {"type": "notify"}}},
        interpretability={"method": "permutation_importance", "samples": 2},
    ),
    "adadelta": table(
        optimizer={"type": "adadelta"},
        schedule={"type": "constant", "warmup_ratio": 0.5},
        training={"max_steps": 5, "batch_size": 8, "adversarial": {"method": "fgsm"}},
        debug={"spike": {"window": 4, "watch": "loss", "policy": {"type": "rollback"}}},
    ),
    "in_seconds": table(training={"max_seconds": 0.01, "batch_size": 8}, logging={"interval": {"seconds": 1.0}}),
    "tasks": table(
        task={
            "type": "multi_task",
            "tasks": [
                {"type": "classification", "name": "which", "target": "y", "weight": 0.5},
                {"type": "regression", "name": "where", "target": ["b", "c"]},
            ],
            "weighting": {"type": "uncertainty"},
        },
    ),
    "tasks_fixed": table(
        task={
            "type": "multi_task",
            "tasks": [
                {"type": "regression", "name": "here", "target": "b"},
                {"type": "regression", "name": "there", "target": "c", "weight": 0.0},
            ],
        },
        data=data("parquet", "numbers"),
    ),
    "diverging": table(
        optimizer={"type": "sgd", "lr": 1e12},
        training={"max_steps": 12, "batch_size": 8},
        debug={
            "nan_policy": {"type": "rollback", "lr_factor": 1e-12},
            "spike": {"window": 4, "threshold": 1.001, "policy": {"type": "skip_step", "max_skips": 12}},
        },
    ),
}
