"""Grammars on a real swarm: alone, together, and when servers die during an answer."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import jsonschema
from token_loop import before_step, servers_of

from langchain_petals import Petals
from langchain_petals.swarm import LocalSwarm

if TYPE_CHECKING:
    from langchain_petals.engine.sessions.session import SwarmSession

PROMPT = "Human: Who was there?\nAI:"
PEOPLE = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"name": {"type": "string", "minLength": 3}, "age": {"type": "integer", "maximum": 150}},
        "required": ["name", "age"],
        "additionalProperties": False,
    },
    "minItems": 1,
}
CONSTRAINT_OPTIONS: list[dict[str, Any]] = [{"json_schema": PEOPLE}, {"regex": "(yes|no), [a-z]{9}"}, {}]


def llm_on(swarm: LocalSwarm, **options: Any) -> Petals:
    return Petals(**swarm.connection, temperature=0, max_new_tokens=60, **options)


def test_constrained_answers_are_the_same_alone_and_together(swarm: LocalSwarm) -> None:
    llm = llm_on(swarm)
    alone = [llm.invoke(PROMPT, **options) for options in CONSTRAINT_OPTIONS]
    jsonschema.validate(json.loads(alone[0]), PEOPLE)

    async def together() -> list[str]:
        return await asyncio.gather(*(llm.ainvoke(PROMPT, **options) for options in CONSTRAINT_OPTIONS))

    assert asyncio.run(together()) == alone


def test_constrained_answer_continues_when_its_servers_die() -> None:
    with LocalSwarm(replicas=2) as swarm:
        llm = llm_on(swarm, json_schema=PEOPLE)
        calm = llm.invoke(PROMPT)

        def kill_its_servers(session: SwarmSession) -> None:
            for server in servers_of(session, swarm):
                server.kill()

        with before_step({10: kill_its_servers}):
            harmed = "".join(llm.stream(PROMPT))
        assert harmed == calm
        jsonschema.validate(json.loads(harmed), PEOPLE)
