"""Where the client finds its server and key, and whom it never gives a key to."""

from pathlib import Path

import pytest

from stoker.client._config import is_exposed, load_config
from stoker.errors import ConfigError


def write(path: Path, **values: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f'{k} = "{v}"\n' for k, v in values.items()))
    return path


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    """A user's file, a project's, and a folder inside the project."""
    write(tmp_path / "home/.config/stoker/config.toml", url="http://user:1", key="stk_user", project="mine")
    write(tmp_path / "work/stoker.toml", url="http://project:1")
    (tmp_path / "work/deep/er").mkdir(parents=True)
    return {"home": tmp_path / "home", "project": tmp_path / "work", "deep": tmp_path / "work/deep/er"}


def load(places: dict[str, Path], at: str = "deep", *given: str | None, **env: str) -> tuple[str | None, str | None, str | None]:
    config = load_config(*given, directory=places[at], environment={"HOME": str(places["home"]), **env})
    return config.url.value, config.key.value, config.project.value


def test_argument_then_environment_then_nearest_project_then_user(places: dict[str, Path]) -> None:
    assert load(places, "home") == ("http://user:1", "stk_user", "mine")
    assert load(places)[0] == "http://project:1"
    assert load(places, STOKER_URL="http://env:1")[0] == "http://env:1"
    assert load(places, "deep", "http://flag:1", STOKER_URL="http://env:1")[0] == "http://flag:1"
    write(places["deep"] / "stoker.toml", url="http://nearer:1")
    assert load(places)[0] == "http://nearer:1"


def test_a_projects_file_never_gets_a_key_meant_for_another_server(places: dict[str, Path]) -> None:
    assert load(places) == ("http://project:1", None, "mine")
    assert load(places, STOKER_URL="http://user:1")[1] == "stk_user"
    assert load(places, STOKER_URL="http://user:1/")[1] == "stk_user"
    assert load(places, STOKER_KEY="stk_env")[1] == "stk_env"


def test_a_stack_in_the_project_is_found(places: dict[str, Path]) -> None:
    (places["project"] / "stoker.toml").unlink()
    write(places["project"] / ".stoker/config.toml", url="http://127.0.0.1:1", key="stk_up")
    assert load(places)[:2] == ("http://127.0.0.1:1", "stk_up")
    elsewhere = write(places["home"] / "state/config.toml", url="http://127.0.0.1:2", key="stk_other").parent
    assert load(places, STOKER_STATE_DIR=str(elsewhere))[:2] == ("http://127.0.0.1:2", "stk_other")


@pytest.mark.parametrize("text", ["url = ", "colour = 'red'", "url = 1", "\x00"])
def test_a_file_that_cannot_be_read_is_named(places: dict[str, Path], text: str) -> None:
    broken = places["deep"] / "stoker.toml"
    broken.write_text(text)
    with pytest.raises(ConfigError, match=str(broken)):
        load(places)


@pytest.mark.parametrize("url", ["ftp://x", "host:1", "http://", "nonsense"])
def test_an_address_that_is_none_is_refused(places: dict[str, Path], url: str) -> None:
    with pytest.raises(ConfigError, match="STOKER_URL"):
        load(places, STOKER_URL=url)


def test_without_any_server_the_error_says_what_to_do(tmp_path: Path) -> None:
    config = load_config(directory=tmp_path, environment={"HOME": str(tmp_path)})
    with pytest.raises(ConfigError, match="stoker up"):
        config.require_url()


def test_exposed_files_are_told_apart(tmp_path: Path) -> None:
    path = write(tmp_path / "config.toml", key="stk_x")
    path.chmod(0o644)
    assert is_exposed(path)
    path.chmod(0o600)
    assert not is_exposed(path)
