"""Chat templates: which one a model has, and a conversation as the prompt that it makes.

`find_template` picks a template: the one that was asked for, the tokenizer's own, or a built-in one for the models that
ship none. `ChatTemplate.render` gives the prompt, in the same Jinja environment as transformers (but within limits, see
`template_sandbox`), with everything that came from outside kept from posing as the template's own marks (see
`untrusted`), and conversations reshaped (see `turn_folding`) where a template knows less than they hold (see
`template_traits`). `encode` gives its token ids.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING, Any

import jinja2

from langchain_petals.chat.templates import adaptation as turn_folding
from langchain_petals.chat.templates import builtin as builtin_templates
from langchain_petals.chat.templates.capabilities import TemplateCapabilities, probe_turns
from langchain_petals.chat.templates.meter import TemplateLimitError
from langchain_petals.chat.templates.sandbox import SandboxedTemplate
from langchain_petals.chat.templates.sanitizing import Markers, Sanitizer, is_tag, marks_around, marks_in
from langchain_petals.chat.templates.segments import Segment, encode
from langchain_petals.chat.templates.text_before_calls import TextsBeforeCalls
from langchain_petals.chat.tools import HERMES
from langchain_petals.errors import InvalidRequestError, MissingChatTemplateError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from langchain_petals.chat.templates.adaptation import Turn, WriteCalls
    from langchain_petals.tokenizer import Tokenizer

__all__ = ["ChatTemplate", "Rendered", "Segment", "encode", "find_template"]

Rendered = list[Segment]
"""A prompt; its text is the texts of the segments, joined."""

WriteTools = Callable[[Sequence[Any]], str]

_ROLE = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_COMMON_ROLES = ("system", "user", "assistant", "tool")


class ChatTemplate:
    """A compiled chat template.

    Args:
        source: Jinja source, as in the `chat_template` of a tokenizer.
        special_tokens: Variables of the template: `bos_token`, `eos_token` and so on.
        name: What to call it in errors.
        token_markers: Texts that the tokenizer turns into tokens of their own, and that no message may make; the
            special tokens by default.
        tool_source: Jinja source to use instead when there are tools.

    Raises:
        InvalidRequestError: The source is no chat template.

    Example:
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
        self.name = name
        self._special_tokens = dict(special_tokens or {})
        if token_markers is None:
            token_markers = [token for token in self._special_tokens.values() if isinstance(token, str)]
        self._token_markers = frozenset(token_markers)
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

    @property
    def _title(self) -> str:
        return f"The chat template {self.name!r}" if self.name else "The chat template"

    @cached_property
    def _markers(self) -> Markers:
        written = marks_in(self.source)
        for roles in (("user", "assistant", "user"), ("system", "user", "assistant", "user")):
            written |= marks_around(self._probe(probe_turns(roles)) or "", "probe-")
        return Markers(self._token_markers, written)

    @cached_property
    def takes_tools(self) -> bool:
        """Whether the template presents tools to the model."""
        return self._with_tools is not None or "tools" in self._template.variables

    @cached_property
    def end_of_answer(self) -> str:
        """What a model that goes on past its answer writes next: a token's text, how the next line begins, or ""."""
        rendered = self._probe(probe_turns(["user", "assistant", "user"])) or ""
        between = rendered.partition("probe-1")[2].partition("probe-2")[0].rstrip()
        mark = self._markers.at_start(between.lstrip())
        if mark:
            return mark
        return "\n" + between.lstrip() if between[:1] == "\n" else between

    @cached_property
    def closing(self) -> str:
        """What comes behind an answer that is the last message, where there are tools."""
        if self._with_tools is not None:
            return self._with_tools.closing
        return (self._probe(probe_turns(["user", "assistant"])) or "").partition("probe-1")[2]

    def _probe(self, turns: Sequence[Turn]) -> str | None:
        """Render a conversation to see what comes of it: None if the template refuses it."""
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
        write_tools: WriteTools | None = None,
        **extra: Any,
    ) -> Rendered:
        """Return the prompt of a conversation.

        Args:
            messages: Dictionaries with `role` and `content`, and perhaps `name`, `tool_calls`, `tool_call_id`,
                `reasoning_content`.
            tools: Function schemas in OpenAI's form.
            add_generation_prompt: End with what precedes an answer.
            escape_special_tokens: Keep marks and special tokens in messages, tools and documents from acting as such.
                Without it a message can end its turn and speak for somebody else.
            write_calls: Writes earlier tool calls down where the template does not, as JSON. Marks around the
                JSON act as such.
            rewrite_calls: Let `write_calls` do so where the template can, too: the model writes them in another way.
            write_tools: Describes tools, as JSON too, where the template does not present them; the system message ends
                with that. None: tools raise there.
            extra: Further variables of the template, such as `enable_thinking` or `documents`.

        Raises:
            InvalidRequestError: A message has no proper role or one that the template does not know, nothing presents
                the tools, the template refuses the conversation, fails, or uses more time or memory than any prompt
                needs.
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
            msg = f"{self._title} presents no tools to the model. Describe them in the system message, or give another."
            raise InvalidRequestError(msg)
        turns = self._named([_turn(message) for message in messages])
        writes_tools = bool(tools) and not self.takes_tools
        beginning = None if rewrite_calls else self._beginning_of_calls(write_calls)
        writes_calls = partial(self._writes_calls, rewrite=rewrite_calls, puts_text=beginning is not None)
        sanitizer = Sanitizer(self._markers, [self.source, turns, tools, extra])
        if escape_special_tokens:
            turns = [sanitizer.turn(turn, calls_as_json=writes_calls(turn)) for turn in turns]
            tools = sanitizer.protect(tools, as_json=writes_tools)
            if "documents" in extra:
                extra["documents"] = sanitizer.protect(extra["documents"])
        if tools and writes_tools and write_tools is not None:
            turns, tools = turn_folding.with_system_section(turns, write_tools(tools)), None
        texts = None if beginning is None else TextsBeforeCalls(write_calls, beginning, sanitizer.free)
        turns = self._fold(turns, write_calls, writes_calls, texts, with_tools=bool(tools))
        try:
            text = self._run(turns, tools=tools or None, add_generation_prompt=add_generation_prompt, **extra)
        except jinja2.TemplateError as error:
            for role in _other_roles(turns):
                if not self.capabilities.shows_role(role):
                    raise InvalidRequestError(self._unknown_role(role)) from error
            msg = f"{self._title} does not render this conversation: {error}"
            raise InvalidRequestError(msg) from error
        return sanitizer.release(texts.put_back(text) if texts else text)

    def _named(self, turns: list[Turn]) -> list[Turn]:
        """Return a conversation of known roles, where who speaks is said as the template can show it."""
        for role in _other_roles(turns):
            if self.capabilities.drops_role(role):
                raise InvalidRequestError(self._unknown_role(role))
        if any(turn.get("name") for turn in turns) and not self.capabilities.shows_names:
            turns = turn_folding.with_names(turns)
        return turn_folding.with_named_results(turns)

    def _unknown_role(self, role: str) -> str:
        roles = "'system', 'user', 'assistant' or 'tool'"
        return f"{self._title} does not know the role {role!r} of a message; give {roles}."

    def _beginning_of_calls(self, write_calls: WriteCalls) -> str | None:
        """Return how the template begins calls, if texts have to be put there; None where they need not, or cannot.

        Args:
            write_calls: Writes calls as the model does; the template begins them in the same way, white space apart.
        """
        capabilities = self.capabilities
        if not capabilities.drops_text_beside_calls or capabilities.shows_results_of_written_calls:
            return None
        beginning = capabilities.beginning_of_calls
        models = write_calls([{"name": "|", "args": {}}], "").partition("|")[0]
        return beginning if beginning is not None and "".join(beginning.split()) == "".join(models.split()) else None

    def _writes_calls(self, turn: Turn, *, rewrite: bool, puts_text: bool) -> bool:
        """Return whether a message's calls go into its content: the template would lose them, or what is beside them.

        Args:
            turn: The message.
            rewrite: They do in any case.
            puts_text: What is beside them will be put there in another way.
        """
        if not turn.get("tool_calls"):
            return False
        if rewrite or not self.capabilities.shows_calls:
            return True
        return bool(turn["content"].strip()) and self.capabilities.drops_text_beside_calls and not puts_text

    def _fold(
        self,
        turns: list[Turn],
        write_calls: WriteCalls,
        writes_calls: Callable[[Turn], bool],
        texts: TextsBeforeCalls | None,
        *,
        with_tools: bool,
    ) -> list[Turn]:
        """Reshape a conversation where the template could not render it as it is.

        It is in sanitizer already, so that what is written here may be a mark of the template. For the same reason
        nothing may be put together here that is one: parts are set apart by line breaks or are JSON.
        """
        capabilities = self.capabilities
        if any(turn.get("tool_calls") for turn in turns):
            if capabilities.demands_alternation and capabilities.drops_text_beside_calls:
                turns = turn_folding.alternating(turns)  # a neighbour's text must not come beside calls later
            turns = texts.take(turns) if texts else turns
            turns = turn_folding.with_written_calls(
                turns,
                write_calls,
                where=writes_calls,
                results_of_users=not capabilities.shows_results_of_written_calls,
            )
        roles = [turn["role"] for turn in turns]
        calls = [len(turn.get("tool_calls") or ()) for turn in turns]
        if max(calls, default=0) > 1 and not capabilities.shows_several_calls:
            turns = turn_folding.with_single_calls(turns)
        if (any(calls) or "tool" in roles) and capabilities.refuses_other_ids:
            turns = turn_folding.with_short_ids(turns)
        if "tool" in roles and not capabilities.shows_results:
            turns = turn_folding.with_results_of_users(turns)
        # the first prompt already, or those that follow on it would not begin with it
        loses_system = capabilities.drops_system_behind_calls and (with_tools or any(calls) or "tool" in roles)
        if "system" in roles and (
            capabilities.refuses_system
            or loses_system
            or (set(roles) == {"system"} and not capabilities.takes_system_alone)
        ):
            turns = turn_folding.with_folded_system(turns, keep_first=False)
        elif "system" in roles[1:] and not capabilities.takes_system_anywhere:
            turns = turn_folding.with_folded_system(turns, keep_first=True)
        return turn_folding.alternating(turns) if capabilities.demands_alternation else turns

    def _run(self, turns: Sequence[Turn], **variables: Any) -> str:
        everything = {"documents": None, **self._special_tokens, "messages": list(turns), **variables}
        try:
            return self._template.render(everything)
        except TemplateLimitError as error:  # no probe either goes on after this
            msg = f"{self._title} is refused: {error}"
            raise InvalidRequestError(msg) from error


def _other_roles(turns: Sequence[Turn]) -> set[str]:
    return {turn["role"] for turn in turns}.difference(_COMMON_ROLES)


def _turn(message: Mapping[str, Any]) -> Turn:
    role = message.get("role")
    if not isinstance(role, str) or not _ROLE.fullmatch(role):
        msg = f"A message has the role {role!r}; give 'system', 'user', 'assistant', 'tool' or another word."
        raise InvalidRequestError(msg)
    return {**message, "content": message.get("content") or ""}


def find_template(
    chat_template: str | None, tokenizer: Tokenizer, model_name: str, config_model_type: str | None
) -> ChatTemplate:
    """Return the chat template to use for a model.

    The first of: the one that is asked for, the tokenizer's own, a built-in one for the model's name. Never the one
    that transformers would take from the tokenizer's class.

    Args:
        chat_template: Jinja source, the name of a built-in template, or None.
        tokenizer: The model's transformers tokenizer.
        model_name: The model's name on the hub.
        config_model_type: `model_type` of the model's config, so that a name alone does not decide; None if unknown.

    Raises:
        InvalidRequestError: `chat_template` is neither a template nor a known name.
        MissingChatTemplateError: Nothing was asked for, and there is none for this model.
    """
    tool_source = None
    if chat_template is not None:
        source = chat_template if "{" in chat_template else builtin_templates.source(chat_template)
        name = None if "{" in chat_template else chat_template
    elif own := getattr(tokenizer, "chat_template", None):
        source, tool_source = _own_sources(own, model_name)
        name = model_name
    elif name := builtin_templates.name_for(model_name, config_model_type):
        source = builtin_templates.source(name)
    else:
        raise MissingChatTemplateError(model_name, builtin_templates.NAMES)
    variables = tuple(
        (key, str(token)) for key, token in tokenizer.special_tokens_map.items() if isinstance(token, str)
    )
    return _compiled(source, variables, name, _token_markers(tokenizer, source + (tool_source or "")), tool_source)


@lru_cache(maxsize=32)
def _compiled(
    source: str,
    variables: tuple[tuple[str, str], ...],
    name: str | None,
    token_markers: frozenset[str],
    tool_source: str | None,
) -> ChatTemplate:
    """Compile a template once: a template is looked up at every call, and keeps what it has found out about itself."""
    return ChatTemplate(
        source, special_tokens=dict(variables), name=name, token_markers=token_markers, tool_source=tool_source
    )


def _own_sources(own: Any, model_name: str) -> tuple[str, str | None]:
    """Return a tokenizer's template, and the one for tools if it has two."""
    if isinstance(own, str):
        return own, None
    # several: a dictionary, or in the tokenizer's file a list of {"name": ..., "template": ...}
    named = own if isinstance(own, dict) else {item["name"]: item["template"] for item in own}
    if "default" not in named:
        msg = (
            f"{model_name} ships the chat templates {', '.join(map(repr, named))} and no default. Give the text of one "
            "as chat_template."
        )
        raise InvalidRequestError(msg)
    return named["default"], named.get("tool_use")


def _token_markers(tokenizer: Tokenizer, source: str) -> frozenset[str]:
    """Return the added tokens that could act in a prompt; a word that was added to the vocabulary could not."""
    special = frozenset(map(str, tokenizer.all_special_tokens))
    return special | {token for token in tokenizer.get_added_vocab() if is_tag(token) or token in source}
