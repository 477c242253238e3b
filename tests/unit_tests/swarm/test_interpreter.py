"""Which interpreter runs the servers."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import pytest

from langchain_petals.errors import PetalsNotInstalledError
from langchain_petals.swarm.interpreter import MARKER, environment_folder, environment_for, found_python, servers_python


@pytest.fixture
def petals_beside_us(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: {"petals": "2.2.0.post1"}[name])


@pytest.fixture
def no_petals_beside_us(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)


@pytest.fixture
def environment(data: Path) -> Path:
    """Return a complete environment in the data folder."""
    (data / "servers" / "bin").mkdir(parents=True)
    (data / "servers" / "bin" / "python").touch()
    (data / "servers" / MARKER).touch()
    return data / "servers"


@pytest.mark.usefixtures("petals_beside_us")
def test_the_argument_comes_before_the_variable_the_environment_and_our_own(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.touch()
    second.touch()
    monkeypatch.setenv("LANGCHAIN_PETALS_SERVER_PYTHON", str(second))
    assert servers_python(first) == first
    assert servers_python() == second
    monkeypatch.setenv("LANGCHAIN_PETALS_SERVER_PYTHON", "")
    assert servers_python() == environment / "bin" / "python"
    (environment / MARKER).unlink()
    assert servers_python() == Path(sys.executable)


@pytest.mark.usefixtures("no_petals_beside_us", "data")
def test_without_any_the_error_names_the_command_to_run() -> None:
    assert found_python() is None
    with pytest.raises(PetalsNotInstalledError, match="Run `langchain-petals server install`"):
        servers_python()


@pytest.mark.usefixtures("environment")
def test_an_interpreter_that_is_named_and_missing_is_not_replaced_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PetalsNotInstalledError, match=r"python='.*nowhere' is not a file\. Name .*, or leave it out"):
        servers_python(tmp_path / "nowhere")
    with pytest.raises(PetalsNotInstalledError, match="is not a file"):
        servers_python(tmp_path)
    monkeypatch.setenv("LANGCHAIN_PETALS_SERVER_PYTHON", "/nowhere/python")
    with pytest.raises(PetalsNotInstalledError, match="LANGCHAIN_PETALS_SERVER_PYTHON='/nowhere/python' is not"):
        servers_python()


@pytest.mark.usefixtures("no_petals_beside_us")
def test_an_environment_whose_python_has_gone_is_none(environment: Path) -> None:
    interpreter = environment / "bin" / "python"
    interpreter.unlink()
    interpreter.symlink_to("/nowhere/python3.11")
    assert found_python() is None


def test_a_virtual_environments_interpreter_is_not_replaced_by_the_one_that_it_links_to(tmp_path: Path) -> None:
    (tmp_path / "python").symlink_to(sys.executable)
    assert servers_python(tmp_path / "python") == tmp_path / "python"


def test_the_environment_lies_in_the_users_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LANGCHAIN_PETALS_DATA_DIR", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert environment_folder().parts[-2:] == ("langchain-petals", "servers")
    monkeypatch.setenv("LANGCHAIN_PETALS_DATA_DIR", "here")
    assert environment_folder() == Path.cwd() / "here" / "servers"


def test_another_interpreter_gets_neither_our_modules_nor_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HUGGINGFACE_API_KEY", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.setenv(name, "hf_secret")
    monkeypatch.setenv("PYTHONPATH", "here")
    assert "hf_secret" not in environment_for(Path(sys.executable)).values()
    assert environment_for(Path(sys.executable))["PYTHONPATH"] == str(Path.cwd() / "here")
    assert not {"PYTHONPATH", "HF_TOKEN"} & environment_for(Path("/usr/bin/python3")).keys()
