"""A tiny job for every member of every union of the spec, each of a few steps.

`tests/architecture/test_knobs_are_read.py` runs them by the trainer and sees that every field is read;
`tests/acceptance/test_union_members.py` sends the same ones through the whole system, from the door to the checkpoint.
"""

from tests.support.tiny.beginnings import AFTER, BEFORE, BEGINNINGS
from tests.support.tiny.models import MODELS
from tests.support.tiny.parts import Document
from tests.support.tiny.ranks import RANKS
from tests.support.tiny.tables import TABLES

JOBS: dict[str, Document] = {**TABLES, **MODELS, **RANKS, **BEGINNINGS}

__all__ = ["AFTER", "BEFORE", "JOBS", "Document"]
