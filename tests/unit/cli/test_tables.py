"""What a person sees, character by character, at a given width: jobs, one job, a plan, checkpoints, workers, metrics."""

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from stoker.cli import checkpoints, emit, ls, metrics, plan, show, workers
from stoker.cli.live import devices
from stoker.cli.openmetrics import exposition
from stoker.plan import Plan
from stoker.views import AttemptView, CheckpointView, JobView, SeriesView, WorkerView
from tests.support.scripted import job

NOW = datetime.now(UTC)
LONG_AGO = NOW - timedelta(days=3, hours=12)  # the same age however long the tests before these take


def console(width: int) -> Console:
    return Console(file=io.StringIO(), width=width, no_color=True, highlight=False, markup=False, emoji=False)


def text_of(made: Console) -> str:
    """What was printed, without the spaces at the ends of lines."""
    assert isinstance(made.file, io.StringIO)
    return "".join(f"{line.rstrip()}\n" for line in made.file.getvalue().splitlines())


def table(items: list[Any], shape: emit.Shape[Any], width: int) -> str:
    made = console(width)
    emit.draw(made, items, shape)
    return text_of(made)


def view(state: str, **changes: Any) -> JobView:
    moments = {"created_at": LONG_AGO, "started_at": LONG_AGO, "finished_at": LONG_AGO + timedelta(seconds=187)}
    return JobView.model_validate(job(state, **(moments | changes)))


JOBS = [
    view(
        "succeeded",
        id="job_01m81emam3kyzewf60mrbtq481",
        progress={"step": 20, "total_steps": 20, "fraction": 1.0},
        objective={"key": "validation/accuracy", "mode": "max", "best": 0.98765, "best_step": 20},
    ),
    view("queued", id="job_01m81em89q3k3xstapb1qnsbbm", name=None, progress={}, started_at=None, finished_at=None),
    view("running", id="job_01m81em60gvyhkxn1rnfgacy7d", name="a-rather-long-name-of-a-job", progress={"step": 7}),
]


def test_jobs() -> None:
    assert table(JOBS, ls.JOBS, 126) == (
        "ID                              NAME                         STATE      PROGRESS    BEST                           RAN  AGE\n"
        "job_01m81emam3kyzewf60mrbtq481  digits                       succeeded  ━━━━━ 100%  0.9877 validation/accuracy  3m 07s   3d\n"
        "job_01m81em89q3k3xstapb1qnsbbm  –                            queued     –           –                                –   3d\n"
        "job_01m81em60gvyhkxn1rnfgacy7d  a-rather-long-name-of-a-job  running    step 7      –                           3m 07s   3d\n"
    )


def test_jobs_on_a_narrow_terminal_keep_their_ids_states_and_values() -> None:
    assert table(JOBS, ls.JOBS, 80) == (
        "ID                              NAME        STATE      PROGRESS    BEST      AGE\n"
        "job_01m81emam3kyzewf60mrbtq481  digits      succeeded  ━━━━━ 100%  0.9877 …   3d\n"
        "job_01m81em89q3k3xstapb1qnsbbm  –           queued     –           –          3d\n"
        "job_01m81em60gvyhkxn1rnfgacy7d  a-rather-…  running    step 7      –          3d\n"
    )


def test_no_jobs() -> None:
    assert table([], ls.JOBS, 80) == "no jobs; `stoker submit job.yaml` makes one\n"


def test_one_job() -> None:
    attempt = AttemptView(
        id="att_1", number=1, epoch=1, state="ended", worker="node-1", devices={}, placed_at=NOW, claimed_at=NOW,
        started_at=LONG_AGO, ended_at=LONG_AGO + timedelta(seconds=12), exit_code=1, reason="nan_loss", message="nan",
        resumed_from=40,
    )  # fmt: skip
    failed = view(
        "failed",
        labels={"team": "vision"},
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        resources={"device": "auto", "ranks": 2, "cpus": 1, "memory_bytes": 512 << 20, "time_limit_seconds": 60},
        metrics={"train/loss": "NaN", "train/lr": 1e-4},
        error={"reason": "nan_loss", "fault": "user", "message": "the loss is nan by step 50", "hint": "Lower optimizer.lr."},
    )
    made = console(100)
    show.draw(made, failed, [attempt])
    lines = text_of(made).splitlines()
    assert lines[5].startswith("  created    2026-01-01 00:00:00 UTC (")
    assert [*lines[:5], *lines[6:]] == [
        "job_1  failed",
        "  name       digits",
        "  project    default",
        "  labels     team=vision",
        "  outcome    –",
        "  ran        3m 07s",
        "  progress   step 10 of 20",
        "  resources  auto, 2 ranks, 1 CPU, 512.0 MiB, at most 1m 00s",
        "  spec       dddddddddddddddd",
        "  metrics",
        "    train/loss                       NaN",
        "    train/lr                         0.0001",
        "  attempts",
        "    #1 ended on node-1  12.0s  from step 40  nan_loss",
        "  nan_loss: the loss is nan by step 50",
        "  help: Lower optimizer.lr.",
    ]


PLAN = {
    "model": "mlp",
    "parameters": {"total": 2410, "parts": [{"name": "hidden 0", "parameters": 2080}, {"name": "head", "parameters": 330}]},
    "flops": {
        "forward_per_sample_flops": 4736, "step_per_sample_flops": 10112, "forward_per_token_flops": None,
        "step_per_token_flops": None, "step_flops": 647168, "total_flops": 19071232,
    },
    "samples": {"train": 1438, "validation": 359, "test": 0, "tokens_per_sample": None, "estimated": False},
    "batch": {"size": 64, "micro": 32, "accumulation": 2, "ranks": 1},
    "steps": {
        "per_epoch": 23, "total": 30, "unknown": None, "epochs": 1.3, "samples": 1886, "tokens": None, "estimated": False,
    },
    "memory": {
        "weights_bytes": 9640, "gradients_bytes": 9640, "optimizer_bytes": 19296, "activations_bytes": 0, "workspace_bytes": 0,
        "buffers_bytes": 0, "best_bytes": 0, "dataset_bytes": 8863016, "loading_bytes": 0, "communication_bytes": 0,
        "runtime_bytes": 492830720, "fresh_bytes": 502642552, "resumed_bytes": 502642552, "rank_bytes": 502642552,
        "total_bytes": 502642552,
    },
    "checkpoint": {
        "model_bytes": 9920, "optimizer_bytes": 20224, "best_bytes": 0, "state_bytes": 10725, "total_bytes": 40869, "kept": 5,
        "kept_bytes": 204345,
    },
    "limit_bytes": 1 << 20, "device_limit_bytes": None, "fits": False,
    "alternatives": [
        {"summary": "half the micro-batch", "patch": {"training.micro_batch_size": 16}, "rank_bytes": 1 << 19, "total_bytes": 1 << 19, "fits": True},
    ],
}  # fmt: skip


def test_a_plan() -> None:
    made = console(100)
    plan.draw(made, Plan.model_validate(PLAN), "95522bd9bae6015e4bd9")
    assert text_of(made) == (
        "mlp\n"
        "  parameters    2,410  (hidden 0 2,080, head 330)\n"
        "  samples       1,438 train, 359 validation, 0 test\n"
        "  batch         64 = 32 x 2 accumulated x 1 ranks\n"
        "  steps         30  (23 per epoch)\n"
        "  FLOPs         647,168 per step, 19.1M in all\n"
        "  memory        479.4 MiB per rank, 479.4 MiB in all\n"
        "    weights          9.4 KiB\n"
        "    gradients        9.4 KiB\n"
        "    optimizer       18.8 KiB\n"
        "    dataset          8.5 MiB\n"
        "    runtime        470.0 MiB\n"
        "  checkpoint    39.9 KiB, at most 199.6 KiB kept\n"
        "  digest        95522bd9bae6015e\n"
        "  does not fit; these would:\n"
        "    half the micro-batch: -o training.micro_batch_size=16  (512.0 KiB per rank)\n"
    )


def test_checkpoints() -> None:
    found = [
        CheckpointView(
            step=30, epoch=1, state="available", bytes=40_869, tags=["best", "last"], created_at=LONG_AGO,
            metrics={"validation/loss": 0.24848, "validation/accuracy": 0.91922},
        ),
        CheckpointView(step=10, epoch=1, state="expired", bytes=40_869, tags=[], created_at=LONG_AGO, metrics={}),
    ]  # fmt: skip
    assert table(found, checkpoints.CHECKPOINTS, 100) == (
        "STEP  STATE      TAGS           SIZE  METRICS                                             AGE\n"
        "  30  available  best last  39.9 KiB  validation/accuracy 0.9192  validation/loss 0.2485   3d\n"
        "  10  expired    –          39.9 KiB  –                                                    3d\n"
    )


WORKER = WorkerView(
    id="wrk_1", name="node-1", state="active", version="0.1.0", heartbeat_at=LONG_AGO, warm=True, jobs=["job_1"],
    capacity={"cpus": 16, "memory_bytes": 64 << 30, "gpus": ["a", "b"]}, held={"cpus": 2, "memory_bytes": 1, "gpus": ["a"]},
    load={"cpu_percent": 51.2, "memory_used_bytes": float(3 << 30), "gpu0_utilization": 97.0},
)  # fmt: skip


def test_workers() -> None:
    assert table([WORKER], workers.WORKERS, 100) == (
        "NAME    STATE   CPUS  GPUS    MEMORY  WARM  LOAD  JOBS  SEEN\n"
        "node-1  active  2/16   1/2  64.0 GiB  yes    51%     1    3d\n"
    )  # fmt: skip


def test_the_load_of_the_machine_that_a_job_is_on() -> None:
    assert devices([WORKER], "job_1") == "node-1  CPU 51%  GPU0 97%  memory 3.0 GiB"
    assert devices([WORKER], "job_2") == ""


def test_curves() -> None:
    series = SeriesView(steps=[0, 10], min=[1.0, "NaN"], mean=[2.0, 1.0], max=[3.0, 2.0], last=[1.5, "NaN"], count=[10, 10])
    assert table([("train/loss", series)], metrics.shape("mean"), 80) == (
        "KEY         CURVE  LAST  MIN  MAX  POINTS\ntrain/loss  █▁      NaN    1    3      20\n"
    )


def test_openmetrics_escapes_labels_and_spells_numbers() -> None:
    text = exposition(view("succeeded", name=None, project='a"b\\c'), {"validation/loss": "NaN", "train/loss": 0.5})
    assert text.splitlines()[2:4] == [
        'stoker_metric{job="",key="train/loss",project="a\\"b\\\\c"} 0.5',
        'stoker_metric{job="",key="validation/loss",project="a\\"b\\\\c"} NaN',
    ]
    assert 'stoker_run_seconds{job="",project="a\\"b\\\\c"} 187.0' in text
    assert text.endswith("# EOF\n")


@pytest.mark.parametrize("width", range(40, 160, 7))
def test_no_table_is_wider_than_the_terminal_it_has_room_in(width: int) -> None:
    for line in table(JOBS, ls.JOBS, width).splitlines():
        assert len(line) <= width
