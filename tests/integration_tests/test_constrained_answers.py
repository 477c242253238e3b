"""Grammars on a real swarm: alone, together, and when a server dies in the middle."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import jsonschema
from token_loop import before_step

from langchain_petals import Petals
from langchain_petals.swarm import LocalSwarm

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
FORMS: list[dict[str, Any]] = [{"json_schema": PEOPLE}, {"regex": "(yes|no), [a-z]{9}"}, {}]


def llm_on(swarm: LocalSwarm, **options: Any) -> Petals:
    return Petals(**swarm.connection, temperature=0, max_new_tokens=60, **options)


def test_answers_of_several_forms_are_the_same_alone_and_together(swarm: LocalSwarm) -> None:
    llm = llm_on(swarm)
    alone = [llm.invoke(PROMPT, **form) for form in FORMS]
    jsonschema.validate(json.loads(alone[0]), PEOPLE)

    async def together() -> list[str]:
        return await asyncio.gather(*(llm.ainvoke(PROMPT, **form) for form in FORMS))

    assert asyncio.run(together()) == alone


def test_answer_goes_on_in_its_form_when_a_server_dies() -> None:
    with LocalSwarm(replicas=2) as swarm:
        llm = llm_on(swarm, json_schema=PEOPLE)
        calm = llm.invoke(PROMPT)

        def kill_one_of_each_half() -> None:  # the session used one of them or the other
            for half in {server.blocks.start: server for server in swarm.servers}.values():
                half.kill()

        with before_step({10: kill_one_of_each_half}):
            harmed = "".join(llm.stream(PROMPT))
        assert harmed == calm
        jsonschema.validate(json.loads(harmed), PEOPLE)
