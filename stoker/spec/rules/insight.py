"""What is looked at inside a run: it exists, once, and where a whole model is at hand."""

from collections.abc import Iterator

from stoker.spec.distributed import DDP, Distributed, LocalSGD, Single
from stoker.spec.rules._rule import Case, Hit, Rule, hit
from stoker.spec.rules.lengths import RUN_READS, total_steps


def whole_on_each_rank(spec: Distributed) -> bool:
    """Whether a rank can run the model by itself."""
    return isinstance(spec, Single | DDP | LocalSGD)


def probes_need_whole_model(case: Case) -> Iterator[Hit]:
    if case.spec.debug.probes and not whole_on_each_rank(case.spec.distributed):
        yield hit("/debug/probes", strategy=case.spec.distributed.strategy)


def probe_twice(case: Case) -> Iterator[Hit]:
    seen: set[tuple[str, str]] = set()
    for index, probe in enumerate(case.spec.debug.probes):
        if (probe.module, probe.what) in seen:
            yield hit(f"/debug/probes/{index}", what=probe.what, module=probe.module)
        seen.add((probe.module, probe.what))


def histograms_of_nothing(case: Case) -> Iterator[Hit]:
    histograms = case.spec.debug.histograms
    if histograms is not None and not histograms.weights and not histograms.gradients:
        yield hit("/debug/histograms")


def profiler_after_end(case: Case) -> Iterator[Hit]:
    profiler, total = case.spec.debug.profiler, total_steps(case)
    if profiler is not None and total is not None and profiler.start_step + profiler.active_steps > total:
        yield hit("/debug/profiler", last=profiler.start_step + profiler.active_steps, total=total)


INSIGHT_RULES = (
    Rule(
        "probes-need-whole-model", "R", ("/debug/probes", "/distributed"), probes_need_whole_model,
        "probes run the model on one rank, and with strategy {strategy} no rank has all of it", "use strategy single or ddp, or remove `debug.probes`",
    ),
    Rule(
        "probe-twice", "R", ("/debug/probes",), probe_twice,
        "the {what} of `{module}` is probed twice", "remove one",
    ),
    Rule(
        "histograms-of-nothing", "R", ("/debug/histograms",), histograms_of_nothing,
        "`debug.histograms` leaves out both weights and gradients", "turn one on, or remove histograms",
    ),
    Rule(
        "profiler-after-end", "R", ("/debug/profiler", *RUN_READS), profiler_after_end,
        "the profiler would end after step {last}, and the run has {total}", "lower start_step or active_steps, or train longer",
    ),
)  # fmt: skip
