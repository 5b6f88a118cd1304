"""The body of a submit as a document: JSON, or YAML 1.2 by its content type."""

import asyncio

from fastapi import Request

from server.errors import problem, spec_problem
from stoker.document.document import Document
from stoker.document.load import load_text
from stoker.errors import Finding, SpecError

BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"type": "object", "description": "A job spec; see /v1/schema/job.json."}},
            "application/yaml": {"schema": {"type": "string", "description": "The same as YAML 1.2."}},
        },
    }
}
"""What OpenAPI says of the body."""


async def read_document(request: Request) -> Document:
    """A dependency: the document that a request carries. The guard has read and checked JSON already.

    Raises 422 `spec_invalid`, `yaml_rejected`.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json":
        value = request.scope.get("stoker.json")
        if not isinstance(value, dict):
            error = Finding(code="not-a-mapping", message="A job spec is an object.")
            raise problem(422, "spec_invalid", "The document has 1 error.", errors=[error])
        return Document(value)
    body = await request.body()
    try:
        return await asyncio.to_thread(load_text, body, "yaml")
    except SpecError as error:
        refusal = spec_problem(error)
        refusal.code = "yaml_rejected"
        raise refusal from error
