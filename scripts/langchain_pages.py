"""The pages for LangChain's documentation, and the notebooks that are made of them.

A page (`docs/langchain/*/petals.mdx`) is the one source. Its fenced Python blocks are the cells of its notebook. A
`text` block right after one is that cell's output; running the notebook writes it.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from nbformat import NotebookNode

DOCS = Path(__file__).parents[1] / "docs"

NOTEBOOKS = {
    DOCS / "langchain" / "chat" / "petals.mdx": DOCS / "notebooks" / "chat.ipynb",
    DOCS / "langchain" / "llms" / "petals.mdx": DOCS / "notebooks" / "llm.ipynb",
}
"""Pages and their notebooks."""

HIDDEN_TAGS = ["hide-input", "remove-cell"]
START = """\
# Starts a swarm on this machine, unless the environment names a model. The model of
# that swarm comes with the package.
import os

from langchain_petals.environment import MODEL_VARIABLE, variables_of
from langchain_petals.swarm import LocalSwarm

if not os.environ.get(MODEL_VARIABLE):
    swarm = LocalSwarm()
    os.environ.update(variables_of(swarm.connection))
    os.environ.setdefault("HF_TOKEN", "")  # no key is needed, so none is asked for"""
"""The hidden first cell of each notebook."""

NOTE = """\
> **Note:** The first cell of this notebook is hidden. It starts a swarm on this machine, which the other cells use. \
It needs the package, and an environment for servers: `pip install langchain-petals`, and then \
`langchain-petals server install`.
"""
"""What only a notebook has to say."""

_SITE = "https://docs.langchain.com"
_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w+)(?P<info>[^\n]*)\n(?P<code>.*?)^(?P=indent)```\n", re.MULTILINE | re.DOTALL
)
_CALLOUT = re.compile(r"^<(Tip|Note|Warning)>\n(.*?)^</\1>\n", re.MULTILINE | re.DOTALL)
_TITLE = re.compile(r"^ *([^=]*?)(?: +\w+=.*)?$")  # of a fence: `python Title icon="book"`
_BAR = re.compile(r" *\d+%\|[^|\n]*\| *\S+/\S+ \[[^\]\n]*\]")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        start: Index of its first character in the page.
        end: Index of the character after it.
        language: As in the fence.
        title: As in the fence.
        code: Its text, not indented, without a line feed at the end.
        in_group: Whether it is a tab of a group of blocks.
    """

    start: int
    end: int
    language: str
    title: str
    code: str
    in_group: bool


def blocks(page: str) -> Iterator[Block]:
    """Find the fenced blocks of a page."""
    for found in _FENCE.finditer(page):
        title = _TITLE.match(found["info"])
        yield Block(
            found.start(),
            found.end(),
            found["language"],
            title[1] if title else "",
            textwrap.dedent(found["code"]).rstrip("\n"),
            in_group=bool(found["indent"]),
        )


def python_blocks(page: str) -> list[Block]:
    """Return the blocks that are cells of the page's notebook."""
    return [block for block in blocks(page) if block.language == "python"]


def notebook_of(page: str) -> NotebookNode:
    """Return the notebook of a page, without outputs."""
    title = re.search(r'^title: "(.*)"$', page, re.MULTILINE)
    heading = f"# {title[1]}\n\n{NOTE}\n" if title else ""
    hidden = {"tags": HIDDEN_TAGS, "jupyter": {"source_hidden": True, "outputs_hidden": True}}
    cells: list[NotebookNode] = [new_code_cell(START, metadata=hidden)]
    place = page.index("\n---\n") + len("\n---\n")  # after the front matter
    text = heading
    for block in blocks(page):
        text += page[place : block.start]
        place = block.end
        if block.language == "text":
            continue
        if block.language != "python" and block.title not in {"pip", "uv"}:
            text += f"```{block.language}\n{block.code}\n```\n"
            continue
        if block.in_group and block.language == "python":
            text += f"**{block.title}**\n"
        if block.title == "uv":  # the other way to install is enough
            continue
        _add_text(cells, text)
        text = ""
        if block.title == "pip":
            command = block.code.replace("pip install -U", "%pip install -qU")
            install = f"# ipywidgets draws the bars of downloads\n{command} ipywidgets"
            cells.append(new_code_cell(install, metadata={"tags": ["skip-execution"]}))
        else:
            cells.append(new_code_cell(block.code))
    _add_text(cells, text + page[place:])
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number:02}"  # random ones would change with each run
    metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return new_notebook(cells=cells, metadata=metadata)


def _add_text(cells: list[NotebookNode], text: str) -> None:
    """Add a Markdown cell, if there is something to say; what only LangChain's site knows is written in Markdown."""
    text = re.sub(r"^</?CodeGroup>\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^---\n|^\{/\*.*\*/\}\n", "", text, flags=re.MULTILINE)
    text = _CALLOUT.sub(_quoted, text)
    text = text.replace("](/oss/", f"]({_SITE}/oss/python/").replace("](/langsmith/", f"]({_SITE}/langsmith/")
    text = re.sub(r"\n{3,}", "\n\n", text).strip()
    if text:
        cells.append(new_markdown_cell(text))


def _quoted(callout: re.Match[str]) -> str:
    lines = textwrap.dedent(callout[2]).strip().splitlines()
    return "".join(f"> {line}\n" for line in [f"**{callout[1]}:** {lines[0]}", *lines[1:]])


def run(notebook: NotebookNode, folder: Path, environment: Mapping[str, str]) -> None:
    """Run a notebook from top to bottom in a process of its own, and put the outputs into it.

    Args:
        notebook: The notebook.
        folder: Where it runs.
        environment: Environment variables of the process.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell raised an error.
    """
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=None,  # a busy machine may take long
        startup_timeout=240,
        iopub_timeout=60,
        resources={"metadata": {"path": str(folder)}},
        allow_errors=False,
        record_timing=False,
    )
    manager = client.create_kernel_manager()
    manager.transport, manager.ip = "ipc", str(folder / "kernel")  # over TCP, others on the machine could listen
    client.execute(env=dict(environment))
    for cell in _code_cells(notebook):
        is_hidden = cell["metadata"].get("tags") == HIDDEN_TAGS
        cell["outputs"] = [] if is_hidden else _plain(cell["outputs"])
    notebook["metadata"]["language_info"] = {"name": "python"}  # without the version


def _code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def page_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the cells that are blocks of the page, in its order."""
    return [cell for cell in _code_cells(notebook) if "tags" not in cell["metadata"]]


def _plain(outputs: Sequence[Any]) -> list[NotebookNode]:
    """Return outputs as text only, as a terminal would show them: of bars that are drawn over, the last state."""
    plain: list[NotebookNode] = []
    for output in outputs:
        if output["output_type"] == "execute_result":
            data = {"text/plain": output["data"]["text/plain"]}
            count = output["execution_count"]
            plain.append(new_output("execute_result", data=data, metadata={}, execution_count=count))
            continue
        text = output["text"] if output["output_type"] == "stream" else output["data"]["text/plain"]
        if plain and plain[-1]["output_type"] == "stream":
            plain[-1]["text"] += text
        else:  # bars, too, are standard output here: a red box would look like an error
            plain.append(new_output("stream", name="stdout", text=text))
    for output in plain:
        if output["output_type"] == "stream":
            lines = output["text"].split("\n")
            output["text"] = "\n".join(line.rstrip("\r").rpartition("\r")[2].rstrip() for line in lines)
    return plain


def text_of(cell: Mapping[str, Any]) -> str:
    """Return what a cell's outputs say, without white space at the end."""
    texts = [
        output["data"]["text/plain"] if output["output_type"] == "execute_result" else output["text"]
        for output in cell["outputs"]
    ]
    return "".join(text if text.endswith("\n") else f"{text}\n" for text in texts if text).rstrip()


def with_outputs(page: str, notebook: NotebookNode) -> str:
    """Return a page with the outputs of its notebook's cells as `text` blocks.

    Raises:
        ValueError: A block of a group has an output, for which there is no place: it would become another tab.
    """
    cells, found = iter(page_cells(notebook)), list(blocks(page))
    written, place = "", 0
    for block, after in zip(found, [*found[1:], None], strict=True):
        if block.language != "python":
            continue
        output = text_of(next(cells))
        if output and block.in_group:
            msg = f"the block {block.title!r} is in a group and has an output; let it print nothing"
            raise ValueError(msg)
        written += page[place : block.end]
        place = block.end
        if after and after.language == "text" and not page[block.end : after.start].strip():
            place = after.end
        if output:
            written += f"\n```text\n{output}\n```\n"
    return written + page[place:]


def stable(text: str) -> str:
    """Return an output without what differs from run to run: the numbers of progress bars."""
    return _BAR.sub(" 100%", text)


def with_known_outputs(notebook: NotebookNode, committed: NotebookNode) -> NotebookNode:
    """Return a notebook that keeps each committed output which differs only in what differs from run to run."""
    known = {cell["source"]: cell for cell in _code_cells(committed)}
    for cell in _code_cells(notebook):
        before = known.get(cell["source"])
        if before and stable(text_of(cell)) == stable(text_of(before)) and text_of(cell) != text_of(before):
            cell["outputs"] = before["outputs"]
    return notebook


def written(notebook: NotebookNode) -> str:
    """Return a notebook as its file has it."""
    return nbformat.writes(notebook) + "\n"


def read(path: Path) -> NotebookNode:
    """Read a notebook's file."""
    return nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
