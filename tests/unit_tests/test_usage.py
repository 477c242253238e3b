"""What an answer cost is told in the same numbers, whichever way it was asked for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage
from pydantic import BaseModel

from langchain_petals import ChatPetals, Petals

if TYPE_CHECKING:
    from collections.abc import Callable

    from langchain_core.outputs import LLMResult
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

PROMPT = "Human: Repeat after me: seven blue petals and seven blue boats\nAI:"
REPEATABLE: dict[str, Any] = {"session_cache": 0, "speculation": False}
"""Options for equal costs of equal calls: drafts depend on how long steps take."""

QUESTION = "The city is Paris and the days are 7."


class Stay(BaseModel):
    """A stay in a city."""

    city: str
    days: int


@pytest.fixture
def chat(tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast) -> ChatPetals:
    return ChatPetals(
        model="tiny", client=tiny_model, tokenizer=tiny_tokenizer, temperature=0, max_tokens=60, **REPEATABLE
    )


@pytest.fixture
def llm(petals_llm: Callable[..., Petals]) -> Petals:
    return petals_llm(json_schema=Stay, max_new_tokens=60, **REPEATABLE)


class Results(BaseCallbackHandler):
    """Remembers results."""

    def __init__(self) -> None:
        self.results: list[LLMResult] = []

    def on_llm_end(self, response: LLMResult, **_: Any) -> None:
        self.results.append(response)


def joined(chunks: list[Any]) -> Any:
    return sum(chunks[1:], chunks[0])


async def acollected(model: Any, prompt: str) -> list[Any]:
    return [chunk async for chunk in model.astream(prompt)]


CHAT_WAYS: dict[str, Callable[[Any], AIMessage]] = {
    "stream": lambda chat: joined(list(chat.stream(QUESTION))),
    "batch": lambda chat: chat.batch([QUESTION])[0],
    "ainvoke": lambda chat: asyncio.run(chat.ainvoke(QUESTION)),
    "astream": lambda chat: joined(asyncio.run(acollected(chat, QUESTION))),
    "abatch": lambda chat: asyncio.run(chat.abatch([QUESTION]))[0],
    "stream_events": lambda chat: chat.stream_events(QUESTION, version="v3").output,
}


@pytest.mark.parametrize("way", CHAT_WAYS)
def test_a_message_tells_the_same_costs_whichever_way_it_was_asked_for(chat: ChatPetals, way: str) -> None:
    model = chat.bind(response_format=Stay)
    invoked, message = model.invoke(QUESTION), CHAT_WAYS[way](model)
    usage = invoked.response_metadata["token_usage"]
    assert message.response_metadata["token_usage"] == usage
    assert message.usage_metadata == invoked.usage_metadata
    assert 0 < usage["forced_tokens"] < usage["completion_tokens"]
    assert usage["completion_tokens"] == usage["trips"] + usage["forced_tokens"]
    assert invoked.usage_metadata["output_token_details"] == {"forced": usage["forced_tokens"]}


def test_langchain_adds_up_the_forced_tokens_of_several_calls(chat: ChatPetals) -> None:
    model, counter = chat.bind(response_format=Stay), UsageMetadataCallbackHandler()
    messages = [model.invoke(question, config={"callbacks": [counter]}) for question in (QUESTION, "Who are you?")]
    forced = [message.response_metadata["token_usage"]["forced_tokens"] for message in messages]
    assert counter.usage_metadata["tiny"]["output_token_details"]["forced"] == sum(forced) > max(forced)


LLM_WAYS: dict[str, Callable[[Any, Any], Any]] = {
    "generate": lambda llm, config: llm.generate([PROMPT], **config),
    "agenerate": lambda llm, config: asyncio.run(llm.agenerate([PROMPT], **config)),
    "invoke": lambda llm, config: llm.invoke(PROMPT, config),
    "batch": lambda llm, config: llm.batch([PROMPT], config),
    "stream": lambda llm, config: list(llm.stream(PROMPT, config)),
    "astream": lambda llm, config: asyncio.run(_streamed(llm, config)),
}


async def _streamed(llm: Petals, config: Any) -> list[str]:
    return [piece async for piece in llm.astream(PROMPT, config)]


@pytest.mark.parametrize("way", LLM_WAYS)
def test_a_text_tells_the_same_costs_whichever_way_it_was_asked_for(llm: Petals, way: str) -> None:
    listener = Results()
    LLM_WAYS[way](llm, {"callbacks": [listener]})
    [[told]] = listener.results[0].generations
    whole = llm.generate([PROMPT])
    assert whole.llm_output is not None
    usage = whole.llm_output["token_usage"]
    assert told.generation_info is not None
    assert told.generation_info["token_usage"] == usage
    assert 0 < usage["forced_tokens"] < usage["completion_tokens"]
    assert usage["completion_tokens"] == usage["trips"] + usage["forced_tokens"]


def test_the_costs_of_several_answers_and_prompts_add_up(llm: Petals) -> None:
    result = llm.generate([PROMPT, "Human: Who are you?\nAI:"], n=2, temperature=1, seed=3)
    assert result.llm_output is not None
    usage = result.llm_output["token_usage"]
    each = [answer.generation_info["token_usage"] for answers in result.generations for answer in answers]
    assert usage == {name: sum(costs[name] for costs in each) for name in usage}
    assert [costs["prompt_tokens"] > 0 for costs in each] == [True, False, True, False]
    assert usage["forced_tokens"] > 0


def test_the_costs_of_several_messages_add_up(chat: ChatPetals) -> None:
    result = chat.generate(
        [[HumanMessage(QUESTION)], [HumanMessage("Who are you?")]], n=2, response_format=Stay, seed=3
    )
    assert result.llm_output is not None
    usage = result.llm_output["token_usage"]
    each = [answer.message.response_metadata["token_usage"] for answers in result.generations for answer in answers]
    assert usage == {name: sum(costs[name] for costs in each) for name in usage}
    assert usage["forced_tokens"] > 0


def test_the_steps_of_a_long_prompt_are_trips(llm: Petals) -> None:
    usages = [
        llm.model_copy(update={"prefill_chunk_tokens": chunk}).generate([PROMPT]).llm_output["token_usage"]
        for chunk in (1024, 8)
    ]
    more = -(-usages[0]["prompt_tokens"] // 8) - 1
    assert usages[1] == usages[0] | {"trips": usages[0]["trips"] + more}


def test_the_steps_of_a_beam_search_are_trips(petals_llm: Callable[..., Petals]) -> None:
    output = petals_llm().generate([PROMPT], num_beams=2).llm_output
    assert output is not None
    assert output["token_usage"]["trips"] == output["token_usage"]["completion_tokens"] == 12


@pytest.mark.parametrize("options", [{"regex": "( blue petals| red petals){4}"}, {}], ids=["constrained", "free"])
def test_drafts_change_no_text_and_only_save_trips(petals_llm: Callable[..., Petals], options: dict[str, Any]) -> None:
    drafting = petals_llm(max_new_tokens=80, session_cache=0)
    results = [each.generate([PROMPT], **options) for each in (drafting, drafting.model_copy(update=REPEATABLE))]
    first, second = ([answer.text for answer in result.generations[0]] for result in results)
    assert first == second
    with_drafts, without = ((result.llm_output or {})["token_usage"] for result in results)
    assert without["drafted_tokens"] == without["accepted_tokens"] == 0
    assert 0 <= with_drafts["accepted_tokens"] <= with_drafts["drafted_tokens"]
    assert with_drafts["forced_tokens"] == without["forced_tokens"]
    assert without["trips"] - with_drafts["accepted_tokens"] <= with_drafts["trips"] <= without["trips"]
