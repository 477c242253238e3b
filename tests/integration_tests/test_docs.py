"""README.md, docs/ and docstrings: every example runs alone, and prints what the page says that it prints.

`page_examples.py` finds the examples and tells how they are run. Here, Python runs in this process, and `LocalSwarm()`
takes the servers of the tests' swarm. Run as a program, that module does without these two savings.
"""

from __future__ import annotations

import doctest
import importlib
import inspect
import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from langchain_core.globals import set_llm_cache
from page_examples import PACKAGE, ROOT, RUNNERS, Block, blocks_of_docstrings, blocks_of_page, pages

from langchain_petals import ChatPetals, Petals
from langchain_petals.configuration import GenerationOptions
from langchain_petals.engine.registry import engines
from langchain_petals.swarm import LocalSwarm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODULES = sorted(PACKAGE.rglob("*.py"))
BLOCKS = [block for page in pages() for block in blocks_of_page(page)]
BLOCKS += [block for module in MODULES for block in blocks_of_docstrings(module)]
LONGEST_LINE = 88  # characters; more do not fit beside the navigation


class WarmSwarm(LocalSwarm):
    """A `LocalSwarm` that, made without arguments, has the servers of the tests' swarm instead of new ones.

    Closing it disconnects this process's clients, as always, but leaves these servers running.
    """

    warm: LocalSwarm

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if args or kwargs:
            super().__init__(*args, **kwargs)
        else:
            vars(self).update(vars(self.warm))

    def close(self) -> None:
        if self._supervisor is self.warm._supervisor:
            engines.release(self.initial_peers, None)
        else:
            super().close()


@pytest.fixture
def own_world(swarm: LocalSwarm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give a block a warm swarm and an empty folder, and let nothing that it sets reach another one."""
    monkeypatch.setattr(WarmSwarm, "warm", swarm, raising=False)
    monkeypatch.setattr("langchain_petals.swarm.LocalSwarm", WarmSwarm)
    monkeypatch.chdir(tmp_path)
    with mock.patch.dict(os.environ):
        yield
    set_llm_cache(None)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.reason is None], ids=str)
def test_example_runs_alone_and_prints_what_its_page_shows(block: Block, own_world: None, tmp_path: Path) -> None:
    assert block.language in RUNNERS, f"{block} is no example that can be run; say why in a comment before it"
    RUNNERS[block.language](block, tmp_path)


def written(folder: Path, text: str) -> list[Block]:
    page = folder / "page.md"
    page.write_text(text, encoding="utf-8")
    return blocks_of_page(page)


def test_blocks_have_their_output_and_the_reason_why_they_are_not_run(tmp_path: Path) -> None:
    text = """\
- In a list:

    ```python
    if True:
        print(1)
    ```

    ```text
    1
    ```

<!-- not run: it needs the internet -->
```sh
curl example.com
```

Some words.

```text
no output of anything
```
"""
    found = [(block.line, block.language, block.code, block.output, block.reason) for block in written(tmp_path, text)]
    assert found == [
        (3, "python", "if True:\n    print(1)\n", "1\n", None),
        (13, "sh", "curl example.com\n", None, "it needs the internet"),
        (19, "text", "no output of anything\n", None, None),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "```python\nprint(1)\n```\n\n```text\n2\n```\n",
        "```python\nprint(unknown)\n```\n",
        "```sh\nfalse\n```\n",
        "```console\n$ echo 1\n2\n```\n",
        "```console\n$ echo 1\n1\n$ false\n```\n",
        "```json\n{'a': 1}\n```\n",
    ],
)
def test_block_fails_that_does_not_do_what_its_page_shows(text: str, tmp_path: Path) -> None:
    [block] = written(tmp_path, text)
    with pytest.raises((AssertionError, NameError, ValueError)):
        RUNNERS[block.language](replace(block, path=ROOT / "page.md"), tmp_path)


def test_no_line_of_code_is_longer_than_a_page_is_wide() -> None:
    long = [
        (str(block), line)
        for block in BLOCKS
        for line in (block.code + (block.output or "")).splitlines()
        if len(line) > LONGEST_LINE
    ]
    assert long == []


def test_readme_has_less_than_a_hundred_lines() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 100


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_every_file_that_is_linked_is_there(name: str) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / name).read_text(encoding="utf-8"))
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize(
    "module",
    [module for module in MODULES if ">>> " in module.read_text(encoding="utf-8")],
    ids=lambda module: module.stem,
)
def test_examples_of_interactive_sessions_in_docstrings_run_alone(module: Path) -> None:
    name = ".".join(module.relative_to(ROOT).with_suffix("").parts)
    sessions = doctest.DocTestFinder().find(importlib.import_module(name), globs={})
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    results = [runner.run(session) for session in sessions if session.examples]
    assert [result for result in results if result.failed or not result.attempted] == []
    assert results


def names_in_tables(page: str) -> set[str]:
    """Return what stands in code type in the first column of a page's tables."""
    rows = re.findall(r"^\| ([^|]+) \|", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def test_every_module_is_on_the_page_about_the_design() -> None:
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    modules = {path.name for path in (ROOT / "langchain_petals").rglob("*.py")}
    assert {name for name in modules if name not in page} == set()


def test_every_option_is_on_the_page_about_the_llm_once() -> None:
    inherited = {"name", "cache", "callbacks", "custom_get_token_ids", "metadata", "tags", "verbose"}
    expected = (set(Petals.model_fields) | set(GenerationOptions.model_fields)) - inherited
    rows = re.findall(r"^\| (`[^|(]+)", (ROOT / "docs" / "llm.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(name for row in rows for name in re.findall(r"`(\w+)`", row)) == sorted(expected)


def test_options_that_the_constructor_does_not_take_are_marked() -> None:
    marked = re.findall(r"^\| `(\w+)` † \|", (ROOT / "docs" / "llm.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(marked) == set(GenerationOptions.model_fields) - set(Petals.model_fields)


def test_every_field_of_the_chat_model_is_on_its_page() -> None:
    assert set(ChatPetals.model_fields) - set(Petals.model_fields) <= names_in_tables("chat.md")


def test_every_argument_of_a_local_swarm_is_on_the_page_about_swarms() -> None:
    assert set(inspect.signature(LocalSwarm).parameters) <= names_in_tables("swarms.md")


@pytest.mark.filterwarnings("ignore:`langchain-community` is being sunset:DeprecationWarning")
def test_every_argument_of_langchain_communitys_class_is_there_with_its_default() -> None:
    from langchain_community.llms import Petals as CommunityPetals  # noqa: PLC0415 - warns when it is imported

    for name, field in CommunityPetals.model_fields.items():
        ours = Petals.model_fields[name]
        if name not in {"custom_get_token_ids", "huggingface_api_key"}:
            assert ours.get_default(call_default_factory=True) == field.get_default(call_default_factory=True), name
