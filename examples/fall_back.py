"""A private swarm dies, and another model takes over.

Each call asks the main swarm first. Its only servers are killed in the middle of the program. The next call notices
that and asks the second model, which is a swarm of one server here, and may be any chat model of LangChain's. The
prompts differ, so that you see who answers. Only errors of the swarm lead to the second model: with a wrong argument it
would do no better.

    python examples/fall_back.py

Needs only this package.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from langchain_core.prompts import ChatPromptTemplate

from langchain_petals import ChatPetals
from langchain_petals.errors import SwarmError
from langchain_petals.swarm import LocalSwarm

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage
    from langchain_core.runnables import Runnable


def model_named(name: str, swarm: LocalSwarm, **options: Any) -> Runnable[dict[str, str], BaseMessage]:
    """Return a chain that asks a swarm, and tells the model its name."""
    prompt = ChatPromptTemplate([("system", f"You are {name}."), ("human", "{question}")])
    return prompt | ChatPetals(**swarm.connection, temperature=0, **options)


def ask(chain: Runnable[dict[str, str], BaseMessage], question: str) -> None:
    """Show a question, and its answer while it is generated."""
    started = time.monotonic()
    print(f"Human: {question}\nAI: ", end="")
    for chunk in chain.stream({"question": question}):
        print(chunk.text, end="", flush=True)
    print(f"   [{time.monotonic() - started:.1f} s]")


def main() -> None:
    with LocalSwarm() as swarm, LocalSwarm(servers=1) as spare_swarm:
        # how many seconds to wait for servers that may come back, before the second model is asked
        main_model = model_named("Main", swarm, connect_timeout=2)
        chain = main_model.with_fallbacks([model_named("Spare", spare_swarm)], exceptions_to_handle=(SwarmError,))
        ask(chain, "Who are you?")
        print(f"Killing the {len(swarm.servers)} servers of the main swarm.")
        for server in swarm.servers:
            server.kill()
        ask(chain, "Who are you?")
        print("Starting servers again.")
        for blocks in ("0:2", "2:4"):
            swarm.add_server(blocks)
        ask(chain, "Who are you?")


if __name__ == "__main__":
    main()
