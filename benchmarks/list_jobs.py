"""Does the list of jobs stay quick as jobs pile up? Newest page, a filtered page and a page from the middle, at 1k and 100k jobs."""

import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sqlalchemy import create_engine, text  # noqa: E402

from benchmarks.load import fire, request  # noqa: E402
from tests.support.data import digits_csv, digits_job, upload  # noqa: E402
from tests.support.stack import Stack  # noqa: E402


def multiply(url: str, target: int) -> None:
    """Copy the one submitted job, as finished, until there are `target` rows."""
    engine = create_engine(url)
    with engine.begin() as connection:
        columns = [row[1] for row in connection.execute(text("PRAGMA table_info(jobs)"))]
        have = connection.execute(text("SELECT count(*) FROM jobs")).scalar_one()
        shown = ", ".join(c for c in columns if c not in ("id", "state"))
        connection.execute(
            text(
                f"WITH RECURSIVE n(i) AS (SELECT :have UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :target) "
                f"INSERT INTO jobs (id, state, {shown}) SELECT 'job_' || printf('%026d', i), CASE WHEN i % 10 = 0 THEN 'failed' ELSE 'succeeded' END, {shown} "
                f"FROM n, (SELECT * FROM jobs ORDER BY id DESC LIMIT 1)"
            ),
            {"have": have, "target": target},
        )
        connection.execute(text("ANALYZE"))
    engine.dispose()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        stack = Stack(home, f"sqlite:///{home}/stoker.db")
        try:
            stack.start_broker()
            stack.start_server()
            upload(stack, "digits", {"digits.csv": digits_csv()})
            stack.submit(json.loads(json.dumps(digits_job())))
            headers = {"Authorization": f"Bearer {stack.key('read,submit,admin')}"}
            before: dict[str, float] = {}
            for size in (1_000, 100_000):
                multiply(stack.database_url, size)
                middle = f"job_{size // 2:026d}"
                for name, path in (
                    ("newest 50", "/v1/jobs?limit=50"),
                    ("failed 50", "/v1/jobs?limit=50&state=failed"),
                    ("middle 50", f"/v1/jobs?limit=50&after={middle}"),
                ):
                    result = fire(stack.port, [request("GET", path, headers)] * 200, 1)
                    ratio = f", {result.p50_ms / before[name]:.2f}x of 1k" if name in before else ""
                    before.setdefault(name, result.p50_ms)
                    print(
                        f"{size:>7} jobs, {name}: p50 {result.p50_ms:.1f} ms, p99 {result.p99_ms:.1f} ms {result.statuses}{ratio}"
                    )
        finally:
            stack.stop()


if __name__ == "__main__":
    main()
