"""Makes LangChain's messages from the engine's pieces: chunks for a stream, and whole messages."""

from __future__ import annotations

import json
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from langchain_core.messages import AIMessage, AIMessageChunk, InvalidToolCall, ToolCall, ToolCallChunk
from langchain_core.messages.ai import InputTokenDetails
from langchain_core.messages.tool import invalid_tool_call, tool_call, tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk

from langchain_petals.calls import token_usage
from langchain_petals.chat.tools import BEYOND_REPAIR, BrokenCall, CallPart, TextPart
from langchain_petals.pieces import CUT_SHORT

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

    from langchain_core.messages.ai import OutputTokenDetails, UsageMetadata

    from langchain_petals.chat.reasoning import ReasoningSplitter
    from langchain_petals.chat.tools import Part, ToolCallParser
    from langchain_petals.pieces import Piece, Pieces


@dataclass
class _Content:
    """The content that one piece, or all pieces together, add to a message."""

    text: str = ""
    reasoning: str = ""
    calls: dict[int, CallPart] = field(default_factory=dict)
    broken: list[BrokenCall] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.text or self.reasoning or self.calls or self.broken or self.logprobs)

    def add(self, part: Part) -> None:
        if isinstance(part, TextPart):
            self.text += part.text
        elif isinstance(part, BrokenCall):
            self.broken.append(part)
        elif (call := self.calls.get(part.index)) is None:
            self.calls[part.index] = part
        else:
            arguments = call.arguments + part.arguments
            self.calls[part.index] = CallPart(part.index, call.id, call.name or part.name, arguments)

    def extend(self, other: _Content) -> None:
        self.text += other.text
        self.reasoning += other.reasoning
        self.logprobs += other.logprobs
        self.broken += other.broken
        for part in other.calls.values():
            self.add(part)

    @property
    def additional_kwargs(self) -> dict[str, Any]:
        return {"reasoning_content": self.reasoning} if self.reasoning else {}

    @property
    def metadata(self) -> dict[str, Any]:
        return {"logprobs": {"content": self.logprobs}} if self.logprobs else {}

    def call_chunks(self, begun: Container[int], *, negative: bool = False) -> list[ToolCallChunk]:
        """Return the chunks of calls; `begun` holds the indices of calls that already have chunks.

        `negative` makes the indices negative. A broken call gets an end that LangChain cannot parse either.
        """
        parts = dict(self.calls)
        for each in self.broken:
            part = parts.get(each.index, CallPart(each.index))
            rest = BEYOND_REPAIR if each.index in begun else each.text
            if each.readable:
                rest += f" {each.error}"
            parts[each.index] = replace(part, arguments=part.arguments + rest)
        return [
            tool_call_chunk(
                name=part.name, args=part.arguments, id=part.id, index=-1 - part.index if negative else part.index
            )
            for part in parts.values()
        ]

    @property
    def whole_calls(self) -> list[ToolCall]:
        broken = {part.index for part in self.broken}
        return [
            tool_call(name=part.name or "", args=json.loads(part.arguments or "{}"), id=part.id)
            for part in self.calls.values()
            if part.index not in broken
        ]

    @property
    def broken_calls(self) -> list[InvalidToolCall]:
        """The broken calls of a whole message, each with its error, and with its arguments if they are readable."""
        found = {part.index: part for part in self.broken}
        return [
            invalid_tool_call(
                name=chunk["name"],
                args=self.calls[part.index].arguments if part.readable else chunk["args"],
                id=chunk["id"],
                error=part.error,
            )
            for chunk in self.call_chunks(self.calls)
            if (part := found.get(chunk["index"] or 0)) is not None
        ]


@dataclass(eq=False)
class ChatResponse:
    """Makes messages from the pieces of one generation.

    Args:
        generation: The source of the pieces.
        model_name: The model's name, for the response's metadata.
        splitter: Separates reasoning from the answer; None where a grammar leaves no room for reasoning.
        parser: Separates tool calls from the text; None if no tool can be called.
        token_text: Returns the text of a token id, for log-probabilities.
        counts_prompt: Whether the usage includes the prompt's tokens; of several answers, only the first one's does.
        numbers_blocks: Whether LangChain numbers the blocks of the stream (`output_version="v1"`), from 0 on. Calls
            get negative numbers then, or LangChain would join them with the text.
        remember: Called before the last chunk with the model's whole text, its tokens and the whole message.
        problem_of: Returns how the text of an answer without calls breaks its schema; None if it does not.
        reports_problem: Whether the message and a warning report a problem of the text; False if a parser reports it.

    Attributes:
        finish_reason: Why the answer ended; None before the end.
        problem: How the answer's text breaks its schema; None if no problem is known.
    """

    generation: Pieces
    _: KW_ONLY
    model_name: str
    splitter: ReasoningSplitter | None
    parser: ToolCallParser | None
    token_text: Callable[[int], str]
    counts_prompt: bool
    numbers_blocks: bool
    remember: Callable[[str, Sequence[int], AIMessage], object]
    problem_of: Callable[[str], str | None] = lambda _: None
    reports_problem: bool = False

    def __post_init__(self) -> None:
        self.problem: str | None = None
        self.finish_reason: str | None = None
        self._whole = _Content()
        self._written: list[str] = []
        self._tokens: list[int] = []
        self._reasoning_tokens = 0

    def add(self, piece: Piece) -> ChatGenerationChunk | None:
        """Take a piece; return the chunk that it adds to the message, if any."""
        self._written.append(piece.text)
        self._tokens += piece.tokens
        content = self._content(piece)
        self._whole.extend(content)
        if piece.finish_reason is None:
            return self._chunk(content, last=False) if content else None
        # "length" stays even if there are calls: a call that the token limit cut short is valid JSON, too
        called = piece.finish_reason == "stop" and self._whole.whole_calls
        self.finish_reason = "tool_calls" if called else piece.finish_reason
        if self.reports_problem and not self.calls:
            self.problem = self.problem_of(self._whole.text)
        self.remember("".join(self._written), self._tokens, self._message())
        return self._chunk(content, last=True)

    def _content(self, piece: Piece) -> _Content:
        over = piece.finish_reason is not None
        content, text = _Content(), piece.text
        if self.splitter is not None:
            was_inside = self.splitter.inside
            content.reasoning, text = self.splitter.add(piece.text)
            if was_inside or self.splitter.inside:
                self._reasoning_tokens += len(piece.tokens)
            if over:
                reasoning, rest = self.splitter.flush()
                content.reasoning, text = content.reasoning + reasoning, text + rest
        if self.parser is None:
            content.text = text
        else:
            for part in (*self.parser.feed(text, cut=piece.cut), *(self.parser.close() if over else ())):
                content.add(part)
        if piece.logprobs is not None:
            content.logprobs = [piece.logprobs.openai_format(self.token_text)]
        return content

    def _chunk(self, content: _Content, *, last: bool) -> ChatGenerationChunk:
        message = AIMessageChunk(
            content=content.text,
            additional_kwargs=content.additional_kwargs,
            tool_call_chunks=content.call_chunks(self._whole.calls, negative=self.numbers_blocks),
            response_metadata=content.metadata | (self._metadata if last else {}),
            usage_metadata=self.usage if last else None,
            chunk_position="last" if last else None,
        )
        return ChatGenerationChunk(message=message)

    @property
    def token_usage(self) -> dict[str, int]:
        """What the answer cost, in tokens and trips."""
        return token_usage(self.generation, len(self._tokens), counts_prompt=self.counts_prompt)

    @property
    def usage(self) -> UsageMetadata:
        """Numbers of tokens read and written; of these, the tokens that LangChain and this package set apart."""
        cost = self.token_usage
        details = {
            "reasoning": self._reasoning_tokens,
            "forced": cost["forced_tokens"],
            "accepted": cost["accepted_tokens"],
        }
        return {
            "input_tokens": cost["prompt_tokens"],
            "output_tokens": cost["completion_tokens"],
            "total_tokens": cost["total_tokens"],
            "input_token_details": InputTokenDetails(cache_read=cost["cached_tokens"]),
            # LangChain allows further keys, but the type cannot say so
            "output_token_details": cast(
                "OutputTokenDetails", {name: count for name, count in details.items() if count}
            ),
        }

    @property
    def calls(self) -> bool:
        """Whether the answer contains tool calls, valid or broken."""
        return bool(self._whole.calls or self._whole.broken)

    @property
    def warnings(self) -> list[str]:
        """The problems of a constrained text; none before its end."""
        if not self.reports_problem or self.calls or self.finish_reason is None:
            return []
        broken = [] if self.problem is None else [f"An answer breaks its schema: {self.problem}"]
        return [*broken, CUT_SHORT] if self.finish_reason == "length" else broken

    @property
    def _metadata(self) -> dict[str, Any]:
        metadata: dict[str, Any] = {
            "finish_reason": self.finish_reason,
            "model_name": self.model_name,
            "model_provider": "petals",
            "token_usage": self.token_usage,
        }
        return metadata if self.problem is None else metadata | {"schema_error": self.problem}

    def result(self) -> ChatGeneration:
        """Return the whole message; all pieces must have been added."""
        return ChatGeneration(message=self._message(), generation_info={"finish_reason": self.finish_reason})

    def _message(self) -> AIMessage:
        whole = self._whole
        return AIMessage(
            whole.text,
            additional_kwargs=whole.additional_kwargs,
            tool_calls=whole.whole_calls,
            invalid_tool_calls=whole.broken_calls,
            response_metadata=whole.metadata | self._metadata,
            usage_metadata=self.usage,
        )
