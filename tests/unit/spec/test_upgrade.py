"""Old documents climb one version at a time; unknown ones are refused by name."""

from typing import Any

import pytest

from stoker.document.resolve import resolve
from stoker.document.upgrade import CURRENT, UPGRADES, Upgrade, upgraded
from stoker.errors import SpecError
from stoker.spec.job import JobSpec
from tests.support.spec_cases import TABLE, TABLE_JOB


def _renamed(value: dict[str, Any]) -> dict[str, Any]:
    return {("training" if key == "train" else key): inner for key, inner in value.items()}


def _nested(value: dict[str, Any]) -> dict[str, Any]:
    return {**value, "optimizer": {"type": "adamw", "lr": value["lr"]}} if "lr" in value else value


CHAIN: dict[str, tuple[str, Upgrade]] = {"stoker/v-1": ("stoker/v0", _renamed), "stoker/v0": (CURRENT, _nested)}


def test_a_chain_is_climbed() -> None:
    old = {"api_version": "stoker/v-1", "train": {"epochs": 1}, "lr": 0.5}
    made = upgraded(old, upgrades=CHAIN)
    assert made == {"api_version": CURRENT, "training": {"epochs": 1}, "lr": 0.5, "optimizer": {"type": "adamw", "lr": 0.5}}
    assert old == {"api_version": "stoker/v-1", "train": {"epochs": 1}, "lr": 0.5}
    assert upgraded({"api_version": "stoker/v0"}, upgrades=CHAIN) == {"api_version": CURRENT}


def test_current_documents_stay_as_they_are() -> None:
    for value in ({"a": 1}, {"api_version": CURRENT, "a": 1}):
        assert upgraded(value) is value


@pytest.mark.parametrize("version", ["stoker/v2", "v1", "", None, 1, ["stoker/v1"], {"a": 1}, "x" * 100_000])
def test_unknown_versions_are_refused(version: object) -> None:
    with pytest.raises(SpecError) as caught:
        resolve({**TABLE_JOB, "api_version": version}, TABLE)
    found = caught.value.findings[0]
    assert (found.code, found.pointer, found.allowed) == ("unknown-version", "/api_version", (*UPGRADES, CURRENT))
    assert len(found.message) < 200


def test_the_current_version_is_the_grammars() -> None:
    assert JobSpec.model_fields["api_version"].default == CURRENT


def test_every_known_version_leads_to_the_current_one() -> None:
    for version in UPGRADES:
        seen = {version}
        while version != CURRENT:
            version = UPGRADES[version][0]
            assert version not in seen
            seen.add(version)
