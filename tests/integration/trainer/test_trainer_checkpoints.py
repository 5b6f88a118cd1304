"""Checkpoints of whole runs: at exact steps, of exactly those steps, resumed over other ranks and strategies."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from stoker.events import Metrics, Notice, Saved, Started
from stoker.facts import ArrayFacts, ArrayFile, DatasetFacts, TextFacts
from stoker.plan import plan
from stoker.spec import JobSpec
from stoker.spec.derived.automatic import completed
from tests.support.same_runs import Alone, differences
from tests.support.thorough import left
from tests.support.trainer_runs import (
    TEXT,
    Nursery,
    blobs,
    events,
    final_checkpoint,
    finished,
    log,
    same_bits,
    series,
    workspace,
)
from worker.trainer.predict import load

Json = dict[str, Any]

BASE: Json = {
    "task": {"type": "classification"},
    "model": {"type": "mlp", "hidden_sizes": [33, 20], "normalization": {"type": "layer"}},
    "data": {"source": {"type": "arrays", "dataset": "set@1"}, "split": {"validation": 0.2, "test": 0.1}},
    "optimizer": {"type": "adamw", "lr": 0.004},
    "training": {"max_steps": 20, "batch_size": 32, "early_stopping": {"patience": 50}},
    "evaluation": {"interval": {"steps": 6}},
    "logging": {"interval": {"steps": 3}},
    "checkpoint": {"interval": {"steps": 7}},
}
STRATEGIES: dict[str, tuple[int, Json]] = {
    "single": (1, {}),
    "ddp": (2, {"distributed": {"strategy": "ddp", "processes_per_node": 2}}),
    "fsdp-2": (2, {"distributed": {"strategy": "fsdp", "processes_per_node": 2}}),
    "fsdp-4": (4, {"distributed": {"strategy": "fsdp", "processes_per_node": 4}}),
    "hsdp": (4, {"distributed": {"strategy": "fsdp", "processes_per_node": 4, "replicate": 2}}),
}


FACTS = DatasetFacts(
    name="set",
    version=1,
    digest="0" * 64,
    bytes=1,
    content=ArrayFacts(
        files={
            "x.npy": ArrayFile(dtype="<f4", shape=(203, 12)),
            "y.npy": ArrayFile(dtype="<i8", shape=(203,), distinct=4, counts={str(i): 50 + (i == 0) * 3 for i in range(4)}),
        }
    ),
)


def saved(home: Path) -> list[Saved]:
    return [event for event in events(home) if isinstance(event, Saved)]


def notices(home: Path) -> list[Notice]:
    return [event for event in events(home) if isinstance(event, Notice)]


def checkpointed(background: str | None, **more: Any) -> Json:
    return BASE | {"checkpoint": {"interval": {"steps": 7}, "background": background, **more}}


@pytest.mark.proves("CKPT-01")
@pytest.mark.parametrize("background", ["fork", "copy", None])
def test_files_appear_at_exact_steps_with_the_run_of_those_steps(
    background: str | None, nursery: Nursery, alone: Alone, tmp_path: Path
) -> None:
    waits = alone(checkpointed("off"))
    goes_on = workspace(tmp_path / "goes_on", checkpointed(background), **blobs())
    assert nursery.run(goes_on) == [0], log(goes_on)
    assert [(event.step, event.final) for event in saved(goes_on)] == [(7, False), (14, False), (20, True)]
    assert series(goes_on) == series(waits)
    for event, other in zip(saved(goes_on), saved(waits), strict=True):
        assert event.metrics == other.metrics
        for name in ("model", "optimizer", "ranks", "best"):
            file = f"{name}.safetensors"
            assert (waits / event.path / file).exists() == (name != "best" or event.step >= 7)
            assert same_bits(goes_on / event.path / file, waits / event.path / file)
        states = [json.loads((home / event.path / "state.json").read_text()) | {"seconds": 0} for home in (goes_on, waits)]
        assert states[0] == states[1]
    stalls = {
        e.step: e.values["train/checkpoint_stall_seconds"]
        for e in events(goes_on)
        if isinstance(e, Metrics) and "train/checkpoint_stall_seconds" in e.values
    }
    assert stalls.keys() == {7, 14, 20}
    assert all(0 < stalls[event.step] <= event.stall_seconds for event in saved(goes_on))


LATE = """
import threading
from pathlib import Path
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from worker.trainer.staging.copied import Copies

begun, moved, take = threading.Event(), threading.Event(), Copies.take
register_optimizer_step_pre_hook(lambda *_: begun.set())
register_optimizer_step_post_hook(lambda *_: moved.set())

def late(self, tensors, later=frozenset()):
    begun.clear()
    moved.clear()
    taking = take(self, tensors, later)
    if taking.later:
        first = taking.later[0]
        taking.later[0] = lambda: (begun.wait(60), moved.wait(0.3), first())
    with Path("COUNT").open("a") as file:
        held = sum(home.nbytes for named in taking.tensors.values() for home in named.values())
        file.write(f"{len(taking.later)} {held}\\n")
    return taking

Copies.take = late
"""
"""Copies begin only when the next update of the weights does, which then has time to spoil them if it does not wait."""


@pytest.mark.parametrize(("ranks", "how"), [*STRATEGIES.values()][:3])
def test_an_update_waits_for_the_copy_of_what_it_changes(ranks: int, how: Json, nursery: Nursery, tmp_path: Path) -> None:
    more = how | {"training": BASE["training"] | {"ema": {"decay": 0.9}}}
    waits = workspace(tmp_path / "waits", checkpointed("off") | more, **blobs())
    goes_on = workspace(tmp_path / "goes_on", checkpointed("copy") | more, **blobs())
    assert nursery.run(waits, ranks) == [0] * ranks, log(waits)
    assert nursery.run(goes_on, ranks, LATE.replace("COUNT", str(tmp_path / "count"))) == [0] * ranks, log(goes_on)
    counts = [tuple(map(int, line.split())) for line in (tmp_path / "count").read_text().splitlines()]
    assert counts
    assert min(late for late, _ in counts) > 6, "copied at once: nothing was tried"
    spec = completed(JobSpec.model_validate_json((goes_on / "spec.json").read_bytes()), FACTS)
    generators = ranks * torch.get_rng_state().nbytes
    assert plan(spec, FACTS).memory.saving_bytes == pytest.approx(max(held for _, held in counts) - generators, rel=0.02)
    for event in saved(goes_on):
        for file in sorted((waits / event.path).glob("*.safetensors")):
            assert same_bits(goes_on / event.path / file.name, file), (event.step, file.name)


def test_weights_that_others_change_are_copied_at_once(nursery: Nursery, tmp_path: Path) -> None:
    """Local SGD gives each rank its own weights back before the next step."""
    how = {"distributed": {"strategy": "local_sgd", "processes_per_node": 2, "sync_every": 4}}
    home = workspace(tmp_path / "run", checkpointed("copy") | how, **blobs())
    assert nursery.run(home, 2, LATE.replace("COUNT", str(tmp_path / "count"))) == [0, 0], log(home)
    assert {line.split()[0] for line in (tmp_path / "count").read_text().splitlines()} == {"0"}


Origins = Callable[[str], Path]


@pytest.fixture
def origin(alone: Alone) -> Origins:
    """The run of a strategy, from nothing to its end."""
    return lambda name: alone(BASE | STRATEGIES[name][1], STRATEGIES[name][0])


@pytest.mark.parametrize("name", left(["fsdp-2", "fsdp-4", "hsdp"], {"fsdp-4"}))
def test_pieces_of_one_run_make_the_model_of_one_process(name: str, origin: Origins) -> None:
    home, single = origin(name), origin("single")
    last = final_checkpoint(home)
    assert not (home / "checkpoints" / "step-00000014" / "model.safetensors").exists()
    assert (last / "shards.json").exists()
    whole, reference = load_file(last / "model.safetensors"), load_file(final_checkpoint(single) / "model.safetensors")
    assert whole.keys() == reference.keys()
    assert max((whole[key] - reference[key]).abs().max().item() for key in whole) < 1e-6
    values = torch.randn(8, 12).numpy()
    early, early_single = (load(each / "checkpoints" / "step-00000014") for each in (home, single))
    assert abs(early.outputs(values) - early_single.outputs(values)).max() < 1e-5


@pytest.mark.parametrize("name", left(STRATEGIES, {"fsdp-4"}))
def test_the_plan_knows_the_bytes_of_a_checkpoint(name: str, origin: Origins) -> None:
    spec = completed(JobSpec.model_validate_json((origin(name) / "spec.json").read_bytes()), FACTS)
    predicted = plan(spec, FACTS).checkpoint
    step = origin(name) / "checkpoints" / "step-00000014"
    assert predicted.total_bytes == pytest.approx(sum(path.stat().st_size for path in step.iterdir()), rel=0.01)
    assert predicted.shards == len(list(step.glob("shard-*"))) // (2 if name == "hsdp" else 1) or predicted.shards == 1


RUN = """
import resource, sys
from pathlib import Path
from worker.trainer.__main__ import main
code = main(Path(sys.argv[1]))
print(code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, flush=True)
"""


@pytest.mark.thorough("200 MB of weights, twice")
def test_a_resumed_run_takes_no_more_memory_than_a_fresh_one(tmp_path: Path) -> None:
    """200 MB of weights and moments, which would show if they were held twice. Freed blocks go back to the system at once."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
    spec = BASE | {"model": {"type": "mlp", "hidden_sizes": [3000, 3000, 2000]}, "training": {"max_steps": 4, "batch_size": 64}}
    home = workspace(
        tmp_path / "run", spec | {"checkpoint": {"interval": {"steps": 2}, "background": "off"}}, **blobs(features=100)
    )
    peaks = []
    for step in (0, 2):
        done = subprocess.run([sys.executable, "-c", RUN, str(home)], capture_output=True, text=True, env=env)
        code, peak = map(int, done.stdout.splitlines()[-1].split())
        assert code == 0, done.stderr
        assert [e.step for e in events(home) if isinstance(e, Started)][-1] == step
        shutil.rmtree(home / "checkpoints" / "step-00000004")
        peaks.append(peak)
    assert peaks[1] < peaks[0] + 30e6


PAIRS = [("single", "fsdp-2"), ("fsdp-2", "single"), ("ddp", "hsdp"), ("fsdp-2", "fsdp-2")]
MORE_PAIRS = [("fsdp-2", "fsdp-4"), ("fsdp-4", "ddp"), ("hsdp", "fsdp-2"), ("hsdp", "hsdp")]


@pytest.mark.proves("CKPT-02", cases=["fsdp-2-fsdp-2", "fsdp-2-single"])
@pytest.mark.parametrize(("before", "after"), left([*PAIRS, *MORE_PAIRS], MORE_PAIRS))
def test_continues_over_other_ranks_and_strategies(
    before: str, after: str, origin: Origins, nursery: Nursery, tmp_path: Path
) -> None:
    """From step 14 of one strategy to the end in another: the weights and samples of a run that never changed."""
    first, home = origin(before), tmp_path / "run"
    shutil.copytree(first, home)
    shutil.rmtree(home / "checkpoints" / "step-00000020")
    ranks, how = STRATEGIES[after]
    (home / "spec.json").write_text(json.dumps(BASE | how))
    assert nursery.run(home, ranks) == [0] * ranks, log(home)
    assert max(differences(home, first).values()) < 1e-6
    states = [json.loads((final_checkpoint(h) / "state.json").read_text()) for h in (home, first)]
    assert [states[0][key] for key in ("step", "samples", "epoch", "batch")] == [
        states[1][key] for key in ("step", "samples", "epoch", "batch")
    ]
    if before == after:
        assert all(same_bits(final_checkpoint(home) / f.name, f) for f in final_checkpoint(first).glob("*.safetensors"))
        assert finished(home).metrics == finished(first).metrics
    else:
        assert [n.code for n in notices(home)].count("world_size_changed") == 1
        for key, value in finished(first).metrics.items():
            assert finished(home).metrics[key] == pytest.approx(value, abs=1e-5)


GPT: Json = {
    "task": {"type": "causal_lm"},
    "model": {
        "type": "transformer_decoder",
        "num_layers": 3,
        "hidden_size": 16,
        "num_heads": 4,
        "bias": False,  # the key's has a gradient of zero, of which Adam would make steps out of rounding errors
        "tie_embeddings": False,
        "init": {"type": "normal", "std": 0.2},
    },
    "data": {
        "source": {"type": "text", "dataset": "set@1"},
        "tokenizer": {"type": "char"},
        "sequence": {"length": 8},
        "split": {"validation": 0.15},
    },
    "optimizer": {"type": "adamw", "lr": 0.001},
    "training": {"max_steps": 12, "batch_size": 16, "ema": {"decay": 0.9}},
    "evaluation": {"interval": {"steps": 6}},
    "logging": {"interval": {"steps": 3}},
    "checkpoint": {"interval": {"steps": 6}},
}
CUTS: dict[str, tuple[int, Json]] = {
    "whole": (1, {}),
    "stages": (2, {"strategy": "ddp", "processes_per_node": 2, "pipeline_parallel": {"degree": 2}}),
    "layers": (2, {"strategy": "ddp", "processes_per_node": 2, "tensor_parallel": {"degree": 2}}),
    "both": (4, {"strategy": "fsdp", "processes_per_node": 4, "tensor_parallel": {"degree": 2}}),
}


def gpt(cut: str) -> Json:
    return GPT | ({"distributed": CUTS[cut][1]} if CUTS[cut][1] else {})


@pytest.fixture
def decoder(alone: Alone) -> Origins:
    """The run of a way to cut a decoder, from nothing to its end."""
    return lambda cut: alone(gpt(cut), CUTS[cut][0])


@pytest.mark.parametrize("cut", left(["stages", "layers", "both"], {"both"}))
def test_layers_and_stages_of_a_decoder_make_one_file(cut: str, decoder: Origins) -> None:
    whole, reference = (load_file(final_checkpoint(decoder(name)) / "model.safetensors") for name in (cut, "whole"))
    assert whole.keys() == reference.keys()
    assert max((whole[key] - reference[key]).abs().max().item() for key in whole) < 1e-6
    index = json.loads((decoder(cut) / "checkpoints" / "step-00000006" / "shards.json").read_text())["stores"]
    assert index["model"].keys() == reference.keys()


@pytest.mark.parametrize("cut", left(CUTS, {"both"}))
def test_the_plan_knows_the_bytes_of_a_decoder_in_pieces(cut: str, decoder: Origins) -> None:
    content = TextFacts(bytes=len(TEXT), characters=len(TEXT), distinct_characters=len(set(TEXT)))
    facts = DatasetFacts(name="set", version=1, digest="0" * 64, bytes=1, content=content)
    spec = completed(JobSpec.model_validate_json((decoder(cut) / "spec.json").read_bytes()), facts)
    predicted, step = plan(spec, facts).checkpoint, decoder(cut) / "checkpoints" / "step-00000006"
    assert predicted.total_bytes == pytest.approx(sum(path.stat().st_size for path in step.iterdir()), rel=0.01)
    assert predicted.shards == max(1, len(list(step.glob("shard-*"))))


TURNS = [("stages", "whole"), ("whole", "stages"), ("layers", "stages")]
MORE_TURNS = [("stages", "both"), ("both", "layers"), ("stages", "stages"), ("both", "both")]


@pytest.mark.parametrize(("before", "after"), left([*TURNS, *MORE_TURNS], MORE_TURNS))
def test_a_decoder_continues_cut_in_another_way(
    before: str, after: str, decoder: Origins, nursery: Nursery, tmp_path: Path
) -> None:
    """Weights, moments and the average of the weights, from step 6 on."""
    first, home = decoder(before), tmp_path / "run"
    shutil.copytree(first, home)
    shutil.rmtree(home / "checkpoints" / "step-00000012")
    ranks = CUTS[after][0]
    (home / "spec.json").write_text(json.dumps(gpt(after)))
    assert nursery.run(home, ranks) == [0] * ranks, log(home)
    assert [e.step for e in events(home) if isinstance(e, Started)] == [0, 6]
    assert max(differences(home, first).values()) <= (0.0 if before == after else 1e-6)


@pytest.mark.parametrize("ranks", [1, 2])
def test_killed_while_it_writes_it_leaves_nothing_that_could_be_loaded(ranks: int, nursery: Nursery, tmp_path: Path) -> None:
    """The writer of step 7 is held up by a pipe; the run makes more steps meanwhile, and is killed."""
    spec = BASE | (STRATEGIES["fsdp-2"][1] if ranks == 2 else {})
    home, elsewhere = workspace(tmp_path / "run", spec, **blobs()), tmp_path / "elsewhere"
    elsewhere.mkdir()
    os.mkfifo(elsewhere / ("model.safetensors" if ranks == 1 else "shard-0001.safetensors"))
    (home / "checkpoints").mkdir()
    (home / "checkpoints" / ".building-step-00000007").symlink_to(elsewhere)
    running = nursery.start(home, ranks)
    running.reached(9)
    running.signal(signal.SIGKILL)
    assert running.wait() == [-signal.SIGKILL] * ranks
    assert saved(home) == []
    assert list((home / "checkpoints").glob("step-*")) == []
    (home / "checkpoints" / ".building-step-00000007").unlink()
    assert nursery.run(home, ranks) == [0] * ranks, log(home)
    assert [event.step for event in events(home) if isinstance(event, Started)] == [0, 0]
    assert [event.step for event in saved(home)] == [7, 14, 20]


@pytest.mark.parametrize("ranks", [1, 2])
def test_background_save_that_fails_is_told_and_the_next_one_waited_for(ranks: int, nursery: Nursery, tmp_path: Path) -> None:
    spec = BASE | (STRATEGIES["fsdp-2"][1] if ranks == 2 else {})
    home = workspace(tmp_path / "run", spec, **blobs())
    (home / "checkpoints").mkdir()
    (home / "checkpoints" / ".building-step-00000007").write_text("a file where a directory is to be")
    assert nursery.run(home, ranks) == [0] * ranks, log(home)
    assert [event.step for event in saved(home)] == [14, 20]
    (said,) = [n for n in notices(home) if n.code == "checkpoint_failed"]
    assert (said.step, said.level) == (7, "warning")
    assert finished(home).reason == "completed"


@pytest.mark.parametrize("ranks", [1, 2])
def test_save_that_is_waited_for_and_fails_ends_the_run(ranks: int, nursery: Nursery, tmp_path: Path) -> None:
    spec = checkpointed("off") | (STRATEGIES["fsdp-2"][1] if ranks == 2 else {})
    home = workspace(tmp_path / "run", spec, **blobs())
    (home / "checkpoints").mkdir()
    (home / "checkpoints" / ".building-step-00000014").write_text("a file where a directory is to be")
    assert nursery.run(home, ranks) == [1] * ranks, log(home)
    assert [event.step for event in saved(home)] == [7]
    assert sorted(p.name for p in (home / "checkpoints").iterdir() if p.is_dir()) == ["step-00000007"]


@pytest.mark.proves("CKPT-03")
def test_best_stays_on_the_worker_beside_the_newest(nursery: Nursery, tmp_path: Path) -> None:
    spec = BASE | {
        "training": {"max_steps": 40, "batch_size": 32},
        "optimizer": {"type": "sgd", "lr": 3.0},  # gets worse after its first steps
        "evaluation": {"interval": {"steps": 5}},
        "checkpoint": {"interval": {"steps": 5}, "keep_best": 1},
    }
    home = workspace(tmp_path / "run", spec, **blobs())
    assert nursery.run(home) == [0], log(home)
    by_step = {event.step: event.metrics["validation/loss"] for event in saved(home)}
    best = min(by_step, key=lambda step: (by_step[step], step))
    assert best < 30, by_step
    left = sorted(int(path.name[5:]) for path in (home / "checkpoints").iterdir())
    assert left == sorted({best, 30, 35, 40})


FAILS_AT_10: Json = {"debug": {"histograms": {"interval": {"steps": 10}}}}
"""With a directory where a file is to be written after step 10: an error of the job's at an exact step."""


def failing(home: Path, spec: Json) -> Path:
    workspace(home, spec | FAILS_AT_10 | {"debug": FAILS_AT_10["debug"] | spec.get("debug", {})}, **blobs())
    (home / "artifacts" / "histograms" / "step-00000010.json").mkdir(parents=True)
    return home


@pytest.mark.proves("CKPT-03")
def test_what_is_there_is_saved_when_the_run_raises(nursery: Nursery, tmp_path: Path) -> None:
    """And goes on, once the cause is gone, to the bits of a run that never failed."""
    whole = workspace(tmp_path / "whole", BASE | FAILS_AT_10, **blobs())
    assert nursery.run(whole) == [0], log(whole)
    home = failing(tmp_path / "run", checkpointed(None, on_exception=True))
    assert nursery.run(home) == [1], log(home)
    assert [(event.step, event.final) for event in saved(home)] == [(7, False), (10, False)]
    assert finished(home).reason == "user_error"
    (home / "artifacts" / "histograms" / "step-00000010.json").rmdir()
    assert nursery.run(home) == [0], log(home)
    assert [event.step for event in events(home) if isinstance(event, Started)] == [0, 10]
    assert same_bits(final_checkpoint(home) / "model.safetensors", final_checkpoint(whole) / "model.safetensors")


def test_without_the_wish_nothing_is_saved_when_the_run_raises(nursery: Nursery, tmp_path: Path) -> None:
    home = failing(tmp_path / "run", checkpointed("fork"))
    assert nursery.run(home) == [1], log(home)
    assert [event.step for event in saved(home)] == [7]


def test_weights_that_are_no_number_are_not_saved(nursery: Nursery, tmp_path: Path) -> None:
    spec = checkpointed(None, on_exception=True) | {"optimizer": {"type": "sgd", "lr": 1e12, "weight_decay": 1e9}}
    spec |= {part: {"interval": {"steps": 50}} for part in ("logging", "evaluation")}  # nobody looks before step 10
    spec |= {"checkpoint": {"interval": {"steps": 50}, "on_exception": True}}
    home = failing(tmp_path / "run", spec)
    assert nursery.run(home) == [1], log(home)
    assert saved(home) == []
    assert [n.code for n in notices(home)][-1] == "not_rescued"
