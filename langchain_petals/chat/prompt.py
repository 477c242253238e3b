"""Makes the token ids of prompts for one model, with its template, its tool format and its token history."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langchain_petals.chat.messages import turns_from_messages
from langchain_petals.chat.reasoning import START
from langchain_petals.chat.templates import find_template, join_segments
from langchain_petals.chat.token_history import after_prompt
from langchain_petals.chat.tools import find_format
from langchain_petals.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from langchain_core.messages import AIMessage, BaseMessage

    from langchain_petals.chat.messages import Turn
    from langchain_petals.chat.response_format import ResponseFormat
    from langchain_petals.chat.templates import Segment
    from langchain_petals.chat.token_history import TokenHistory
    from langchain_petals.tokenizer import Tokenizer


@dataclass(frozen=True)
class Prompt:
    """A conversation, ready to be answered.

    Attributes:
        rendered: The rendered text.
        ids: Its token ids; they begin with as many tokens of earlier prompts and answers as possible.
        render_with: Renders the conversation with an answer after it.
    """

    rendered: Sequence[Segment]
    ids: list[int]
    render_with: Callable[[Sequence[Turn]], Sequence[Segment]]

    @property
    def thinking(self) -> bool:
        """Whether the prompt ends inside the model's reasoning."""
        return self.rendered[-1].text.rstrip().endswith(START)


class PromptBuilder:
    """Makes the prompts of one model.

    Args:
        tokenizer: The model's tokenizer.
        end_tokens: Ids that end a generation.
        history: The tokens of the model's recent answers.
        model_name: The model's name on the hub, for the choice of a built-in template.
        family: `model_type` of its config, for the same choice; None if unknown.
        chat_template: A Jinja template, or the name of a built-in one; None for the model's own.
        tool_format: The name of the format in which the model writes tool calls; None derives it from the template.

    Attributes:
        tool_format: The format in which the model writes tool calls.
        end_tokens: The token with which the template ends an answer; empty if it does not use a token.
        stop: The text with which the template ends an answer; empty if it uses a token, or nothing.

    Raises:
        InvalidRequestError: There is no such template or format.
        MissingChatTemplateError: No template was given, and there is none for this model.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        end_tokens: Sequence[int],
        history: TokenHistory,
        *,
        model_name: str,
        family: str | None,
        chat_template: str | None,
        tool_format: str | None,
    ) -> None:
        self._tokenizer, self._models_end_tokens, self._history = tokenizer, end_tokens, history
        self._template = find_template(chat_template, tokenizer, model_name, family)
        end = self._template.end_of_answer
        token = tokenizer.get_added_vocab().get(end)
        self.end_tokens: tuple[int, ...] = () if token is None else (token,)
        self.stop: tuple[str, ...] = (end,) if end and token is None else ()
        self.tool_format = find_format(tool_format, self._template.tool_source)
        self._templates_format = find_format(None, self._template.tool_source)

    def make(
        self,
        messages: Sequence[BaseMessage],
        response_format: ResponseFormat,
        variables: Mapping[str, Any],
        *,
        allow_special_tokens: bool,
    ) -> Prompt:
        """Return the prompt of a conversation.

        Args:
            messages: The conversation; at least one message.
            response_format: The format of the answer.
            variables: Further variables of the template.
            allow_special_tokens: Whether special tokens inside a message act as such.

        Raises:
            InvalidRequestError: There is no message, one holds something other than text, or the template refuses them.
        """
        call_format, takes_tools = response_format.call_format(self.tool_format), self._template.takes_tools

        def render(conversation: Sequence[Turn], **more: Any) -> Sequence[Segment]:
            return self._template.render(
                conversation,
                tools=response_format.tools,
                escape_special_tokens=not allow_special_tokens,
                write_calls=call_format.render,
                rewrite_calls=call_format.instructions != self._templates_format.instructions,
                write_tools=call_format.system_prompt,
                **{**variables, **more},
            )

        turns = turns_from_messages(messages)
        instructed = response_format.with_instructions(turns, self.tool_format, template_takes_tools=takes_tools)
        rendered = render(instructed)
        ids = self._history.encode(rendered, self._tokenizer)
        return Prompt(rendered, ids, lambda answer: render([*instructed, *answer], add_generation_prompt=False))

    def remember(self, prompt: Prompt, text: str, tokens: Sequence[int], message: AIMessage) -> None:
        """Record an answer, since a later prompt may begin with its tokens.

        Args:
            prompt: The prompt.
            text: The whole text that the model wrote.
            tokens: The tokens of the text, with the one that ended it.
            message: The message that was made of the text.
        """
        said = tokens[:-1] if tokens[-1] in {*self._models_end_tokens, *self.end_tokens} else tokens
        # not if a stop sequence cut the text, or if it lacks a special token: no later prompt contains these tokens
        if self._tokenizer.decode(said, clean_up_tokenization_spaces=False).strip() == text.strip():
            respelled = self._respelled(prompt, message) if message.tool_calls else ""
            self._history.remember(prompt.rendered, prompt.ids, text, said, respelled=respelled)

    def _respelled(self, prompt: Prompt, message: AIMessage) -> str:
        """Return the text that a later prompt has for an answer with calls; empty if unknown, or without the reasoning.

        It may differ from the model's text, since a message holds parsed calls: 12.50 becomes 12.5, an identifier is
        added, or keys change their order.
        """
        turns = turns_from_messages([message])
        try:
            rendered = prompt.render_with(turns)
        except InvalidRequestError:  # for instance, the template demands the results at once
            return ""
        text = "".join(
            segment.text for segment in after_prompt(join_segments(rendered), join_segments(prompt.rendered))
        )
        end = self._template.closing
        if not text.endswith(end):
            return ""
        text = text.removesuffix(end)
        beginning = text.lstrip().removeprefix(START).lstrip()
        # a template may drop reasoning from later prompts; its tokens must not come back then
        return text if all(beginning.startswith(turn.get("reasoning_content", "").strip()) for turn in turns) else ""
