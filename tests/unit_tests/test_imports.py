"""Importing the package costs nothing, and it needs no petals."""

from __future__ import annotations

import ast
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

import langchain_petals

SOURCES = [path for path in Path(langchain_petals.__file__).parent.rglob("*.py") if "program" not in path.parts]
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
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


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_the_client_needs_no_petals_and_transformers_for_nothing_but_a_conversion(source: Path) -> None:
    tree = ast.parse(source.read_text(encoding="utf-8"))
    inside = {id(node) for function in ast.walk(tree) if isinstance(function, FUNCTIONS) for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            imported = {str(name).partition(".")[0] for name in names}
            assert not imported & {"petals", "peft", "accelerate"}
            assert "transformers" not in imported or id(node) in inside
