"""Points in time as people write them: `2h`, `3d`, a date, or RFC 3339."""

import re
from datetime import UTC, datetime, timedelta

from stoker.cli.failure import Failure

AGO = re.compile(r"(\d{1,6})\s*([smhdw])")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def moment(text: str, now: datetime | None = None) -> str:
    """The time as RFC 3339 in UTC; a date alone is its midnight there. Raises Failure for anything else."""
    try:
        if ago := AGO.fullmatch(text.strip()):
            found = (now or datetime.now(UTC)) - timedelta(**{UNITS[ago[2]]: int(ago[1])})
        else:
            found = datetime.fromisoformat(text.strip())
    except (ValueError, OverflowError):
        raise Failure(f"not a time: {text!r}", "write 2h, 3d, 2026-01-31 or 2026-01-31T12:00:00Z", code=2) from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC).isoformat().replace("+00:00", "Z")
