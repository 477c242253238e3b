"""An agent with three tools, which it calls by its own decision.

You see each step when it happens: the call that the model writes, what the tool returns, and the answer. One question
takes two calls, of which the second needs the result of the first. The last one takes none.

    python examples/agent_with_tools.py
    python examples/agent_with_tools.py "What is 12 times 30?"

Every token of a call is constrained to the tools' schemas, so a call can always be run. Whether it is the right call
depends on the model. Needs: langchain.
"""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext

from langchain.agents import create_agent

from langchain_petals import ChatPetals
from langchain_petals.swarm import LocalSwarm

QUESTIONS = (
    "Book a hotel in Lima for 3 nights.",
    "Add 12 and 30. Then multiply 2 with the result.",
    "Who are you?",
)


def book_hotel(city: str, nights: int) -> str:
    """Book a hotel in a city for some nights."""
    return f"Booked: {city}, {nights} nights."


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


def main() -> None:
    # LANGCHAIN_PETALS_MODEL and its companions name a swarm; without them this program starts one of its own
    own = nullcontext() if os.environ.get("LANGCHAIN_PETALS_MODEL") else LocalSwarm()
    with own as swarm:
        chat = ChatPetals(**(swarm.connection if swarm else {}), temperature=0)
        agent = create_agent(chat, [book_hotel, add, multiply])
        for question in sys.argv[1:] or QUESTIONS:
            print(f"\nHuman: {question}")
            for step in agent.stream({"messages": [("human", question)]}, stream_mode="updates"):
                for update in step.values():
                    for message in update["messages"]:
                        for call in getattr(message, "tool_calls", []):
                            named = ", ".join(f"{name}={value!r}" for name, value in call["args"].items())
                            print(f"  calls {call['name']}({named})")
                        if message.text:
                            print(f"  {message.name} returns" if message.type == "tool" else "AI:", message.text)


if __name__ == "__main__":
    main()
