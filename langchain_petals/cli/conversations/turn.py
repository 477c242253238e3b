"""One turn of a conversation: the model's answer, and the tools that it calls on the way."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langchain_petals.cli.conversations.tools import run_tool

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolCall, ToolMessage
    from langchain_core.tools import BaseTool

MOST_ROUNDS = 8
"""Times that the model may call tools before it has to answer."""


class PromptReading:
    """Hears how much of a prompt the servers have read. A `ChatPetals` calls it as its `on_prefill`.

    Attributes:
        show: Called with each progress as a text, on another thread.
        finished: When the last prompt was read, on the clock `time.monotonic`; None while it is read.
    """

    def __init__(self) -> None:
        self.show: Callable[[str], object] = _ignore
        self.finished: float | None = None

    def begin(self) -> None:
        """Begin with another prompt."""
        self.finished = None

    def __call__(self, done: int, total: int) -> None:
        """Take the numbers of tokens that were read, and of all tokens."""
        if done >= total:
            self.finished = time.monotonic()
            self.show("Waiting for the answer")
        else:
            self.show(f"Reading the prompt: {done:,} of {total:,} tokens")


def _ignore(_: str) -> None:
    pass


@dataclass(frozen=True)
class Cost:
    """What answers cost.

    Attributes:
        read: Tokens of prompts.
        reused: Those of them that the servers had already.
        written: Tokens of answers.
        trips: Steps through the swarm; 0 if the model does not tell.
        answers: Number of answers.
        wait: Seconds until the prompts were read, and so until the first tokens.
        writing: Seconds from the first tokens to the last ones.
    """

    read: int = 0
    reused: int = 0
    written: int = 0
    trips: int = 0
    answers: int = 0
    wait: float = 0.0
    writing: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        """Return the sum."""
        mine, theirs = vars(self), vars(other)
        return Cost(**{name: mine[name] + theirs[name] for name in mine})

    @property
    def speed(self) -> float | None:
        """Tokens a second, the first token of each answer apart; None if there were too few to tell."""
        counted = self.written - self.answers
        return counted / self.writing if counted > 0 and self.writing > 0 else None


class Turn:
    """The answer to a conversation: chunks of messages, calls of tools and their results.

    Args:
        model: The model.
        before: The conversation so far; its last message is the user's.
        tools: What the model may call. After `MOST_ROUNDS` rounds of calls it has to answer without.
        reading: Hears when the model has read its prompts.
        options: Options of each call of the model.

    Attributes:
        messages: What the turn adds to the conversation; complete messages only.
        partial: Text of the message that is being written.
        asks_model: Whether the next event is the beginning of a message of the model.
        costs: The cost of each complete answer.
    """

    def __init__(
        self,
        model: BaseChatModel,
        before: Sequence[BaseMessage],
        tools: Sequence[BaseTool] = (),
        reading: PromptReading | None = None,
        **options: Any,
    ) -> None:
        self.before, self.tools, self.reading = before, tools, reading or PromptReading()
        self._model, self._options = model, options
        self.messages: list[BaseMessage] = []
        self.partial = ""
        self.asks_model = True
        self.costs: list[Cost] = []

    @property
    def cost(self) -> Cost:
        """The cost of all complete answers."""
        return sum(self.costs, Cost())

    @property
    def answer(self) -> AIMessage | None:
        """The last complete message of the model."""
        return next((each for each in reversed(self.messages) if each.type == "ai"), None)  # type: ignore[return-value]

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the next prompt."""
        return self._model.get_num_tokens_from_messages([*self.before, *self.messages], list(self.tools) or None)

    def __iter__(self) -> Generator[AIMessageChunk | ToolCall | ToolMessage, None, None]:
        """Yield what happens. Who leaves the loop early should close the iterator, which ends the work."""
        for rounds in range(MOST_ROUNDS + 1):
            message = yield from self._answer(may_call=rounds < MOST_ROUNDS)
            if not message.tool_calls:
                return
            for number, call in enumerate(message.tool_calls, start=1):
                yield call
                result = run_tool(self.tools, call)
                self.messages.append(result)
                self.asks_model = number == len(message.tool_calls)
                yield result

    def _answer(self, *, may_call: bool) -> Generator[AIMessageChunk, None, AIMessage]:
        from langchain_core.messages import message_chunk_to_message  # noqa: PLC0415 - not needed for `--help`

        model: Any = self._model.bind_tools(self.tools) if self.tools else self._model
        options = self._options if may_call or not self.tools else {**self._options, "tool_choice": "none"}
        self.partial = ""
        self.reading.begin()
        whole: Any = None
        started, first = time.monotonic(), 0.0
        with contextlib.closing(model.stream([*self.before, *self.messages], **options)) as chunks:
            for chunk in chunks:
                first = first or time.monotonic()
                whole = chunk if whole is None else whole + chunk
                self.partial += str(chunk.text)
                self.asks_model = False
                yield chunk
        message: Any = message_chunk_to_message(whole)
        read = self.reading.finished or first
        self.messages.append(message)
        self.costs.append(_cost(message, read - started, time.monotonic() - read))
        self.partial = ""
        answer: AIMessage = message
        return answer


def _cost(message: AIMessage, wait: float, writing: float) -> Cost:
    usage: Any = message.usage_metadata or {}
    return Cost(
        read=usage.get("input_tokens", 0),
        reused=usage.get("input_token_details", {}).get("cache_read", 0),
        written=usage.get("output_tokens", 0),
        trips=message.response_metadata.get("token_usage", {}).get("trips", 0),
        answers=1,
        wait=wait,
        writing=writing,
    )
