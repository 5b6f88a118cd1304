"""A resolver that remembers answers as `resolve` does, in any order of documents."""

import copy
import random
from pathlib import Path
from typing import Any

import pytest

from stoker.document.document import Document
from stoker.document.load import load_file
from stoker.document.memo import Memo
from stoker.document.resolve import resolve
from stoker.document.resolver import Resolver
from stoker.document.rule_memo import RuleMemo
from stoker.document.sections import ALONE, Section, Sections
from stoker.document.traced import FIELDS, traced
from stoker.document.validate import parse
from stoker.errors import SpecError
from stoker.facts import DatasetFacts
from stoker.spec.derived.automatic import completed
from stoker.spec.job import JobSpec
from stoker.spec.rules import RULES, Case, Hit, Rule
from tests.support.spec_cases import JOBS, TABLE, TABLE_JOB, changed
from tests.unit.spec.test_rules import BROKEN

Known = tuple[dict[str, Any], DatasetFacts | None]
FEATURES = sorted((Path(__file__).parents[3] / "examples" / "features").glob("*.yaml"))
WRONG: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1,
    1.0,
    -0.0,
    0.5,
    3,
    64,
    10**9,
    2**70,
    float("nan"),
    "x",
    "mlp",
    [],
    {},
    [1],
    {"type": "x"},
)


def outcome(job: dict[str, Any], facts: DatasetFacts | None, resolver: Resolver | None) -> Any:
    """All that resolving says of a document."""
    document = Document(copy.deepcopy(job), origins={"/training/epochs": "override"} if len(job) % 2 else {})
    try:
        made = resolve(document, facts) if resolver is None else resolver.resolve(document, facts)
    except SpecError as error:
        return error.findings, error.rendered
    spec = made.spec
    size = len(spec.model_dump_json(indent=1)) if made.sections is None else made.sections.indented
    return (
        spec,
        spec.model_fields_set,
        list(made.origins.items()),
        made.origins_text,
        made.digest,
        made.canonical,
        made.warnings,
        size,
    )


def pool() -> list[Known]:
    """Documents of every family, and one that breaks each rule."""
    plain: list[Known] = list(JOBS.values())
    plain += [(load_file(path).value, None) for path in FEATURES]
    broken = [(changed(JOBS[case.job][0], case.changes), case.facts or JOBS[case.job][1]) for case in BROKEN.values()]
    return plain + broken


def mutated(dice: random.Random, known: list[Known]) -> Known:
    """A document with a section of another one, a value that may be wrong, or a key less."""
    job, facts = copy.deepcopy(dice.choice(known))
    for _ in range(dice.randrange(1, 3)):
        at: Any = job
        while isinstance(inner := at[key := dice.choice(list(at))], dict) and inner and dice.random() < 0.7:
            at = inner
        match dice.randrange(4):
            case 0:
                other = dice.choice(known)[0]
                name = dice.choice(list(other))
                job[name] = copy.deepcopy(other[name])
            case 1:
                at[key] = copy.deepcopy(dice.choice(WRONG))
            case 2 if len(at) > 1:
                del at[key]
            case _:
                at[key] = at[key] * 2 if type(at[key]) in (int, float) else at[key]
    return job, facts


@pytest.fixture(scope="module")
def resolver() -> Resolver:
    return Resolver()


def test_every_kind_of_document_has_the_same_outcome_in_any_order(resolver: Resolver) -> None:
    known = pool()
    for seed in range(2):
        for job, facts in random.Random(seed).sample(known, len(known)):
            assert outcome(job, facts, resolver) == outcome(job, facts, None)


@pytest.mark.parametrize("seed", range(4))
def test_changed_documents_have_the_same_outcome(resolver: Resolver, seed: int) -> None:
    dice, known = random.Random(seed), pool()
    resolved = 0
    for _ in range(150):
        job, facts = mutated(dice, known)
        expected = outcome(job, facts, None)
        resolved += isinstance(expected[0], JobSpec)
        assert outcome(job, facts, resolver) == expected
    assert 10 < resolved < 140  # both kinds of outcome are compared


def test_a_study_runs_no_rule_that_its_changes_do_not_concern() -> None:
    ran: list[str] = []
    rules = tuple(Rule(rule.id, rule.level, rule.reads, _counting(rule, ran), rule.message, rule.hint) for rule in RULES)
    resolver = Resolver(rules)
    for seed in range(3):
        resolver.resolve(Document(changed(TABLE_JOB, {"reproducibility": {"seed": seed}, "name": f"n{seed}"})), TABLE)
    ran.clear()
    resolver.resolve(Document(changed(TABLE_JOB, {"reproducibility": {"seed": 9}, "name": "other"})), TABLE)
    assert len(ran) < 10
    ran.clear()
    resolver.resolve(Document(changed(TABLE_JOB, {"model": {"type": "mlp", "hidden_sizes": [5]}})), TABLE)
    assert 10 < len(ran) < len(RULES)


def _counting(rule: Rule, ran: list[str]) -> Any:
    def find(case: Case) -> Any:
        ran.append(rule.id)
        return rule.find(case)

    return find


def _sections(job: dict[str, Any], facts: DatasetFacts | None = TABLE) -> Sections:
    spec, _ = parse(job)
    assert spec is not None
    whole = completed(spec, facts)
    return Sections([Section(at, getattr(whole, name)) for at, name in enumerate(FIELDS)], facts, 1)


def test_a_function_that_begins_to_read_a_field_is_asked_again_when_the_field_changes() -> None:
    def of_project(spec: JobSpec, _: DatasetFacts | None) -> tuple[Any, ...]:
        return (spec.priority,) if spec.project == "default" else (spec.project, spec.name)

    memo = Memo(of_project)
    sections = _sections(TABLE_JOB)
    assert memo(sections) == (0,)
    sections[FIELDS.index("name")] = Section(FIELDS.index("name"), "a")
    assert memo(sections) == (0,)
    assert memo.reads == {"project", "priority"}
    sections[FIELDS.index("project")] = Section(FIELDS.index("project"), "p")
    assert memo(sections) == ("p", "a")
    sections[FIELDS.index("name")] = Section(FIELDS.index("name"), "b")
    assert memo(sections) == ("p", "b")


def test_a_rule_that_reads_the_problem_runs_again_when_what_makes_the_problem_changes() -> None:
    def find(case: Case) -> Any:
        if case.problem.outputs != 3:
            yield Hit("/task")

    memo = RuleMemo([Rule("of-outputs", "R", ("/task",), find, "three", "three")])
    sections = _sections(TABLE_JOB)
    assert memo.check(sections) == memo.check(sections) == []
    task = FIELDS.index("task")
    sections[task] = Section(task, sections.spec.task.model_copy(update={"num_classes": 4}))
    assert [each.code for each in memo.check(sections)] == ["of-outputs"]


def test_facts_are_part_of_what_is_remembered() -> None:
    memo = Memo(lambda _, facts: (facts.name if facts else "",))
    first, second = _sections(TABLE_JOB), _sections(TABLE_JOB)
    second.facts, second.numbers[0] = TABLE.model_copy(update={"name": "other"}), 2
    assert (memo(first), memo(second)) == (("d",), ("other",))


def test_what_is_asked_of_a_traced_spec_is_noted() -> None:
    spec = _sections(TABLE_JOB).spec
    reads: set[str] = set()
    stand_in = traced(spec, reads)
    assert isinstance(stand_in, JobSpec)
    match stand_in:
        case JobSpec(priority=0):
            pass
        case _:
            pytest.fail("a traced spec matches as a spec")
    assert reads == {"priority"}
    copied = stand_in.model_copy(update={"name": "new"})
    assert (copied.name, copied.priority) == ("new", 0)
    assert reads == {"priority"}
    assert copied.labels == {}
    assert reads == {"priority", "labels"}
    for ask in (lambda s: s.model_dump(), lambda s: s == spec, repr, lambda s: s.model_dump_json(), dict, hash_or_none):
        reads.clear()
        ask(stand_in)
        assert reads == set(FIELDS), ask


def hash_or_none(value: Any) -> Any:
    try:
        return hash(value)
    except TypeError:
        return None  # a spec holds mappings, which have no hash; all of it was read all the same


def test_a_field_is_checked_alone_as_it_is_in_the_whole() -> None:
    whole = JobSpec.model_json_schema()["properties"]
    for name, model in zip(FIELDS, ALONE, strict=True):
        described = {"description": whole[name]["description"]}
        assert model.model_json_schema()["properties"][name] | described == whole[name]
    decorators = JobSpec.__pydantic_decorators__
    assert not any(getattr(decorators, kind) for kind in decorators.__dataclass_fields__), "fields would have to be read together"
