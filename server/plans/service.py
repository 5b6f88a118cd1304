"""What a submit would make of a document."""

import json
from typing import Any

from sqlmodel import Session

from server.auth import Principal
from server.jobs.prepared import prepare
from stoker.document.document import Document


def predict(session: Session, who: Principal, project: str, document: Document) -> dict[str, Any]:
    """stoker.views.PlanView as JSON. Raises what a submit of the document would."""
    prepared = prepare(session, who, project, document)
    columns = prepared.columns
    return {
        "plan": columns["plan"],
        "needs": columns["needs"].document(),
        "spec": json.loads(columns["spec"]),
        "spec_digest": columns["spec_digest"],
        "origins": columns["origins"],
        "warnings": [finding.model_dump(mode="json") for finding in prepared.warnings],
    }
