"""What a submit would make of a document."""

import json
from typing import Any

from server.jobs.prepared import Prepared


def predicted(prepared: Prepared) -> dict[str, Any]:
    """stoker.views.PlanView as JSON."""
    columns = prepared.columns
    return {
        "plan": columns["plan"],
        "needs": columns["needs"].document(),
        "spec": json.loads(columns["spec"]),
        "spec_digest": columns["spec_digest"],
        "origins": columns["origins"],
        "warnings": [finding.model_dump(mode="json") for finding in prepared.warnings],
    }
