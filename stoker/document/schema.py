"""The job spec as JSON Schema 2020-12, for editors and other tools."""

from typing import Any

from stoker.spec.job import JobSpec

SCHEMA_ID = "/v1/schema/job.json"


def job_schema() -> dict[str, Any]:
    """The schema of a document, `extends` included (`Any`: a schema is arbitrary JSON)."""
    made = JobSpec.model_json_schema(mode="validation", ref_template="#/$defs/{model}")
    for definition in made["$defs"].values():
        _tagged(definition)
    made["properties"] = {**made["properties"], "extends": _EXTENDS}
    source = {"data": {"required": made["$defs"]["Data"].pop("required")}}
    needed = {"required": made.pop("required"), "properties": source}
    made |= {"if": {"required": ["extends"]}, "else": needed}  # what a document extends may say it
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_ID, **made, "title": "Stoker job"}


_EXTENDS = {
    "type": "string",
    "description": "Another document that this one lies over: preset:NAME, ./file or job:ID.",
    "examples": ["preset:gpt-nano", "./base.yaml"],
}


def _tagged(definition: dict[str, Any]) -> None:
    """A key that chooses the kind must be written, although the class behind it has a default for it."""
    for name in ("type", "strategy"):
        if "const" in definition.get("properties", {}).get(name, {}):
            definition["required"] = [*definition.get("required", []), name]
            if "preset" in definition["properties"]:  # which says the type too
                definition["required"].remove(name)
                definition["anyOf"] = [{"required": [name]}, {"required": ["preset"]}]
