"""Rules of `debug.histograms`, `debug.gradients`, `debug.probes` and `debug.profiler`."""

from collections.abc import Iterator

from stoker.spec.distributed import ParameterServer
from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule
from stoker.spec.rules._steps import RUN_READS
from stoker.spec.rules._strategies import whole_on_each_rank


@rule(
    "probes-need-whole-model",
    reads=("/debug/probes", "/distributed"),
    message="probes run the model on one rank, and here no rank is sure to have all of it",
    hint="use strategy single, or ddp with whole models, or remove `debug.probes`",
)
def probes_need_whole_model(case: Case) -> Iterator[Hit]:
    if case.spec.debug.probes and not whole_on_each_rank(case.spec.distributed):
        yield hit("/debug/probes")


@rule(
    "gradients-elsewhere",
    reads=("/debug", "/distributed"),
    message="`debug.{key}` is about gradients of the whole batch, and with parameter_server only the servers have them",
    hint="remove `debug.{key}`, or use another strategy",
)
def gradients_elsewhere(case: Case) -> Iterator[Hit]:
    """Rank 0 reports what it has: its own gradients, which servers add to those of others."""
    debug = case.spec.debug
    if not isinstance(case.spec.distributed, ParameterServer):
        return
    if debug.histograms is not None and debug.histograms.gradients:
        yield hit("/debug/histograms/gradients", key="histograms.gradients")
    if debug.gradients is not None:
        yield hit("/debug/gradients", key="gradients")


@rule(
    "probe-twice",
    reads=("/debug/probes",),
    message="the {what} of `{module}` is probed twice",
    hint="remove one",
)
def probe_twice(case: Case) -> Iterator[Hit]:
    seen: set[tuple[str, str]] = set()
    for index, probe in enumerate(case.spec.debug.probes):
        if (probe.module, probe.what) in seen:
            yield hit(f"/debug/probes/{index}", what=probe.what, module=probe.module)
        seen.add((probe.module, probe.what))


@rule(
    "histograms-of-nothing",
    reads=("/debug/histograms",),
    message="`debug.histograms` leaves out both weights and gradients",
    hint="turn one on, or remove histograms",
)
def histograms_of_nothing(case: Case) -> Iterator[Hit]:
    histograms = case.spec.debug.histograms
    if histograms is not None and not histograms.weights and not histograms.gradients:
        yield hit("/debug/histograms")


@rule(
    "profiler-after-end",
    reads=("/debug/profiler", *RUN_READS),
    message="the profiler would end after step {last}, and the run has {total}",
    hint="lower start_step or active_steps, or train longer",
)
def profiler_after_end(case: Case) -> Iterator[Hit]:
    profiler, total = case.spec.debug.profiler, case.total_steps
    if profiler is not None and total is not None and profiler.start_step + profiler.active_steps > total:
        yield hit("/debug/profiler", last=profiler.start_step + profiler.active_steps, total=total)
