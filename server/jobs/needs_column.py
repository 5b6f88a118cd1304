"""The column that holds what the scheduler must find for a job."""

from sqlalchemy import Dialect
from sqlalchemy.types import JSON, TypeDecorator

from server.db import Encoded
from stoker.document.strict_json import JsonValue
from stoker.plan import Needs


class NeedsColumn(TypeDecorator[Needs]):
    """A JSON document. Rows of older versions hold fewer keys, for which `Needs` has defaults."""

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: Needs | Encoded | None, dialect: Dialect) -> JsonValue:
        return value.document() if isinstance(value, Needs) else value

    def process_result_value(self, value: JsonValue, dialect: Dialect) -> Needs | None:
        return None if value is None else Needs.model_validate(value)
