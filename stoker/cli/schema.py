"""`stoker schema`."""

import json

from stoker.document.schema import job_schema


def schema() -> None:
    """Print the JSON Schema of a job file, for editors.

    stoker schema > job.schema.json
    """
    print(json.dumps(job_schema(), ensure_ascii=False, indent=2))
