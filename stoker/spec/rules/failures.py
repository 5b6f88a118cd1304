"""What is done when a run goes wrong must be able to help."""

from collections.abc import Iterator

from stoker.spec.debug import Fail, Rollback
from stoker.spec.rules._rule import Case, Hit, Rule, hit
from stoker.spec.rules.lengths import RUN_READS, total_steps


def rollbacks(case: Case) -> Iterator[tuple[str, Rollback]]:
    debug = case.spec.debug
    if isinstance(debug.nan_policy, Rollback):
        yield "/debug/nan_policy", debug.nan_policy
    if debug.spike is not None and isinstance(debug.spike.policy, Rollback):
        yield "/debug/spike/policy", debug.spike.policy


def rollback_repeats(case: Case) -> Iterator[Hit]:
    for pointer, policy in rollbacks(case):
        if policy.lr_factor == 1:
            yield hit(f"{pointer}/lr_factor")


def spike_window_too_long(case: Case) -> Iterator[Hit]:
    spike, total = case.spec.debug.spike, total_steps(case)
    if spike is not None and total is not None and spike.window >= total:
        yield hit("/debug/spike/window", window=spike.window, total=total)


def anomaly_ends_first(case: Case) -> Iterator[Hit]:
    debug = case.spec.debug
    if debug.detect_anomaly and not isinstance(debug.nan_policy, Fail):
        yield hit("/debug/detect_anomaly", policy=debug.nan_policy.type)


def grace_too_short(case: Case) -> Iterator[Hit]:
    debug = case.spec.debug
    if debug.hang_timeout_seconds is not None and debug.hang_grace_seconds < debug.hang_timeout_seconds:
        yield hit("/debug/hang_grace_seconds", grace=f"{debug.hang_grace_seconds:g}", timeout=f"{debug.hang_timeout_seconds:g}")


FAILURE_RULES = (
    Rule(
        "rollback-repeats", "W", ("/debug",), rollback_repeats,
        "with a factor of 1 the run does the same again after each rollback", "set `lr_factor` below 1, for example 0.5",
    ),
    Rule(
        "anomaly-ends-first", "R", ("/debug",), anomaly_ends_first,
        "`debug.detect_anomaly` ends the run at the first NaN, so nan_policy {policy} would never act",
        "set `detect_anomaly: false`, or leave nan_policy out",
    ),
    Rule(
        "hang-grace-too-short", "R", ("/debug",), grace_too_short,
        "`debug.hang_grace_seconds` is {grace}, less than the {timeout} that a step may take", "raise it to that, at least",
    ),
    Rule(
        "spike-window-too-long", "W", ("/debug/spike", *RUN_READS), spike_window_too_long,
        "nothing is a spike in the first {window} steps, and the run has {total}", "lower `debug.spike.window`",
    ),
)  # fmt: skip
