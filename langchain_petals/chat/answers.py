"""What the engine says, as LangChain's messages: chunk by chunk, and whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk

from langchain_petals.logprobs import described

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from langchain_core.messages.ai import UsageMetadata

    from langchain_petals.chat.reasoning import ReasoningSplitter
    from langchain_petals.engine.generation import Generation, Piece

PROVIDER = "petals"


@dataclass
class _Collected:
    """The parts of a message so far."""

    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)


class ChatAnswer:
    """Makes messages of one generation's pieces.

    Args:
        generation: Where the pieces come from.
        model_name: The model's name, for the response's metadata.
        splitter: Tells reasoning from the answer.
        token_text: Gives the text of a token id, for log-probabilities.
        counts_prompt: Whether the prompt's tokens are part of this answer's usage; of several answers to one prompt,
            they are of the first.
        remember: Called with all that the model wrote and its tokens, before the last chunk is out.
    """

    def __init__(
        self,
        generation: Generation,
        *,
        model_name: str,
        splitter: ReasoningSplitter,
        token_text: Callable[[int], str],
        counts_prompt: bool,
        remember: Callable[[str, Sequence[int]], object],
    ) -> None:
        self.generation = generation
        self._model_name, self._splitter, self._token_text = model_name, splitter, token_text
        self._counts_prompt, self._remember = counts_prompt, remember
        self._whole = _Collected()
        self._written: list[str] = []
        self._tokens: list[int] = []
        self._reasoning_tokens = 0
        self._finish_reason: str | None = None

    def add(self, piece: Piece) -> ChatGenerationChunk | None:
        """Take a piece; return what it adds to the message, if anything."""
        self._written.append(piece.text)
        self._tokens += piece.tokens
        self._finish_reason = piece.finish_reason
        inside = self._splitter.inside
        reasoning, text = self._splitter.add(piece.text)
        if piece.finish_reason is not None:
            rest_of_reasoning, rest_of_text = self._splitter.flush()
            reasoning, text = reasoning + rest_of_reasoning, text + rest_of_text
        if inside or self._splitter.inside:
            self._reasoning_tokens += len(piece.tokens)
        metadata: dict[str, Any] = {}
        if piece.logprobs is not None:
            metadata["logprobs"] = {"content": [described(piece.logprobs, self._token_text)]}
            self._whole.logprobs += metadata["logprobs"]["content"]
        if text:
            self._whole.text.append(text)
        if reasoning:
            self._whole.reasoning.append(reasoning)
        if piece.finish_reason is not None:
            self._remember("".join(self._written), self._tokens)
            return self._chunk(text, reasoning, metadata | self._metadata, self.usage)
        return self._chunk(text, reasoning, metadata) if text or reasoning or metadata else None

    def _chunk(
        self, text: str, reasoning: str, metadata: dict[str, Any], usage: UsageMetadata | None = None
    ) -> ChatGenerationChunk:
        message = AIMessageChunk(
            content=text,
            additional_kwargs={"reasoning_content": reasoning} if reasoning else {},
            response_metadata=metadata,
            usage_metadata=usage,
            chunk_position="last" if usage else None,
        )
        return ChatGenerationChunk(message=message)

    @property
    def usage(self) -> UsageMetadata:
        """Tokens read, written, and reused from an idle session."""
        read = len(self.generation.request.prompt_ids) if self._counts_prompt else 0
        thought = self._reasoning_tokens
        return {
            "input_tokens": read,
            "output_tokens": len(self._tokens),
            "total_tokens": read + len(self._tokens),
            "input_token_details": InputTokenDetails(cache_read=min(self.generation.reused_tokens, read)),
            "output_token_details": OutputTokenDetails(reasoning=thought) if thought else OutputTokenDetails(),
        }

    @property
    def _metadata(self) -> dict[str, Any]:
        return {
            "finish_reason": self._finish_reason,
            "model_name": self._model_name,
            "model_provider": PROVIDER,
        }

    def result(self) -> ChatGeneration:
        """Return the whole message; all pieces must have been added."""
        whole = self._whole
        logprobs = {"logprobs": {"content": whole.logprobs}} if whole.logprobs else {}
        reasoning = "".join(whole.reasoning)
        message = AIMessage(
            "".join(whole.text),
            additional_kwargs={"reasoning_content": reasoning} if reasoning else {},
            response_metadata=logprobs | self._metadata,
            usage_metadata=self.usage,
        )
        return ChatGeneration(message=message, generation_info={"finish_reason": self._finish_reason})
