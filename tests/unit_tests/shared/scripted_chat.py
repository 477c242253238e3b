"""A chat model of no swarm: what it answers depends on the first word of the last message.

As a program, it runs the command with this model in place of `ChatPetals`: `python scripted_chat.py chat folder`.
"""

from __future__ import annotations

import json
import logging
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from pydantic import Field

from langchain_petals.errors import PromptTooLongError, SpanFailedError

ROUTE = [("QmFirstServer111111", range(2)), ("QmSecondServer22222", range(2, 4))]
ESCAPES = "\x1b[2Jcleared? \x9b31m \x07\u202egnorw\r"


class ScriptedChat(BaseChatModel):
    """Says what it was told to.

    - "say WORDS": the words.
    - "pour NUMBER": so many words.
    - "count": the number of messages.
    - "fail": half an answer, and then an error of the swarm.
    - "stumble": an answer in whose middle a server fails.
    - "overflow": the error about a prompt that is too long.
    - "hang": half an answer, and then nothing more.
    - "wait": reads the prompt in two steps, and then nothing more.
    - "call TOOL NUMBER...": calls a tool, and then says its result.
    - "twice TOOL": calls a tool twice in one message, with 1 and 2, and with 3 and 4.
    - "call-always TOOL": calls a tool until it must not.
    - "escape": characters that steer terminals.
    - "cut": an answer that the limit on tokens ended.
    - "think": reasoning, and then an answer.
    """

    made: ClassVar[list[ScriptedChat]] = []
    closed: ClassVar[list[str]] = []

    model_name: str = Field(alias="model", default="default-model")
    initial_peers: list[str] | None = None
    dht_prefix: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    on_prefill: Callable[[int, int], Any] | None = None
    preload: bool = False
    calls: list[dict[str, Any]] = Field(default_factory=list)

    def model_post_init(self, context: object, /) -> None:  # noqa: ARG002 - pydantic's signature
        ScriptedChat.made.append(self)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    @property
    def route(self) -> list[tuple[str, range]]:
        return ROUTE

    def get_num_tokens_from_messages(self, messages: Any, tools: Any = None) -> int:  # noqa: ARG002 - as above
        return sum(len(message.text.split()) for message in messages)

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        return self.bind(tools=[tool.name for tool in tools], **kwargs)

    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        raise NotImplementedError

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: Any = None,  # noqa: ARG002 - LangChain's signature
        run_manager: Any = None,  # noqa: ARG002 - as above
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        self.calls.append({"messages": messages, **kwargs})
        words = str(messages[-1].text).split() or [""]
        read = self.get_num_tokens_from_messages(messages)
        if self.on_prefill is not None and words[0] != "wait":
            self.on_prefill(read, read)
        try:
            yield from map(_chunk, self._pieces(messages, words, kwargs))
        except GeneratorExit:
            ScriptedChat.closed.append(words[0])
            raise
        usage = {"input_tokens": read, "output_tokens": 5, "total_tokens": read + 5}
        details = {"input_token_details": {"cache_read": read // 2}}
        yield ChatGenerationChunk(
            message=AIMessageChunk(
                "",
                usage_metadata=usage | details,
                response_metadata={
                    "finish_reason": "length" if words[0] == "cut" else "stop",
                    "model_name": self.model_name,
                    "token_usage": {"trips": 3},
                },
                chunk_position="last",
            )
        )

    def _pieces(self, messages: list[BaseMessage], words: list[str], kwargs: dict[str, Any]) -> Iterator[Any]:
        first, *rest = words
        calls_again = kwargs.get("tool_choice") != "none" and any("call-always" in str(each.text) for each in messages)
        if isinstance(messages[-1], ToolMessage):
            yield _call(messages[-1].name, {}) if calls_again else f"The result is {messages[-1].text}"
        elif first in {"call", "call-always"}:
            yield _call(rest[0], dict(zip("ab", map(int, rest[1:]), strict=False)))
        elif first == "twice":
            yield [*_call(rest[0], {"a": 1, "b": 2}), *_call(rest[0], {"a": 3, "b": 4}, index=1)]
        elif first == "count":
            yield f"{len(messages)} messages, the first: {messages[0].text}"
        elif first == "wait":
            assert self.on_prefill is not None
            self.on_prefill(1024, 2048)
            _hang()
        else:
            yield from _said(first, rest)


def _said(first: str, rest: list[str]) -> Iterator[Any]:
    if first == "say":
        yield from (word + " " for word in rest)
    elif first == "pour":
        yield from ("word " for _ in range(int(rest[0])))
    elif first == "fail":
        yield "half an answer"
        raise SpanFailedError(0, 2, 4, TimeoutError("no answer"))
    elif first == "stumble":
        yield "half "
        logging.getLogger("langchain_petals.engine").warning("Blocks 0:2 on %s failed", "Qm\x1b[2J")
        yield "and half"
    elif first == "overflow":
        raise PromptTooLongError(5000, 4096)
    elif first == "hang":
        yield "half an answer"
        _hang()
    elif first == "escape":
        yield ESCAPES
    elif first == "think":
        yield {"reasoning_content": "Let me see."}
        yield "So it is."
    else:
        yield "Well: " + " ".join([first, *rest])


def _call(name: str | None, arguments: dict[str, int], index: int = 0) -> list[dict[str, Any]]:
    return [{"name": name, "args": json.dumps(arguments), "id": str(uuid.uuid4()), "index": index}]


def _hang() -> None:
    threading.Event().wait()


def _chunk(piece: Any) -> ChatGenerationChunk:
    if isinstance(piece, str):
        message = AIMessageChunk(piece)
    elif isinstance(piece, dict):
        message = AIMessageChunk("", additional_kwargs=piece)
    else:
        message = AIMessageChunk("", tool_call_chunks=piece)
    return ChatGenerationChunk(message=message)


if __name__ == "__main__":
    import langchain_petals
    from langchain_petals.cli import app

    langchain_petals.ChatPetals = ScriptedChat  # type: ignore[assignment, misc]
    app(prog_name="langchain-petals")
