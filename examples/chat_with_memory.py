"""A chat that remembers you, in a LangGraph thread, also after a restart.

Run it twice. The first run tells a name. The second run is a new program, and it still knows the name: a SQLite file
holds the thread. After each answer you see how many tokens of the prompt were sent; the servers still had the others.

    python examples/chat_with_memory.py "My name is Ada." "What is the capital of Japan?"
    python examples/chat_with_memory.py "What is my name?"

Needs: langchain, langgraph-checkpoint-sqlite.
"""

from __future__ import annotations

import argparse
import os
from contextlib import nullcontext
from typing import TYPE_CHECKING

from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.sqlite import SqliteSaver

from langchain_petals import ChatPetals
from langchain_petals.swarm import LocalSwarm

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("say", nargs="+", help="what to say, one message after the other")
    parser.add_argument("--file", default="conversations.sqlite", help="where the memory is kept (%(default)s)")
    parser.add_argument("--thread", default="ada", help="which conversation to continue (%(default)s)")
    arguments = parser.parse_args()
    # LANGCHAIN_PETALS_MODEL and its companions name a swarm; without them this program starts one of its own
    own = nullcontext() if os.environ.get("LANGCHAIN_PETALS_MODEL") else LocalSwarm()
    with own as swarm, SqliteSaver.from_conn_string(arguments.file) as memory:
        chat = ChatPetals(**(swarm.connection if swarm else {}), temperature=0)
        agent = create_agent(chat, checkpointer=memory)
        thread: RunnableConfig = {"configurable": {"thread_id": arguments.thread}}
        known = agent.get_state(thread).values.get("messages", [])
        print(f"{len(known)} messages of thread {arguments.thread!r} are in {arguments.file}.")
        for said in arguments.say:
            print(f"Human: {said}\nAI: ", end="")
            for chunk, _ in agent.stream({"messages": [HumanMessage(said)]}, thread, stream_mode="messages"):
                print(chunk.text, end="", flush=True)
            usage = agent.get_state(thread).values["messages"][-1].usage_metadata
            sent = usage["input_tokens"] - usage["input_token_details"]["cache_read"]
            print(f"   [{sent} of {usage['input_tokens']} tokens sent]")


if __name__ == "__main__":
    main()
