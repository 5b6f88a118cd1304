"""Rules of `debug`: what is done when a run goes wrong."""

from collections.abc import Iterator

from stoker.spec.debug import Fail, Rollback
from stoker.spec.distributed import DDP, FSDP, Auto, Cuttable
from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule
from stoker.spec.rules._steps import RUN_READS


@rule(
    "rollback-of-shards",
    reads=("/distributed", "/debug"),
    message="no disk of {nodes} nodes has a whole checkpoint of a model in pieces to roll back to",
    hint="choose another policy, or nodes: 1",
)
def rollback_of_shards(case: Case) -> Iterator[Hit]:
    """A run steps back by itself to what is on its disks, and there no node has the whole checkpoint."""
    spec = case.spec.distributed
    cut = isinstance(spec, Cuttable) and spec.tensor_parallel is not None
    in_pieces = cut or isinstance(spec, FSDP | Auto) or (isinstance(spec, DDP) and spec.pipeline_parallel is not None)
    if spec.nodes > 1 and in_pieces:
        for pointer, _ in rollbacks(case):
            yield hit(pointer, nodes=spec.nodes)


def rollbacks(case: Case) -> Iterator[tuple[str, Rollback]]:
    debug = case.spec.debug
    if isinstance(debug.nan_policy, Rollback):
        yield "/debug/nan_policy", debug.nan_policy
    if debug.spike is not None and isinstance(debug.spike.policy, Rollback):
        yield "/debug/spike/policy", debug.spike.policy


@rule(
    "rollback-repeats",
    reads=("/debug",),
    message="with `lr_factor: 1` the run repeats the same steps after each rollback",
    hint="set `lr_factor` below 1, for example 0.5",
    level="W",
)
def rollback_repeats(case: Case) -> Iterator[Hit]:
    for pointer, policy in rollbacks(case):
        if policy.lr_factor == 1:
            yield hit(f"{pointer}/lr_factor")


@rule(
    "anomaly-ends-first",
    reads=("/debug",),
    message="`debug.detect_anomaly` ends the run at the first NaN, so nan_policy {policy} would never act",
    hint="set `detect_anomaly: false`, or leave nan_policy out",
)
def anomaly_ends_first(case: Case) -> Iterator[Hit]:
    debug = case.spec.debug
    if debug.detect_anomaly and not isinstance(debug.nan_policy, Fail):
        yield hit("/debug/detect_anomaly", policy=debug.nan_policy.type)


@rule(
    "hang-grace-too-short",
    reads=("/debug",),
    message="`debug.hang_grace_seconds` is {grace}, less than the {timeout} that a step may take",
    hint="raise it to that, at least",
)
def grace_too_short(case: Case) -> Iterator[Hit]:
    debug = case.spec.debug
    if debug.hang_timeout_seconds is not None and debug.hang_grace_seconds < debug.hang_timeout_seconds:
        yield hit("/debug/hang_grace_seconds", grace=f"{debug.hang_grace_seconds:g}", timeout=f"{debug.hang_timeout_seconds:g}")


@rule(
    "spike-window-too-long",
    reads=("/debug/spike", *RUN_READS),
    message="spikes are detected after {window} steps, and the run has {total}",
    hint="set `debug.spike.window` below {total}",
    level="W",
)
def spike_window_too_long(case: Case) -> Iterator[Hit]:
    spike, total = case.spec.debug.spike, case.total_steps
    if spike is not None and total is not None and spike.window >= total:
        yield hit("/debug/spike/window", window=spike.window, total=total)
