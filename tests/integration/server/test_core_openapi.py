"""The committed OpenAPI document and job schema are those of the code, and say what every endpoint may refuse."""

import json
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate

from server.app import create_app
from server.openapi import write
from server.settings import Settings

COMMITTED = Path(__file__).resolve().parents[3] / "openapi"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("openapi")
    write(create_app(Settings(state_dir=folder)), folder)
    return folder


@pytest.mark.parametrize("name", ["openapi.json", "job.schema.json"])
def test_the_committed_file_is_what_the_code_says(written: Path, name: str) -> None:
    assert (COMMITTED / name).read_text() == (written / name).read_text(), "run `python -m server openapi` and commit"


def test_the_document_is_valid_and_declares_its_refusals(written: Path) -> None:
    document: dict[str, Any] = json.loads((written / "openapi.json").read_text())
    validate(document)
    assert document["openapi"] == "3.1.0"
    seen = 0
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            seen += 1
            declared = operation["responses"]
            assert {"401", "421", "422", "503"} <= set(declared), (method, path)
            for status, response in declared.items():
                if status.isdigit() and int(status) >= 400:
                    (media,) = response["content"]
                    assert media == "application/problem+json", (method, path, status)
                    assert response["content"][media]["example"]["status"] == int(status)
    assert seen > 40
