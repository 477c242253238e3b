"""What people put around a chat model works with this one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import SummarizationMiddleware
from langchain_community.cache import SQLiteCache
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.chat_history import InMemoryChatMessageHistory
from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, trim_messages
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langchain_core.runnables.history import RunnableWithMessageHistory
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler

from langchain_petals import ChatPetals
from langchain_petals.swarm import LocalSwarm

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from langchain_core.caches import BaseCache


@pytest.fixture
def chat(swarm: LocalSwarm) -> ChatPetals:
    """Return a greedy chat model."""
    return ChatPetals(**swarm.connection, temperature=0, max_tokens=48)


def test_chains_of_prompt_model_and_parser_run(chat: ChatPetals) -> None:
    prompt = ChatPromptTemplate.from_messages([("system", "You are a friendly assistant."), ("human", "{question}")])
    chain = {"question": RunnablePassthrough()} | prompt | chat | StrOutputParser() | RunnableLambda(str.upper)
    expected = chat.invoke([SystemMessage("You are a friendly assistant."), HumanMessage("Who are you?")]).text
    assert chain.invoke("Who are you?") == expected.upper()
    assert "".join(chain.stream("Who are you?")) == expected.upper()
    assert asyncio.run(chain.ainvoke("Who are you?")) == expected.upper()


def test_message_history_reuses_the_session(chat: ChatPetals) -> None:
    histories: dict[str, InMemoryChatMessageHistory] = {}
    prompt = ChatPromptTemplate.from_messages([MessagesPlaceholder("history"), ("human", "{question}")])
    chain = RunnableWithMessageHistory(
        prompt | chat,
        lambda session_id: histories.setdefault(session_id, InMemoryChatMessageHistory()),
        input_messages_key="question",
        history_messages_key="history",
    )
    config: Any = {"configurable": {"session_id": "one"}}
    chain.invoke({"question": "My name is Quill."}, config)
    answer = chain.invoke({"question": "What is my name?"}, config)
    assert [message.type for message in histories["one"].messages] == ["human", "ai", "human", "ai"]
    assert answer.usage_metadata["input_token_details"]["cache_read"] > 0


@pytest.mark.parametrize("make", [lambda _: InMemoryCache(), lambda path: SQLiteCache(str(path / "answers.db"))])
def test_caches_answer_repeated_questions(swarm: LocalSwarm, tmp_path: Path, make: Callable[[Path], BaseCache]) -> None:
    cache = make(tmp_path)
    options = {**swarm.connection, "temperature": 3, "max_tokens": 24, "cache": cache}
    first = ChatPetals(**options).invoke("Tell me something.")
    again = ChatPetals(**options).invoke("Tell me something.")
    assert again.text == first.text
    assert again.response_metadata == first.response_metadata
    other = [ChatPetals(**{**options, "seed": seed}).invoke("Tell me something.").text for seed in range(4)]
    assert set(other) != {first.text}, "another seed is another question"


def test_a_fallback_answers_when_the_first_swarm_is_gone(chat: ChatPetals) -> None:
    with LocalSwarm(servers=1) as doomed:
        first = ChatPetals(**doomed.connection, temperature=0, max_tokens=48, max_retries=0)
        expected = first.invoke("Who are you?").text
        doomed.servers[0].kill()
        assert first.with_fallbacks([chat]).invoke("Who are you?").text == expected


def test_the_rate_limiter_is_asked_before_each_call(swarm: LocalSwarm) -> None:
    class Counting(InMemoryRateLimiter):
        asked = 0

        def acquire(self, *, blocking: bool = True) -> bool:
            self.asked += 1
            return super().acquire(blocking=blocking)

    limiter = Counting(requests_per_second=1000, check_every_n_seconds=0.001, max_bucket_size=10)
    chat = ChatPetals(**swarm.connection, max_tokens=2, rate_limiter=limiter)
    chat.invoke("Hello")
    list(chat.stream("Hello"))
    assert limiter.asked == 2


def test_tracing_sees_the_run(chat: ChatPetals) -> None:
    collector = RunCollectorCallbackHandler()
    answer = chat.invoke("Who are you?", {"callbacks": [collector], "run_name": "asked"}, stop=["xyzzy"])
    (run,) = collector.traced_runs
    assert run.name == "asked"
    assert run.run_type == "llm"
    assert run.error is None
    metadata = run.extra["metadata"]
    assert (metadata["ls_provider"], metadata["ls_model_type"]) == ("petals", "chat")
    assert metadata["ls_model_name"] == chat.model
    assert metadata["ls_max_tokens"] == 48
    assert metadata["ls_stop"] == ["xyzzy"]
    assert run.outputs["generations"][0][0]["message"]["kwargs"]["usage_metadata"] == answer.usage_metadata


@pytest.mark.parametrize("ask", ["stream", "invoke"])
def test_callbacks_get_each_token(swarm: LocalSwarm, ask: str) -> None:
    class Listening(BaseCallbackHandler):
        def __init__(self) -> None:
            self.heard: list[str] = []

        def on_llm_new_token(self, token: Any, **_: Any) -> None:
            self.heard.append(token)

    listener = Listening()
    chat = ChatPetals(**swarm.connection, temperature=0, max_tokens=48, streaming=True, callbacks=[listener])
    if ask == "stream":
        text = "".join(chunk.text for chunk in chat.stream("Who are you?"))
    else:
        text = chat.invoke("Who are you?").text
    assert "".join(listener.heard) == text
    assert len(listener.heard) > 5


def test_trimming_counts_with_the_models_own_tokenizer(chat: ChatPetals) -> None:
    messages: list[BaseMessage] = [SystemMessage("Be kind.")]
    for number in range(10):
        messages += [HumanMessage(f"Question {number}, please?"), AIMessage(f"Answer {number}.")]
    messages.append(HumanMessage("And now?"))
    limit = 300
    trimmed = trim_messages(
        messages, max_tokens=limit, token_counter=chat, strategy="last", include_system=True, start_on="human"
    )
    assert trimmed[0] == messages[0]
    assert trimmed[-1] == messages[-1]
    assert 3 < len(trimmed) < len(messages)
    answer = chat.invoke(trimmed)
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["input_tokens"] == chat.get_num_tokens_from_messages(trimmed) <= limit


def test_summarisation_middleware_shortens_a_conversation_that_overflows(chat: ChatPetals) -> None:
    messages: list[BaseMessage] = []
    for number in range(60):
        messages += [HumanMessage(f"Please remember that number {number} is fine."), AIMessage("I will remember it.")]
    messages.append(HumanMessage("Hello!"))
    with pytest.raises(ContextOverflowError, match="tokens, but the context holds"):
        chat.invoke(messages)
    # The profile says how much the model can read, the model how much there is. The first attempt at a summary is
    # too long as well: LangChain sees that by the error, and cuts it.
    middleware = SummarizationMiddleware(
        chat,
        trigger=("fraction", 0.9),
        keep=("messages", 1),
        token_counter=chat.get_num_tokens_from_messages,
        summary_prompt="Say it shorter: {messages}",
        trim_tokens_to_summarize=None,
    )
    answer = create_agent(chat, middleware=[middleware]).invoke({"messages": messages})["messages"]
    assert "summary of the conversation" in answer[0].text
    assert answer[1:-1] == messages[-1:]
    assert answer[-1].response_metadata["finish_reason"] in ("stop", "length")
