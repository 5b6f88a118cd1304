"""What a job file may say: its schema, the rules between families, an explanation of each key, and why jobs end."""

from dataclasses import asdict
from functools import cache
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, ConfigDict

from server.deps import Reader
from server.errors import problem
from server.openapi import refusals
from stoker.document.explain import Explanation, explain
from stoker.document.schema import job_schema
from stoker.errors import SpecError
from stoker.i18n import Lang, translated
from stoker.problems import PROBLEMS, ProblemKind
from stoker.reasons import REASONS
from stoker.spec.rules import RULES

router = APIRouter(prefix="/v1", tags=["families"])


class RuleView(BaseModel):
    """A promise about how families go together."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    id: str
    level: str
    """R rejects, W warns, A is put right without asking."""
    reads: list[str]
    """JSON pointers of what it looks at."""
    message: str
    """With `{holes}` for what it finds."""
    hint: str


class ReasonView(BaseModel):
    """Why an attempt or a job ends."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    code: str
    end_state: str
    fault: str
    retried: bool
    counts: bool
    """Whether its retries count against resources.max_retries."""
    hint: str


@router.get("/schema/job.json")
async def get_job_schema(request: Request, who: Reader) -> dict[str, Any]:
    """JSON Schema (2020-12) of a job file."""
    return _schema()


@cache
def _schema() -> dict[str, Any]:
    return job_schema()


@router.get("/schema/rules")
async def get_rules(who: Reader, lang: Lang = "en") -> list[RuleView]:
    """Every rule between families, by what it is about."""
    return [
        RuleView(
            id=rule.id,
            level=rule.level,
            reads=list(rule.reads),
            message=translated(rule.message, lang),
            hint=translated(rule.hint, lang),
        )
        for rule in RULES
    ]


@router.get("/explain", responses=refusals(404))
async def explain_root(who: Reader, lang: Lang = "en") -> Explanation:
    """What a job file is made of."""
    return explain("", lang)


@router.get("/explain/{path}", responses=refusals(404))
async def explain_path(
    path: Annotated[str, Path(max_length=300, description="A key, `optimizer.beta1`.")],
    who: Reader,
    lang: Annotated[Lang, Query()] = "en",
) -> Explanation:
    """What a key does, its type, default, bounds and unit, in English or Chinese."""
    try:
        return explain(path, lang)
    except SpecError as error:
        findings = [f.model_copy(update={"message": "There is no such key in a spec."}) for f in error.findings]
        raise problem(404, "unknown_path", "There is no such key in a spec.", errors=findings) from error


@router.get("/reasons")
async def get_reasons(who: Reader) -> list[ReasonView]:
    """The catalogue: reason → end state, whose fault, whether it is retried, and what to do."""
    return [ReasonView(**asdict(reason)) for reason in REASONS.values()]


@router.get("/problems")
async def get_problems(who: Reader) -> list[ProblemKind]:
    """Every code that a refusal can carry, with its status and what to do."""
    return list(PROBLEMS.values())


@router.get("/problems/{code}", responses=refusals(404))
async def get_problem(code: Annotated[str, Path(max_length=64)], who: Reader) -> ProblemKind:
    """What one code means and what to do: where the `type` of a problem points."""
    if code not in PROBLEMS:
        raise problem(404, "not_found", "No refusal carries this code.")
    return PROBLEMS[code]
