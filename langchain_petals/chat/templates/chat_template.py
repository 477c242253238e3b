"""Renders a conversation with a chat template.

The template runs in the same Jinja environment as with transformers, but within limits (see `sandbox`). Texts from
outside cannot act as the template's own markers (see `sanitizing`). If a template does not support a part of a
conversation (see `capabilities`), the conversation is reshaped first (see `adaptation`).
"""

from __future__ import annotations

import re
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import jinja2

from langchain_petals.chat.templates import adaptation
from langchain_petals.chat.templates.adaptation import TextsBeforeCalls
from langchain_petals.chat.templates.capabilities import TemplateCapabilities, probe_turns
from langchain_petals.chat.templates.meter import TemplateLimitError
from langchain_petals.chat.templates.sandbox import SandboxedTemplate
from langchain_petals.chat.templates.sanitizing import Markers, Sanitizer, markers_around, markers_in
from langchain_petals.chat.tools import HERMES
from langchain_petals.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from langchain_petals.chat.messages import Turn
    from langchain_petals.chat.templates.adaptation import WriteCalls
    from langchain_petals.chat.templates.segments import Segment


class ChatTemplate:
    """A compiled chat template.

    Args:
        source: Jinja source, as in the `chat_template` of a tokenizer.
        special_tokens: Variables of the template: `bos_token`, `eos_token` and so on.
        name: Its name in errors.
        token_markers: Texts that the tokenizer turns into single tokens. Messages cannot produce these tokens. The
            default is the special tokens.
        tool_source: Jinja source to use instead when there are tools.

    Raises:
        InvalidRequestError: The source is no chat template.

    Example:
        >>> from langchain_petals.chat.templates import ChatTemplate
        >>> template = ChatTemplate("{% for m in messages %}<{{ m.role }}> {{ m.content }}{{ eos_token }}{% endfor %}",
        ...                         special_tokens={"eos_token": "</s>"})
        >>> template.render([{"role": "user", "content": "What does </s> mean?"}])
        [Segment(text='<user> What does ', trusted=True), Segment(text='</s>', trusted=False),
         Segment(text=' mean?</s>', trusted=True)]
    """

    def __init__(
        self,
        source: str,
        *,
        special_tokens: Mapping[str, Any] | None = None,
        name: str | None = None,
        token_markers: Collection[str] | None = None,
        tool_source: str | None = None,
    ) -> None:
        self.source = source
        self.tool_source = source if tool_source is None else tool_source
        self._title = f"The chat template {name!r}" if name else "The chat template"
        self._special_tokens = dict(special_tokens or {})
        if token_markers is None:
            token_markers = [token for token in self._special_tokens.values() if isinstance(token, str)]
        self._token_markers = token_markers
        self._with_tools: ChatTemplate | None = None
        if tool_source is not None:
            self._with_tools = ChatTemplate(
                tool_source, special_tokens=special_tokens, name=name, token_markers=token_markers
            )
        self.capabilities = TemplateCapabilities(self._probe)
        try:
            self._template = SandboxedTemplate(source)
        except jinja2.TemplateError as error:
            msg = f"{self._title} is not valid: {error}"
            raise InvalidRequestError(msg) from error

    @cached_property
    def _markers(self) -> Markers:
        written = markers_in(self.source)
        for roles in (("user", "assistant", "user"), ("system", "user", "assistant", "user")):
            written |= markers_around(self._probe(probe_turns(roles)) or "", "probe-")
        return Markers(self._token_markers, written)

    @cached_property
    def takes_tools(self) -> bool:
        """Whether the template presents tools to the model."""
        return self._with_tools is not None or "tools" in self._template.variables

    @cached_property
    def end_of_answer(self) -> str:
        """The text that ends an answer in a prompt: a token, or the beginning of the next line; "" if there is none."""
        rendered = self._probe(probe_turns(["user", "assistant", "user"])) or ""
        between = rendered.partition("probe-1")[2].partition("probe-2")[0].rstrip()
        if marker := self._markers.at_start(between.lstrip()):
            return marker
        return "\n" + between.lstrip() if between[:1] == "\n" else between

    @cached_property
    def closing(self) -> str:
        """The text that the template writes after the last message, if that is an answer and there are tools."""
        if self._with_tools is not None:
            return self._with_tools.closing
        return (self._probe(probe_turns(["user", "assistant"])) or "").partition("probe-1")[2]

    def _probe(self, turns: Sequence[Turn]) -> str | None:
        """Return a rendered conversation of probe texts; None if the template refuses it."""
        try:
            return self._run(turns, tools=None, add_generation_prompt=False)
        except jinja2.TemplateError:
            return None

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        escape_special_tokens: bool = True,
        write_calls: WriteCalls = HERMES.render,
        rewrite_calls: bool = False,
        write_tools: Callable[[Sequence[Any]], str] | None = None,
        **extra: Any,
    ) -> list[Segment]:
        """Return the prompt of a conversation; its text is that of all segments.

        Args:
            messages: Dictionaries with `role` and `content`, and perhaps `name`, `tool_calls`, `tool_call_id`,
                `reasoning_content`.
            tools: Function schemas in OpenAI's format.
            add_generation_prompt: End with the text that precedes an answer.
            escape_special_tokens: Treat markers and special tokens in messages, tools and documents as ordinary text.
                Otherwise a message can end its turn and write turns of others.
            write_calls: Writes earlier tool calls as JSON if the template does not. Markers around the JSON act as
                markers.
            rewrite_calls: Use `write_calls` even if the template writes calls, because the model writes them otherwise.
            write_tools: Describes tools as JSON in the system message if the template does not; None raises then.
            extra: Further variables of the template, such as `enable_thinking` or `documents`.

        Raises:
            InvalidRequestError: A message has no role or one that the template does not know; nothing presents the
                tools; the template refuses the conversation, fails, or uses more time or memory than a prompt needs.
        """
        if tools and self._with_tools is not None:
            return self._with_tools.render(
                messages,
                tools=tools,
                add_generation_prompt=add_generation_prompt,
                escape_special_tokens=escape_special_tokens,
                write_calls=write_calls,
                rewrite_calls=rewrite_calls,
                write_tools=write_tools,
                **extra,
            )
        if tools and not self.takes_tools and write_tools is None:
            msg = f"{self._title} presents no tools. Describe them in the system message, or give another template."
            raise InvalidRequestError(msg)
        turns = self._with_known_speakers([_turn(message) for message in messages])
        writes_tools = bool(tools) and not self.takes_tools
        sanitizer = Sanitizer(self._markers, [self.source, turns, tools, extra])
        texts = None if rewrite_calls else self._texts_before_calls(write_calls, sanitizer.free)
        writes_calls = partial(self._writes_calls, rewrite=rewrite_calls, keeps_text=texts is not None)
        if escape_special_tokens:
            turns = [sanitizer.turn(turn, calls_as_json=writes_calls(turn)) for turn in turns]
            tools = sanitizer.protect(tools, as_json=writes_tools)
            if "documents" in extra:
                extra["documents"] = sanitizer.protect(extra["documents"])
        if tools and writes_tools and write_tools is not None:
            turns, tools = adaptation.with_system_section(turns, write_tools(tools)), None
        turns = self._adapted(turns, write_calls, writes_calls, texts, with_tools=bool(tools))
        try:
            text = self._run(turns, tools=tools or None, add_generation_prompt=add_generation_prompt, **extra)
        except jinja2.TemplateError as error:
            self._refuse_roles(turns, lambda role: not self.capabilities.shows_role(role))
            msg = f"{self._title} does not render this conversation: {error}"
            raise InvalidRequestError(msg) from error
        return sanitizer.release(texts.put_back(text) if texts else text)

    def _with_known_speakers(self, turns: list[Turn]) -> list[Turn]:
        """Refuse unknown roles; return a conversation in which the template shows the names of speakers."""
        self._refuse_roles(turns, self.capabilities.drops_role)
        if any(turn.get("name") for turn in turns) and not self.capabilities.shows_names:
            turns = adaptation.with_names(turns)
        return adaptation.with_named_results(turns)

    def _refuse_roles(self, turns: Sequence[Turn], is_unknown: Callable[[str], bool]) -> None:
        for role in {turn["role"] for turn in turns}.difference(("system", "user", "assistant", "tool")):
            if is_unknown(role):
                roles = "'system', 'user', 'assistant' or 'tool'"
                msg = f"{self._title} does not know the role {role!r} of a message; give {roles}."
                raise InvalidRequestError(msg)

    def _texts_before_calls(self, write_calls: WriteCalls, placeholders: Iterable[str]) -> TextsBeforeCalls | None:
        """Return `TextsBeforeCalls` if it is needed, and the template begins calls as the model does; else None."""
        capabilities = self.capabilities
        if not capabilities.drops_text_beside_calls or capabilities.shows_results_of_written_calls:
            return None
        beginning = capabilities.beginning_of_calls
        of_model = write_calls([{"name": "|", "args": {}}], "").partition("|")[0]
        if beginning is None or "".join(beginning.split()) != "".join(of_model.split()):
            return None
        return TextsBeforeCalls(write_calls, beginning, placeholders)

    def _writes_calls(self, turn: Turn, *, rewrite: bool, keeps_text: bool) -> bool:
        """Return whether a message's calls must go into its content, as the template would drop them or its text.

        With `rewrite` they always must. With `keeps_text`, `TextsBeforeCalls` keeps the text.
        """
        if not turn.get("tool_calls"):
            return False
        if rewrite or not self.capabilities.shows_calls:
            return True
        return bool(turn["content"].strip()) and self.capabilities.drops_text_beside_calls and not keeps_text

    def _adapted(
        self,
        turns: list[Turn],
        write_calls: WriteCalls,
        writes_calls: Callable[[Turn], bool],
        texts: TextsBeforeCalls | None,
        *,
        with_tools: bool,
    ) -> list[Turn]:
        """Return a conversation reshaped to one that the template renders.

        It is sanitized already, so texts that are added here may be markers of the template. But two parts of the
        conversation must not form a marker when they are joined: line breaks separate them, or they are JSON.
        """
        capabilities = self.capabilities
        if any(turn.get("tool_calls") for turn in turns):
            if capabilities.demands_alternation and capabilities.drops_text_beside_calls:
                turns = adaptation.alternating(turns)  # first, since joining adds a neighbour's text to a call
            turns = texts.take(turns) if texts else turns
            turns = adaptation.with_written_calls(
                turns,
                write_calls,
                where=writes_calls,
                results_of_users=not capabilities.shows_results_of_written_calls,
            )
        roles = [turn["role"] for turn in turns]
        calls = [len(turn.get("tool_calls") or ()) for turn in turns]
        if max(calls, default=0) > 1 and not capabilities.shows_several_calls:
            turns = adaptation.with_single_calls(turns)
        if (any(calls) or "tool" in roles) and capabilities.refuses_other_ids:
            turns = adaptation.with_short_ids(turns)
        if "tool" in roles and not capabilities.shows_results:
            turns = [adaptation.result_of_user(turn) if turn["role"] == "tool" else turn for turn in turns]
        # with tools, already in the first prompt, so that later prompts begin with the same tokens
        loses_system = capabilities.drops_system_behind_calls and (with_tools or any(calls) or "tool" in roles)
        if "system" in roles and (
            capabilities.refuses_system
            or loses_system
            or (set(roles) == {"system"} and not capabilities.takes_system_alone)
        ):
            turns = adaptation.with_folded_system(turns, keep_first=False)
        elif "system" in roles[1:] and not capabilities.takes_system_anywhere:
            turns = adaptation.with_folded_system(turns, keep_first=True)
        return adaptation.alternating(turns) if capabilities.demands_alternation else turns

    def _run(self, turns: Sequence[Turn], **variables: Any) -> str:
        everything = {"documents": None, **self._special_tokens, "messages": list(turns), **variables}
        try:
            return self._template.render(everything)
        except TemplateLimitError as error:  # also ends a probe
            msg = f"{self._title} is refused: {error}"
            raise InvalidRequestError(msg) from error


def _turn(message: Mapping[str, Any]) -> Turn:
    role = message.get("role")
    if not isinstance(role, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", role):
        msg = f"A message has the role {role!r}; give 'system', 'user', 'assistant', 'tool' or another word."
        raise InvalidRequestError(msg)
    return {**message, "content": message.get("content") or ""}
