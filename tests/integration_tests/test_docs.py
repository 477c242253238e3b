"""README.md and docs/: every Python example runs, and prints what the page says that it prints.

A page's examples share their names, as a reader takes them; `swarm` is there from the start. A `text` block right after
an example is that example's output.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import re
import textwrap
from pathlib import Path

import pytest
from sybil import Document, Example, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser

from langchain_petals import ChatPetals, Petals, errors
from langchain_petals.swarm import LocalSwarm

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES_WITH_EXAMPLES = [page for page in PAGES if "```python" in page.read_text(encoding="utf-8")]


class RecordingEvaluator(PythonEvaluator):
    """Runs an example and keeps what it prints."""

    def __call__(self, example: Example) -> None:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            super().__call__(example)
        example.namespace["_printed"] = printed.getvalue()


def compare(example: Example) -> None:
    """Compare the output that a page shows with what the example before it printed; sybil dedents the former."""
    printed = textwrap.dedent(example.namespace.pop("_printed"))
    assert printed.rstrip().splitlines() == example.parsed.rstrip().splitlines(), f"{example.path}:{example.line}"


def parsed(page: Path) -> Document:
    parsers = [CodeBlockParser("python", RecordingEvaluator()), CodeBlockParser("text", compare)]
    return Sybil(parsers).parse(page)


@pytest.mark.parametrize("page", PAGES_WITH_EXAMPLES, ids=lambda page: page.name)
def test_examples_run_and_print_what_the_page_shows(page: Path, swarm: LocalSwarm) -> None:
    document = parsed(page)
    document.namespace["swarm"] = swarm
    for example in document.examples():
        example.evaluate()


def names_in_tables(page: str) -> set[str]:
    """Return what stands in code type in the first column of a page's tables."""
    rows = re.findall(r"^\| ([^|]+) \|", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def test_every_module_is_on_the_page_about_the_design() -> None:
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    modules = {path.name for path in (ROOT / "langchain_petals").rglob("*.py")}
    assert {name for name in modules if name not in page} == set()


def test_every_option_is_on_the_page_about_the_llm() -> None:
    inherited = {"name", "cache", "callbacks", "custom_get_token_ids", "metadata", "tags", "verbose"}
    assert set(Petals.model_fields) - inherited <= names_in_tables("llm.md")


def test_every_field_of_the_chat_model_is_on_its_page() -> None:
    assert set(ChatPetals.model_fields) - set(Petals.model_fields) <= names_in_tables("chat.md")


def test_every_error_is_on_the_page_about_the_llm() -> None:
    assert set(errors.__all__) - {"PetalsError"} <= names_in_tables("llm.md")


def test_every_argument_of_a_local_swarm_is_on_the_page_about_swarms() -> None:
    assert set(inspect.signature(LocalSwarm).parameters) <= names_in_tables("swarms.md")


@pytest.mark.filterwarnings("ignore:`langchain-community` is being sunset:DeprecationWarning")
def test_every_argument_of_langchain_communitys_class_is_there_with_its_default() -> None:
    from langchain_community.llms import Petals as CommunityPetals  # noqa: PLC0415 - warns when it is imported

    for name, field in CommunityPetals.model_fields.items():
        ours = Petals.model_fields[name]
        if name not in {"custom_get_token_ids", "huggingface_api_key"}:
            assert ours.get_default(call_default_factory=True) == field.get_default(call_default_factory=True), name
