"""Importing the package costs nothing, and a petals that is missing shows on first use, with what to run."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import langchain_petals
from langchain_petals import petals_compat
from langchain_petals.errors import PetalsNotInstalledError
from langchain_petals.petals_compat import installed_petals_version

if TYPE_CHECKING:
    from collections.abc import Callable

HEAVY = {"torch", "transformers", "hivemind", "petals"}


def modules_after(program: str) -> set[str]:
    """Return the top-level modules that are loaded after a program ran in a process of its own."""
    program += "\nimport sys; print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    return {name.partition(".")[0] for name in ended.stdout.split()}


@pytest.mark.parametrize(
    "program",
    [
        "import langchain_petals",
        "from langchain_petals import Petals; Petals()",
        "from langchain_petals import ChatPetals; ChatPetals(model='x')",
        "import langchain_petals.swarm",
        "import langchain_petals.errors",
    ],
)
def test_importing_and_constructing_load_nothing_heavy(program: str) -> None:
    assert not modules_after(program) & HEAVY


def test_importing_the_package_loads_not_even_langchain() -> None:
    assert "langchain_core" not in modules_after("import langchain_petals")


def test_public_names_are_sorted_and_can_be_imported() -> None:
    assert langchain_petals.__all__ == sorted(langchain_petals.__all__)
    for name in langchain_petals.__all__:
        assert getattr(langchain_petals, name) is not None
    assert set(dir(langchain_petals)) == set(langchain_petals.__all__)


def test_version_is_that_of_the_installed_package() -> None:
    assert langchain_petals.__version__ == importlib.metadata.version("langchain-petals")


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'langchain_petals' has no attribute 'Petal'"):
        _ = langchain_petals.Petal
    with pytest.raises(ImportError):
        from langchain_petals import Petal  # noqa: F401, PLC0415


# ---- petals missing, or beside the wrong companions


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return what is installed; a package that is deleted from it is missing."""
    found = {"petals": "2.2.0.post1", "transformers": "4.34.1"}

    def version(name: str) -> str:
        if name not in found:
            raise importlib.metadata.PackageNotFoundError(name)
        return found[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    return found


@pytest.mark.parametrize(
    ("petals", "transformers"),
    [
        ("2.2.0.post1", "4.32.0"),
        ("2.2.0.post1", "4.34.1"),
        ("2.3.0.dev2", "4.43.1"),
        ("2.3.0.dev2", "4.43.4"),
    ],
)
def test_versions_that_fit_are_accepted(versions: dict[str, str], petals: str, transformers: str) -> None:
    versions.update(petals=petals, transformers=transformers)
    assert installed_petals_version() == petals


@pytest.mark.parametrize(
    ("installed", "message"),
    [
        pytest.param(
            {"transformers": "4.34.1"}, "petals is not installed.*--no-deps petals==2.2.0.post1", id="no petals"
        ),
        pytest.param({"petals": "2.2.0.post1"}, "transformers.*not installed.*pip install", id="no transformers"),
        pytest.param(
            {"petals": "2.1.0", "transformers": "4.34.1"},
            "petals 2.1.0 is not supported; 2.2.0.post1 and 2.3.0.dev2 are.*--no-deps petals==2.2.0.post1",
            id="another petals",
        ),
        pytest.param(
            {"petals": "2.2.0.post1", "transformers": "4.35.0"},
            "needs transformers>=4.32.0,<4.35.0, but 4.35.0 is installed.*pip install 'transformers>=4.32.0,<4.35.0'",
            id="transformers too new",
        ),
        pytest.param(
            {"petals": "2.3.0.dev2", "transformers": "4.34.1"},
            "needs transformers>=4.43.1,<4.44.0, but 4.34.1 is installed",
            id="transformers too old",
        ),
    ],
)
def test_versions_that_do_not_fit_are_refused_with_the_install_command(
    versions: dict[str, str], installed: dict[str, str], message: str
) -> None:
    versions.clear()
    versions.update(installed)
    with pytest.raises(PetalsNotInstalledError, match=message) as caught:
        installed_petals_version()
    assert isinstance(caught.value, ImportError)


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda: langchain_petals.Petals(model="some/model").invoke("Hi"), id="invoke"),
        pytest.param(lambda: next(langchain_petals.Petals(model="some/model").stream("Hi")), id="stream"),
        pytest.param(lambda: langchain_petals.Petals(model="some/model").get_num_tokens("Hi"), id="get_num_tokens"),
        pytest.param(lambda: langchain_petals.Petals(model="some/model", preload=True), id="preload"),
    ],
)
def test_first_use_without_petals_is_an_import_error(
    versions: dict[str, str], monkeypatch: pytest.MonkeyPatch, use: Callable[[], object]
) -> None:
    del versions["petals"]
    monkeypatch.setattr(petals_compat, "_load_once", petals_compat._load_once.__wrapped__)  # forget that it was there
    with pytest.raises(ImportError, match=r"pip install --no-deps petals==2\.2\.0\.post1"):
        use()
