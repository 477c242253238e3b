"""A program of a user that is checked with `mypy --strict`, to see that the wheel brings its types (py.typed).

Each `type: ignore` stands where a type must be wrong: mypy complains of one that is not needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from langchain_petals import ChatPetals, Petals
from langchain_petals.swarm import LocalSwarm

if TYPE_CHECKING:
    from langchain_core.messages import AIMessage

    from langchain_petals.errors import BlocksMissingError


def answer(question: str) -> AIMessage:
    with LocalSwarm(servers=1) as swarm:
        return ChatPetals(**swarm.connection, max_tokens=20).invoke(question)


def complete(llm: Petals, prompt: str) -> list[str]:
    return llm.batch([prompt, prompt], max_new_tokens=5)


def first_missing(error: BlocksMissingError) -> int:
    return error.blocks[0]


def wrong_types(llm: Petals) -> None:
    _name: str = LocalSwarm().servers[0].pid  # type: ignore[assignment]
    llm.invoke("Hello!").content  # type: ignore[attr-defined]  # noqa: B018 - a string has none
