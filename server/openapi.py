"""What the OpenAPI document says of refusals, and the committed files made from it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stoker.errors import Problem
from stoker.errors import problem as make_problem

if TYPE_CHECKING:
    from fastapi import FastAPI

_EXAMPLES: dict[int, tuple[str, str]] = {
    400: ("json_invalid", "not JSON"),
    401: ("unauthenticated", "Send a valid key: `Authorization: Bearer stk_…`."),
    403: ("insufficient_scope", "The key lacks the scope submit."),
    404: ("not_found", "There is no such thing, or this key may not see it."),
    408: ("request_timeout", "The body did not arrive in time."),
    409: ("illegal_transition", "The job succeeded; only a job that has not ended can be cancelled."),
    412: ("version_mismatch", "The job has version 7, not the one in If-Match; read it again."),
    413: ("body_too_large", "The body is larger than 1048576 bytes."),
    414: ("uri_too_long", "The URI is longer than 8192 bytes."),
    415: ("unsupported_media_type", "Send application/json in UTF-8."),
    416: ("range_not_satisfiable", "The range lies outside the file."),
    421: ("host_not_allowed", "This server does not answer for that host."),
    422: ("validation_failed", "The request does not fit."),
    428: ("precondition_required", "Send If-Match with the ETag that the change is based on."),
    429: ("rate_limited", "Too many requests; wait."),
    431: ("headers_too_large", "More than 100 headers or 32768 bytes of them."),
    503: (
        "database_unavailable",
        "The database does not answer; a write may have been stored, so look, or repeat it under its Idempotency-Key.",
    ),
    507: ("storage_full", "The server's storage is full; nothing was stored."),
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Declared refusals of an endpoint, beside those that every endpoint has."""
    return {status: _declared(status) for status in statuses}


def everywhere() -> dict[int | str, dict[str, Any]]:
    """Refusals that any endpoint may answer."""
    return refusals(400, 401, 403, 413, 415, 421, 422, 429, 431, 503, 507)


def _declared(status: int) -> dict[str, Any]:
    code, detail = _EXAMPLES[status]
    example = make_problem(status, code, detail, request_id="0b6c7a64c5f14c1e").model_dump(mode="json", exclude_none=True)
    return {"description": code, "content": {"application/problem+json": {"schema": _schema(), "example": example}}}


def _schema() -> dict[str, Any]:
    return {"$ref": "#/components/schemas/Problem"}


def document(app: "FastAPI") -> dict[str, Any]:
    """The app's OpenAPI 3.1 document with the problem schema and the bearer scheme."""
    from fastapi.openapi.utils import get_openapi

    made = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes, openapi_version="3.1.0"
    )
    schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas = made.setdefault("components", {}).setdefault("schemas", {})
    schemas.update(schema.pop("$defs", {}))
    schemas["Problem"] = schema
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    made["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "bearerFormat": "stk_…"}}
    made["security"] = [{"key": []}]
    return made


def write(app: "FastAPI", folder: Path) -> list[Path]:
    """Write openapi.json and job.schema.json; returns their paths."""
    from stoker.document.schema import job_schema

    folder.mkdir(exist_ok=True)
    files = {folder / "openapi.json": document(app), folder / "job.schema.json": job_schema()}
    for path, content in files.items():
        path.write_text(json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    return list(files)
