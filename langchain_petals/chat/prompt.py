"""From a conversation to token ids, as one model wants it: its template, its tool calls, its token history."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langchain_petals.chat.messages import turns as turns_of
from langchain_petals.chat.reasoning import START
from langchain_petals.chat.templates import find_template, join_segments
from langchain_petals.chat.token_history import after_prompt
from langchain_petals.chat.tools import find_format
from langchain_petals.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from langchain_core.messages import AIMessage

    from langchain_petals.chat.response_format import ResponseFormat
    from langchain_petals.chat.templates import Segment
    from langchain_petals.chat.token_history import TokenHistory
    from langchain_petals.chat.turns import Turn


@dataclass(frozen=True)
class Prompt:
    """A conversation, ready to be answered.

    Attributes:
        rendered: Its text, and what of it may hold special tokens.
        ids: Its token ids, as many as possible of them those that the servers have seen.
        go_on: Renders the conversation with an answer behind it.
    """

    rendered: Sequence[Segment]
    ids: list[int]
    go_on: Callable[[Sequence[Turn]], Sequence[Segment]]

    @property
    def thinking(self) -> bool:
        """Whether it ends inside the model's reasoning."""
        return self.rendered[-1].text.rstrip().endswith(START)


class PromptBuilder:
    """Makes the prompts of one model.

    Args:
        tokenizer: The model's tokenizer.
        end_tokens: Ids that end a generation.
        history: The tokens of its recent answers.
        model_name: The model's name on the hub, which may tell the template.
        family: `model_type` of its config, which may, too; None if unknown.
        chat_template: A Jinja template, or the name of a built-in one; None for the model's own.
        tool_format: The name of the model's way to write tool calls; None finds out.

    Raises:
        InvalidRequestError: There is no such template or format.
        MissingChatTemplateError: None was given, and there is none for this model.
    """

    def __init__(
        self,
        tokenizer: Any,
        end_tokens: Sequence[int],
        history: TokenHistory,
        *,
        model_name: str,
        family: str | None,
        chat_template: str | None,
        tool_format: str | None,
    ) -> None:
        self._tokenizer, self._end_tokens, self._history = tokenizer, end_tokens, history
        self._template = find_template(chat_template, tokenizer, model_name, family)
        self.tool_format = find_format(tool_format, self._template.tool_source)
        self._templates_format = find_format(None, self._template.tool_source)

    @property
    def end_token(self) -> int | None:
        """The token with which the template ends an answer; None if it ends it with text."""
        token: int | None = self._tokenizer.get_added_vocab().get(self._template.end_of_answer)
        return token

    @property
    def end_text(self) -> str | None:
        """The text that comes after an answer in the template; None if that is a token, or nothing."""
        return (self._template.end_of_answer or None) if self.end_token is None else None

    def make(
        self, turns: Sequence[Turn], form: ResponseFormat, variables: Mapping[str, Any], *, allow_special_tokens: bool
    ) -> Prompt:
        """Return the prompt of a conversation.

        Args:
            turns: The conversation.
            form: What the answer shall be.
            variables: Further variables of the template.
            allow_special_tokens: Whether special tokens inside a message act as such.

        Raises:
            InvalidRequestError: The template does not render it.
        """
        wire, takes_tools = form.wire(self.tool_format), self._template.takes_tools

        def render(conversation: Sequence[Turn], **more: Any) -> Sequence[Segment]:
            return self._template.render(
                conversation,
                tools=form.tools,
                escape_special_tokens=not allow_special_tokens,
                write_calls=wire.render,
                rewrite_calls=wire.instructions != self._templates_format.instructions,
                write_tools=wire.system_prompt,
                **{**variables, **more},
            )

        introduced = form.introduced(turns, self.tool_format, template_takes_tools=takes_tools)
        rendered = render(introduced)
        ids = self._history.encode(rendered, self._tokenizer)
        return Prompt(rendered, ids, lambda answer: render([*introduced, *answer], add_generation_prompt=False))

    def remember(self, prompt: Prompt, text: str, tokens: Sequence[int], message: AIMessage) -> None:
        """Take notice of an answer, whose tokens a later prompt may begin with.

        Args:
            prompt: What was answered.
            text: All that the model wrote.
            tokens: The tokens of that, the one that ended it included.
            message: What was made of it.
        """
        said = tokens[:-1] if tokens[-1] in {*self._end_tokens, self.end_token} else tokens
        # what a stop sequence cut off, and a special token that the text does not show, cannot be in a prompt
        if self._tokenizer.decode(said, clean_up_tokenization_spaces=False).strip() == text.strip():
            retold = self._retold(prompt, message) if message.tool_calls else ""
            self._history.remember(prompt.rendered, prompt.ids, text, said, retold=retold)

    def _retold(self, prompt: Prompt, message: AIMessage) -> str:
        """Return how a later prompt will write an answer that makes calls; empty if that cannot be told, or tells less.

        A message holds what was called and not how that was spelled: the model may write 12.50, a call without an
        identifier or its keys in another order than the template does.
        """
        turns = turns_of([message])
        try:
            rendered = prompt.go_on(turns)
        except InvalidRequestError:  # the template wants the results at once, say
            return ""
        told = "".join(
            segment.text for segment in after_prompt(join_segments(rendered), join_segments(prompt.rendered))
        )
        end = self._template.closing
        if not told.endswith(end):
            return ""
        told = told.removesuffix(end)
        begun = told.lstrip().removeprefix(START).lstrip()
        # where the template keeps reasoning out of later prompts, its tokens may not come back
        return told if all(begun.startswith(turn.get("reasoning_content", "").strip()) for turn in turns) else ""
