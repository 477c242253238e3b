"""Run the pages for LangChain's documentation, and write their outputs into them and into their notebooks.

Usage: make_notebooks.py
"""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import langchain_pages
from langchain_petals.environment import variables_of
from langchain_petals.hub import KEY_VARIABLES
from langchain_petals.swarm import LocalSwarm

sys.path.append(str(Path(__file__).parents[1] / "tests" / "unit_tests" / "shared"))

from local_hub import LocalHub

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nbformat import NotebookNode

OF_SERVERS = ("LANGCHAIN_PETALS_DATA_DIR", "LANGCHAIN_PETALS_SERVER_PYTHON")  # where the servers' environment is
DOWNLOADS = "llm.ipynb"  # the notebook that shows how a model is downloaded
MODEL = "langchain-petals/tiny"  # the bundled model's name on the hub on loopback


@contextmanager
def surroundings(swarm: LocalSwarm | None, home: Path) -> Iterator[dict[str, str]]:
    """Yield the environment variables for a notebook: no key, and nothing of this user's.

    With a swarm they name it, and a hub on loopback from which the model is downloaded. Without one, the notebook's
    first cell has to start one.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in OF_SERVERS or not (name in KEY_VARIABLES or name.startswith(("HF_", "LANGCHAIN_", "LANGSMITH_")))
    }
    environment |= {"HF_HOME": str(home), "NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}
    # tqdm would advise to install ipywidgets; but with it, bars would be widgets, which have no text
    environment |= {"COLUMNS": "88", "PYTHONWARNINGS": "ignore:IProgress not found"}
    if swarm is None:
        yield environment | {"HF_HUB_OFFLINE": "1", "LANGCHAIN_PETALS_PROGRESS": "0"}
        return
    with LocalHub() as hub:
        hub.add(MODEL, Path(swarm.model))
        named = variables_of(swarm.connection | {"model": MODEL})
        yield environment | named | {"HF_ENDPOINT": hub.url, "HF_TOKEN": ""}


def run(page: Path, path: Path, swarm: LocalSwarm) -> NotebookNode:
    """Return a page's notebook with the outputs of a run.

    Args:
        page: The page.
        path: The notebook's file.
        swarm: A swarm with the bundled model; the notebook about the chat model starts one of its own.
    """
    notebook = langchain_pages.notebook_of(page.read_text(encoding="utf-8"))
    swarm_to_name = swarm if path.name == DOWNLOADS else None
    with tempfile.TemporaryDirectory() as folder, surroundings(swarm_to_name, Path(folder)) as environment:
        langchain_pages.run(notebook, Path(folder), environment)
    return notebook


def main() -> None:
    with LocalSwarm() as swarm:
        for page, path in langchain_pages.NOTEBOOKS.items():
            print(f"Running {path.name}")
            notebook = run(page, path, swarm)
            if path.exists():
                notebook = langchain_pages.with_known_outputs(notebook, langchain_pages.read(path))
            path.write_text(langchain_pages.written(notebook), encoding="utf-8")
            text = page.read_text(encoding="utf-8")
            page.write_text(langchain_pages.with_outputs(text, notebook), encoding="utf-8")


if __name__ == "__main__":
    main()
