"""What LangChain's standard suite asks of chat models, asked of the language model, for which there is no suite."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from langchain_community.cache import SQLiteCache
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.exceptions import ContextOverflowError
from langchain_core.load import dumps, loads
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import PromptTemplate
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler

from langchain_petals import Petals
from langchain_petals.swarm import LocalSwarm

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from langchain_core.caches import BaseCache
    from langchain_core.outputs import LLMResult

PROMPT = "Human: Who are you?\nAI:"


@pytest.fixture
def llm(swarm: LocalSwarm) -> Petals:
    """Return a greedy language model."""
    return Petals(**swarm.connection, temperature=0, max_new_tokens=48)


def test_invoke_continues_a_prompt(llm: Petals) -> None:
    answer = llm.invoke(PROMPT)
    assert isinstance(answer, str)
    assert answer


def test_all_ways_to_ask_agree(llm: Petals) -> None:
    expected = llm.invoke(PROMPT)
    assert "".join(llm.stream(PROMPT)) == expected
    assert len(list(llm.stream(PROMPT))) > 5
    assert llm.batch([PROMPT] * 2) == [expected] * 2
    assert llm.generate([PROMPT]).generations[0][0].text == expected

    async def ask() -> list[Any]:
        streamed = [piece async for piece in llm.astream(PROMPT)]
        generated = await llm.agenerate([PROMPT])
        return [
            await llm.ainvoke(PROMPT),
            "".join(streamed),
            *await llm.abatch([PROMPT] * 2),
            generated.generations[0][0].text,
        ]

    assert asyncio.run(ask()) == [expected] * 5


def test_messages_are_accepted_as_a_prompt(llm: Petals) -> None:
    assert llm.invoke([("human", "Who are you?")])


def test_usage_counts_tokens(llm: Petals) -> None:
    result = llm.generate([PROMPT])
    assert result.llm_output is not None
    usage = result.llm_output["token_usage"]
    assert usage["prompt_tokens"] == llm.get_num_tokens(PROMPT)
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert result.llm_output["model_name"] == llm.model_name


def test_a_stop_sequence_ends_an_answer(llm: Petals, swarm: LocalSwarm) -> None:
    whole = llm.invoke(PROMPT)
    stop = whole[6:9]
    expected = whole.partition(stop)[0]
    assert llm.invoke(PROMPT, stop=[stop]) == expected
    assert Petals(**swarm.connection, temperature=0, max_new_tokens=48, stop=[stop]).invoke(PROMPT) == expected


def test_finish_reasons_are_stop_and_length(llm: Petals) -> None:
    reasons = [
        llm.generate([PROMPT], **options).generations[0][0].generation_info["finish_reason"]
        for options in ({"max_new_tokens": 2}, {"stop": [" "], "max_new_tokens": 40})
    ]
    assert reasons == ["length", "stop"]


def test_a_chain_gives_the_answer_of_its_model(llm: Petals) -> None:
    chain = PromptTemplate.from_template("Human: {question}\nAI:") | llm | StrOutputParser()
    assert chain.invoke({"question": "Who are you?"}) == llm.invoke(PROMPT)


@pytest.mark.parametrize("make", [lambda _: InMemoryCache(), lambda path: SQLiteCache(str(path / "answers.db"))])
def test_caches_answer_repeated_prompts(swarm: LocalSwarm, tmp_path: Path, make: Callable[[Path], BaseCache]) -> None:
    cache = make(tmp_path)
    options: dict[str, Any] = {**swarm.connection, "temperature": 3, "max_new_tokens": 24, "cache": cache}
    first = Petals(**options).invoke(PROMPT)
    assert Petals(**options).invoke(PROMPT) == first
    others = [Petals(**options, seed=seed).invoke(PROMPT) for seed in range(3)]
    assert set(others) != {first}


def test_a_fallback_answers_when_a_server_is_gone(llm: Petals) -> None:
    expected = llm.invoke(PROMPT)
    with LocalSwarm(servers=1) as doomed:
        first = Petals(**doomed.connection, temperature=0, max_new_tokens=48, max_retries=0)
        assert first.invoke(PROMPT) == expected
        doomed.servers[0].kill()
        assert first.with_fallbacks([llm]).invoke(PROMPT) == expected


def test_tracing_sees_the_run(llm: Petals) -> None:
    collector = RunCollectorCallbackHandler()
    answer = llm.invoke(PROMPT, {"callbacks": [collector]})
    (run,) = collector.traced_runs
    assert run.error is None
    assert run.outputs is not None
    assert run.outputs["generations"][0][0]["text"] == answer
    assert run.extra["metadata"]["ls_provider"] == "petals"


def test_callbacks_get_each_token(llm: Petals) -> None:
    class Listening(BaseCallbackHandler):
        def __init__(self) -> None:
            self.heard: list[str] = []
            self.result: LLMResult | None = None

        def on_llm_new_token(self, token: Any, **_: Any) -> None:
            self.heard.append(token)

        def on_llm_end(self, response: LLMResult, **_: Any) -> None:
            self.result = response

    for ask in (llm.invoke, lambda prompt, config: "".join(llm.stream(prompt, config))):
        listener = Listening()
        answer = ask(PROMPT, {"callbacks": [listener, UsageMetadataCallbackHandler()]})
        assert "".join(listener.heard) == answer
        assert listener.result is not None
        assert listener.result.generations[0][0].text == answer


def test_an_overflow_is_a_context_overflow_error(llm: Petals) -> None:
    with pytest.raises(ContextOverflowError, match="tokens, but the context holds"):
        llm.invoke("word " * 2000)


def test_a_deserialised_model_gives_the_same_answer(llm: Petals) -> None:
    copy = loads(dumps(llm), allowed_objects=[Petals], valid_namespaces=["langchain_petals"])
    assert isinstance(copy, Petals)
    assert copy.invoke(PROMPT) == llm.invoke(PROMPT)
