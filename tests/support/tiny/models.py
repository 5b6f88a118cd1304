"""Jobs with a model of each type, one process each; models that several processes train are in `ranks`."""

from tests.support.tiny.parts import SMALL_GPT, Document, arrays, data, text

CONV: Document = {"type": "conv", "channels": 4, "kernel_size": 3, "padding": 1, "groups": 2}
STACK = [
    {"type": "conv", "channels": 4, "stride": 1, "dilation": 1, "bias": False},
    *({"type": "norm", "kind": kind} for kind in ("batch", "layer", "rms")),
    {"type": "activation", "kind": "elu"},
    {"type": "residual", "layers": [CONV]},
    {"type": "dropout", "p": 0.1},
    {"type": "pool", "kind": "max", "kernel_size": 2, "stride": 2},
    {"type": "flatten"},
    {"type": "linear", "units": 3},
]
ONCE: Document = {"interval": {"steps": 1}}
INSIDE = {
    "histograms": ONCE,
    "gradients": ONCE,
    "probes": [ONCE | {"module": "0"}],
    "profiler": {"start_step": 1, "active_steps": 1},
}

MODELS: dict[str, Document] = {
    "arrays": arrays(
        "grids",
        {"type": "layers", "layers": STACK},
        debug=INSIDE,
        interpretability={"method": "layer_grad_cam", "samples": 2},
        logging={"timing": True, "sinks": ["jsonl", "tensorboard"], "hyperparameters": True},
    ),
    "stacked": arrays(
        "grids",
        {
            "type": "layers",
            "layers": [
                {"type": "reshape", "shape": [4, 12, 6]},
                {"type": "norm", "kind": "group"},
                {"type": "residual", "layers": [CONV], "shortcut": [{"type": "conv", "channels": 4, "kernel_size": 1}]},
                {"type": "pool", "kind": "adaptive_avg", "output_size": 4},
                {"type": "rearrange", "to": "steps"},
                {"type": "attention", "num_heads": 2},
                {"type": "rnn", "cell": "rnn", "units": 4, "says": "steps"},
                {"type": "rnn", "cell": "lstm", "units": 4},
                {"type": "linear", "units": 3},
            ],
            "sharing": [{"source": "5.q", "target": "5.k"}],
        },
    ),
    "contest": arrays(
        "grids",
        {
            "type": "gan",
            "latent_dim": 3,
            "latent": "uniform",
            "output": "tanh",
            "generator": {"type": "mlp", "hidden_sizes": [4]},
            "discriminator": {"type": "mlp", "hidden_sizes": [4]},
        },
        task={"type": "gan", "discriminator_steps": 2, "discriminator_optimizer": {"type": "adam"}, "samples": 3},
        loss={"type": "non_saturating", "label_smoothing": 0.1},
        evaluation={"metrics": ["mmd", "frechet_distance"]},
    ),
    "contest_hinge": arrays(
        "grids",
        {
            "type": "gan",
            "generator": {"type": "layers", "layers": [{"type": "linear", "units": 288}]},
            "discriminator": {"type": "layers", "layers": [{"type": "flatten"}, {"type": "linear", "units": 1}]},
        },
        task={"type": "gan"},
        loss={"type": "hinge"},
        optimizer={"type": "adadelta"},
    ),
    "contest_slopes": arrays(
        "grids",
        {"type": "gan", "discriminator": {"type": "cnn", "normalization": None}},
        task={"type": "gan"},
        loss={"type": "wasserstein"},
        optimizer={"type": "adam"},
    ),
    "pictures": {
        "task": {"type": "classification"},
        "model": {"type": "cnn", "block": "bottleneck", "normalization": {"type": "group"}, "dropout": 0.1},
        "data": data("image_folder", "pictures", channels=1),
        "training": {"max_steps": 2, "batch_size": 8},
    },
    "written": text(
        {"type": "layers", "layers": [{"type": "embedding", "size": 4}, {"type": "linear", "units": 256}]},
    ),
    "directory": text({"type": "hf", "source": "directory@1", "dropout": 0.1}),
    "gru": text(
        {"type": "gru", "hidden_size": 8, "tie_embeddings": True, "num_layers": 2, "dropout": 0.1},
        schedule={"type": "cosine", "warmup_steps": 1, "min_lr": 1e-4},
        training={"max_steps": 4, "batch_size": 8, "tbptt": {"steps": 8}},
    ),
    "byte": text(
        SMALL_GPT
        | {
            "position": {"type": "rope", "scaling": {"type": "ntk"}},
            "normalization": {"type": "rms"},
            "attention_dropout": 0.1,
        },
        loss={"type": "cross_entropy", "chunk_tokens": 20},
        optimizer={"type": "adafactor"},
        activation_checkpointing={"type": "full"},
        training={"max_tokens": 500, "batch_size": 8},
        evaluation={"metrics": ["perplexity", "bits_per_byte"], "interval": {"tokens": 200}},
    ),
    "alibi": text(
        SMALL_GPT
        | {
            "position": {"type": "alibi"},
            "window": 4,
            "attention_softcap": 9.0,
            "final_softcap": 9.0,
            "value_dim": 4,
            "embedding_size": 8,
        },
        optimizer={"type": "muon"},
        precision={"mode": "bf16_mixed"},
    ),
}
