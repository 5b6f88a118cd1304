"""What can be checked of the images and of compose without an engine."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
STAGES = dict(re.findall(r"^FROM \S+ AS (\S+)\n(.*?)(?=^FROM |\Z)", DOCKERFILE, flags=re.MULTILINE | re.DOTALL))
FINAL = ("server", "worker-cpu", "worker-gpu", "worker-horovod", "worker-tpu")


@pytest.mark.parametrize("stage", FINAL)
def test_images_run_as_nobody_and_say_how_they_are(stage: str) -> None:
    body = STAGES[stage]
    assert re.search(r"^USER stoker$", body, flags=re.MULTILINE)
    assert "HEALTHCHECK" in body
    assert body.index("USER stoker") < body.index("ENTRYPOINT")


def test_everything_copied_exists() -> None:
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, flags=re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists(), source


def test_each_service_builds_a_stage_or_names_an_image() -> None:
    for name, service in COMPOSE["services"].items():
        assert ("image" in service) != ("build" in service), name
        if "build" in service:
            assert service["build"]["target"] in FINAL


def test_each_service_is_health_checked() -> None:
    for name, service in COMPOSE["services"].items():
        assert "healthcheck" in service or service.get("build", {}).get("target") in FINAL, name


def test_no_secret_has_a_default() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    for variable, rest in re.findall(r"\$\{([A-Z_]*(?:PASSWORD|KEY))([^}]*)\}", text):
        assert rest.startswith(":?"), variable


def test_what_compose_sets_is_what_the_code_reads() -> None:
    code = "".join(p.read_text() for folder in ("stoker", "server", "worker") for p in (ROOT / folder).rglob("*.py")).lower()
    for service in COMPOSE["services"].values():
        for variable in service.get("environment", {}):
            if variable.startswith("STOKER_"):
                assert variable.lower() in code or variable.removeprefix("STOKER_").lower() in code, variable


def test_the_broker_has_a_password_and_ports_stay_on_loopback() -> None:
    assert "--requirepass" in COMPOSE["services"]["redis"]["command"]
    for service in COMPOSE["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_only_what_needs_it_can_gain_privileges() -> None:
    for name in ("server", "worker", "worker-gpu", "redis"):
        service = COMPOSE["services"][name]
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
