"""Predict a job without making one."""

from typing import Annotated

import orjson
from fastapi import APIRouter, Depends
from starlette.responses import Response

from server.deps import ProjectName, Reader, Run
from server.jobs.document import BODY, read_document
from server.openapi import refusals
from server.plans import service
from stoker.document.document import Document
from stoker.views import PlanView

router = APIRouter(prefix="/v1/plans", tags=["plans"])


@router.post("", response_model=PlanView, responses=refusals(422), openapi_extra=BODY)
async def create_plan(
    document: Annotated[Document, Depends(read_document)], runtime: Run, who: Reader, project: ProjectName
) -> Response:
    """Validate, resolve and predict the document of a job: the same body, answers and refusals as a submit; nothing is kept."""
    prepared = await runtime.intake.prepare(who, project, document)
    return Response(
        orjson.dumps(service.predicted(prepared)), media_type="application/json", headers={"Cache-Control": "no-store"}
    )
