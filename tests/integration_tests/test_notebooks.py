"""docs/langchain and docs/notebooks: pages for LangChain's documentation, and notebooks that say and do the same."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from chat_suite import ChatSuite
from langchain_core.language_models import BaseChatModel
from nbformat.v4 import new_code_cell, new_notebook, new_output

import langchain_pages
import make_notebooks
from langchain_pages import DOCS, NOTEBOOKS, page_cells, python_blocks, stable, text_of
from langchain_petals import ChatPetals
from langchain_petals.configuration import GenerationOptions

if TYPE_CHECKING:
    from nbformat import NotebookNode

    from langchain_petals.swarm import LocalSwarm

PROVIDER = DOCS / "langchain" / "providers" / "petals.mdx"
CHAT = DOCS / "langchain" / "chat" / "petals.mdx"

each_notebook = pytest.mark.parametrize(("page", "path"), NOTEBOOKS.items(), ids=lambda path: path.name)


def outputs(notebook: NotebookNode) -> list[tuple[str, str]]:
    return [(cell["source"], stable(text_of(cell))) for cell in page_cells(notebook)]


@each_notebook
def test_notebook_runs_from_top_to_bottom_and_prints_what_is_committed(
    page: Path, path: Path, swarm: LocalSwarm
) -> None:
    assert outputs(make_notebooks.run(page, path, swarm)) == outputs(langchain_pages.read(path))


@each_notebook
def test_page_and_notebook_are_what_the_script_makes(page: Path, path: Path) -> None:
    text, committed = page.read_text(encoding="utf-8"), langchain_pages.read(path)
    made = langchain_pages.notebook_of(text)
    assert [cell["source"] for cell in made["cells"]] == [cell["source"] for cell in committed["cells"]]
    for cell, known in zip(made["cells"], committed["cells"], strict=True):
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = known["outputs"], known["execution_count"]
    assert path.read_text(encoding="utf-8") == langchain_pages.written(made)
    assert text == langchain_pages.with_outputs(text, committed)


@each_notebook
def test_each_python_block_of_a_page_is_a_cell_of_its_notebook(page: Path, path: Path) -> None:
    cells = [cell["source"] for cell in page_cells(langchain_pages.read(path))]
    assert [block.code for block in python_blocks(page.read_text(encoding="utf-8"))] == cells


@each_notebook
def test_first_cell_is_hidden_and_starts_a_swarm(page: Path, path: Path) -> None:
    first = langchain_pages.read(path)["cells"][0]
    assert first["metadata"]["tags"] == ["hide-input", "remove-cell"]
    assert first["metadata"]["jupyter"] == {"source_hidden": True, "outputs_hidden": True}
    assert "LocalSwarm()" in first["source"]
    assert first["outputs"] == []


@each_notebook
def test_no_output_has_a_key_or_a_place_on_the_machine_that_made_it(page: Path, path: Path) -> None:
    shown = "\n".join(text_of(cell) for cell in page_cells(langchain_pages.read(path)))
    assert re.findall(r"hf_\w+", shown) == []
    places = [str(DOCS.parent), str(Path.home()), sys.prefix, tempfile.gettempdir()]
    assert [place for place in places if place in shown] == []


def test_notebook_about_the_llm_shows_the_bar_of_its_download() -> None:
    cells = page_cells(langchain_pages.read(DOCS / "notebooks" / "llm.ipynb"))
    [shown] = [text_of(cell) for cell in cells if "preload=True" in cell["source"]]
    assert re.search(r"model\.safetensors: 100%\|█+\| [\d.]+M/[\d.]+M", shown)


@pytest.mark.parametrize("page", [*NOTEBOOKS, PROVIDER], ids=lambda page: page.parent.name)
def test_no_line_of_code_is_wider_than_a_page(page: Path) -> None:
    found = langchain_pages.blocks(page.read_text(encoding="utf-8"))
    lines = [line for block in found if block.language != "text" for line in block.code.splitlines()]
    assert [line for line in lines if len(line) > 88] == []


@pytest.mark.parametrize("page", [*NOTEBOOKS, PROVIDER], ids=lambda page: page.parent.name)
def test_each_command_of_a_page_says_why_it_is_not_run(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    commands = [block for block in langchain_pages.blocks(text) if block.language == "bash" and block.title != "uv"]
    befores = [text[: block.start].removesuffix("<CodeGroup>\n").splitlines()[-1] for block in commands]
    assert befores
    assert [before for before in befores if not before.startswith("{/* not run: ")] == []


def test_examples_of_the_page_about_the_provider_run() -> None:
    found = python_blocks(PROVIDER.read_text(encoding="utf-8"))
    assert found
    for block in found:
        exec(block.code, {})


def test_table_of_features_says_what_the_standard_suite_and_the_class_say() -> None:
    text = CHAT.read_text(encoding="utf-8").partition("### Features\n")[2]
    names, _, marks = ([cell.strip() for cell in row.split("|")[1:-1]] for row in text.strip().splitlines()[:3])
    told = {re.sub(r"\[(.*)\]\(.*\)", r"\1", name): mark for name, mark in zip(names, marks, strict=True)}
    suite = ChatSuite()
    can = {
        "Tool calling": suite.has_tool_calling,
        "Structured output": suite.has_structured_output,
        "Image input": suite.supports_image_inputs,
        "Audio input": suite.supports_audio_inputs,
        "Video input": suite.supports_video_inputs,
        "Token-level streaming": ChatPetals._stream is not BaseChatModel._stream,
        "Native async": ChatPetals._astream is not BaseChatModel._astream
        and ChatPetals._agenerate is not BaseChatModel._agenerate,
        "Token usage": suite.returns_usage_metadata,
        "Logprobs": "logprobs" in GenerationOptions.model_fields,
    }
    assert told == {name: "✅" if yes else "❌" for name, yes in can.items()}


PAGE = """\
---
title: "A page"
---

<Tip>
    Read [more](/oss/langchain/models).
</Tip>

<CodeGroup>
    ```python One
    print(1)
    ```
</CodeGroup>

```python Two icon="book"
print(2)
```

```text
2
```
"""


def run_by_hand(*printed: str) -> NotebookNode:
    stream = [[new_output("stream", name="stdout", text=text)] if text else [] for text in printed]
    return new_notebook(cells=[new_code_cell("", outputs=each) for each in stream])


def test_what_only_langchains_site_knows_is_markdown_in_a_notebook() -> None:
    texts = [cell["source"] for cell in langchain_pages.notebook_of(PAGE)["cells"] if cell["cell_type"] == "markdown"]
    link = "[more](https://docs.langchain.com/oss/python/langchain/models)"
    assert texts == [f"# A page\n\n{langchain_pages.NOTE}\n> **Tip:** Read {link}.\n\n**One**"]


def test_output_of_a_page_is_replaced_by_that_of_its_notebook() -> None:
    assert langchain_pages.with_outputs(PAGE, run_by_hand("", "3\n")) == PAGE.replace("\n2\n", "\n3\n")
    assert langchain_pages.with_outputs(PAGE, run_by_hand("", "")) == PAGE.partition("\n```text")[0]


def test_output_in_a_group_of_blocks_is_refused_since_it_would_become_a_tab() -> None:
    with pytest.raises(ValueError, match="the block 'One' is in a group and has an output"):
        langchain_pages.with_outputs(PAGE, run_by_hand("1\n", "2\n"))


def test_drift_is_what_differs_beside_the_numbers_of_bars() -> None:
    slow = "a.json:  37%|███▋      | 40.8M/7.19G [00:24<15:44, 7.57MB/s]"
    fast = "a.json: 100%|██████████| 7.19G/7.19G [00:01<00:00, 7.0GB/s]"
    assert stable(slow) == stable(fast) != stable(fast.replace("a.json", "b.json"))
