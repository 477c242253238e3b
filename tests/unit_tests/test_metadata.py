"""Tests of what the package asks for: no bound without a reason, and nothing that is imported and not declared."""

from __future__ import annotations

import ast
import functools
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "langchain_petals"
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")

SERVERS = PACKAGE / "swarm" / "program"
"""The servers' program, which runs in an environment of its own and imports what is there."""

OPTIONAL = {"sentencepiece", "transformers"}
"""What the package uses where the user has it, and only then."""

BOUNDS = {"<", "<=", "==", "===", "~="}


class Line(NamedTuple):
    """A requirement in pyproject.toml, and whether a comment stands on its line or on the one before it."""

    requirement: str
    has_reason: bool


def requirement_lines(text: str) -> list[Line]:
    """Return the requirements in a list of TOML with one requirement a line, or several."""
    found, before = [], ""
    for line in text.splitlines():
        is_comment = line.lstrip().startswith("#")
        code, hash_sign, _ = line.partition(" #")
        if not is_comment:
            has_reason = bool(hash_sign) or before.lstrip().startswith("#")
            found += [Line(each, has_reason) for each in re.findall(r'"([^"]+)"', code)]
        before = line
    return found


def unexplained_bounds(text: str) -> list[str]:
    """Return the requirements that keep newer versions out, and do not say why."""
    return [
        line.requirement
        for line in requirement_lines(text)
        if not line.has_reason and any(each.operator in BOUNDS for each in Requirement(line.requirement).specifier)
    ]


def section(beginning: str, end: str) -> str:
    """Return the part of pyproject.toml between two lines."""
    found = re.search(rf"^{re.escape(beginning)}\n(.*?)^{re.escape(end)}$", PROJECT, re.MULTILINE | re.DOTALL)
    assert found, f"pyproject.toml has no {beginning}"
    return found[1]


DEPENDENCIES = section("dependencies = [", "]")
NAMES = [canonicalize_name(Requirement(line.requirement).name) for line in requirement_lines(DEPENDENCIES)]
DECLARED = set(NAMES)


class Import(NamedTuple):
    """An import of a package of somebody else."""

    name: str
    file: str
    is_in_function: bool


def foreign_imports(tree: ast.AST, file: str, *, is_in_function: bool = False) -> Iterator[Import]:
    for node in ast.iter_child_nodes(tree):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules = [node.module]
        for module in modules:
            name = module.partition(".")[0]
            if name not in sys.stdlib_module_names | {"langchain_petals"}:
                yield Import(canonicalize_name(name), file, is_in_function)
        inside = is_in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        yield from foreign_imports(node, file, is_in_function=inside)


@functools.cache
def imports_of_the_package() -> list[Import]:
    files = [file for file in PACKAGE.rglob("*.py") if SERVERS not in file.parents]
    return [
        each
        for file in files
        for each in foreign_imports(ast.parse(file.read_text(encoding="utf-8")), str(file.relative_to(ROOT)))
    ]


def test_no_requirement_keeps_newer_versions_out_without_a_reason_beside_it() -> None:
    assert len(requirement_lines(DEPENDENCIES)) == len(DECLARED) > 10
    assert not unexplained_bounds(DEPENDENCIES)


def test_no_development_tool_has_a_bound_without_a_reason_beside_it() -> None:
    groups = section("[dependency-groups]", "[tool.hatch.build.targets.wheel]")
    groups = re.sub(r"\{ include-group = .* \}", "", groups)
    assert "pytest" in groups
    assert not unexplained_bounds(groups)


@pytest.mark.parametrize("bound", ["<3", "<=3", "==2.1", "==2.*", "~=2.1", ">=2,<3"])
def test_a_bound_without_a_reason_is_found(bound: str) -> None:
    assert unexplained_bounds(f'"first>=1",\n    "second{bound}",\n    "third>=1", # a reason\n') == [f"second{bound}"]


@pytest.mark.parametrize("text", ['"some<3", # it breaks', '# it breaks\n"some<3",', '"some>=3",', '"some!=3.1",'])
def test_a_bound_with_a_reason_is_accepted(text: str) -> None:
    assert not unexplained_bounds(text)


def test_the_versions_of_python_have_no_upper_bound_and_are_those_of_the_classifiers() -> None:
    (wanted,) = re.findall(r'^requires-python = "(.*)"$', PROJECT, re.MULTILINE)
    listed = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', PROJECT)
    assert not {each.operator for each in SpecifierSet(wanted)} & BOUNDS
    assert [f"3.{minor}" for minor in range(10, 15)] == listed
    assert all(version in SpecifierSet(wanted) for version in listed)
    assert "3.9" not in SpecifierSet(wanted)


def test_every_import_of_the_package_is_declared() -> None:
    undeclared = {each for each in imports_of_the_package() if each.name not in DECLARED | OPTIONAL}
    assert not undeclared


def test_every_declared_requirement_is_imported() -> None:
    assert not DECLARED - {each.name for each in imports_of_the_package()}


def test_what_is_optional_is_imported_inside_of_functions_only() -> None:
    assert not OPTIONAL & DECLARED
    assert not {each for each in imports_of_the_package() if each.name in OPTIONAL and not each.is_in_function}


def test_an_import_inside_of_a_function_is_found() -> None:
    tree = ast.parse("import json\nfrom . import a\nimport b.c\ndef f():\n    if g():\n        from h.i import j\n")
    found = list(foreign_imports(tree, "m.py"))
    assert found == [Import("b", "m.py", is_in_function=False), Import("h", "m.py", is_in_function=True)]
