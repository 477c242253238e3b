"""LangChain's chat model interface over the engine.

The way of a call: messages -> `chat.messages` (dictionaries) -> `chat.prompts` (token ids) -> the engine ->
`chat.answers` (chunks and messages).
"""

from __future__ import annotations

import inspect
import json
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from langchain_core.language_models import BaseChatModel, LangSmithParams, ModelProfile
from langchain_core.outputs import ChatResult
from pydantic import Field, PrivateAttr, field_validator

from langchain_petals.calls import added_off_loop, begun_off_loop, short_traceback
from langchain_petals.chat import (
    ChatResponse,
    Method,
    Prompt,
    PromptBuilder,
    ReasoningSplitter,
    ResponseFormat,
    history_of,
    structured,
    turns,
)
from langchain_petals.chat.templates import ChatTemplate
from langchain_petals.chat.tools import find_format, openai_tools
from langchain_petals.configuration import (
    CONSTRAINT_OPTIONS,
    OF_ONE_MODEL,
    PetalsParameters,
    identity_of_response_format,
)
from langchain_petals.engine import cancelling
from langchain_petals.errors import InvalidRequestError
from langchain_petals.hub import hide_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence

    from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
    from langchain_core.language_models import LanguageModelInput
    from langchain_core.messages import AIMessage, BaseMessage
    from langchain_core.outputs import ChatGenerationChunk
    from langchain_core.runnables import Runnable, RunnableConfig
    from langchain_core.tools import BaseTool

    from langchain_petals.engine import Engine


_OF_THE_RESPONSE = ("tools", "tool_choice", "parallel_tool_calls", "strict", "response_format")

_OWN_VARIABLES = frozenset(inspect.signature(ChatTemplate.render).parameters) - {"self", "extra"}


class ChatPetals(PetalsParameters, BaseChatModel):
    r"""A chat model whose transformer blocks are served by a Petals swarm.

    Example:
        .. code-block:: python

            from langchain_petals import ChatPetals
            from langchain_petals.swarm import LocalSwarm

            with LocalSwarm() as swarm:
                chat = ChatPetals(**swarm.connection, temperature=0)
                for chunk in chat.stream([("system", "You are a friendly assistant."), ("human", "Who are you?")]):
                    print(chunk.text, end="", flush=True)
    """

    model_name: str = Field(alias="model")
    """Folder or hub name of the model."""

    streaming: bool = False
    """Let `invoke` stream too, so that callbacks hear of each token."""

    chat_template: str | None = None
    """How messages become a prompt: a Jinja template, or the name of a built-in one; None for the model's own."""

    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Further variables for the template, such as `enable_thinking`."""

    allow_special_tokens: bool = False
    """Let special tokens inside a message act as such. Off, a message's text cannot pass itself off as another's."""

    tool_format: str | None = None
    """How the model writes tool calls: "hermes", "llama-3.1", "llama-3.1-python-tag" or "mistral"; None finds out."""

    _of_calls: ClassVar[frozenset[str]] = frozenset({*_OF_THE_RESPONSE, "model", "model_name", "stream"})

    _made: tuple[Any, PromptBuilder] | None = PrivateAttr(default=None)

    @field_validator("chat_template_kwargs")
    @classmethod
    def _check_template_kwargs(cls, variables: dict[str, Any]) -> dict[str, Any]:
        if taken := variables.keys() & _OWN_VARIABLES:
            msg = f"chat_template_kwargs cannot set {', '.join(sorted(taken))}, which every call sets by itself"
            raise InvalidRequestError(msg)
        return variables

    @property
    def model(self) -> str:
        """The model's folder or hub name."""
        return self.model_name

    @property
    def max_tokens(self) -> int:
        """Most tokens of an answer."""
        return self.max_new_tokens

    @property
    def _llm_type(self) -> str:
        return "petals-chat"

    def _identity(self, stop: Sequence[str] | None, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        own = ("chat_template", "chat_template_kwargs", "allow_special_tokens", "tool_format", "output_version")
        return super()._identity(stop, kwargs) | {name: getattr(self, name) for name in own}

    @classmethod
    def get_lc_namespace(cls) -> list[str]:
        """Return where `langchain_core.load.loads` finds the class."""
        return ["langchain_petals", "chat_models"]

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return super()._get_ls_params(stop=stop, **{"model": kwargs.pop("model_name", None), **kwargs})

    def _get_invocation_params(self, stop: list[str] | None = None, **kwargs: Any) -> dict[str, Any]:
        """Return what traces show of a call's options: what it uses, whoever has said so."""
        params = super()._get_invocation_params(stop=stop, **hide_key(kwargs))
        options = self._traced_options(stop, kwargs)
        if options is None:
            return params
        used = options.model_dump(exclude=set(CONSTRAINT_OPTIONS)) | {"stop": list(options.stop) or None}
        used["max_tokens"] = options.max_new_tokens
        return params | {name: used[name] for name in params if name in used}

    @short_traceback
    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        """Return what a cache tells calls apart by."""
        options = {name: value for name, value in kwargs.items() if name not in self._of_calls}
        identity = self._identity(stop, options) | identity_of_response_format(
            {name: kwargs.get(name) for name in _OF_THE_RESPONSE}
        )
        name = kwargs.get("model") or kwargs.get("model_name")
        if name not in (None, self.model_name):
            identity |= {"model_name": name} | dict.fromkeys(OF_ONE_MODEL)
        return str(sorted(identity.items()))

    def _should_stream(self, *, async_api: bool, run_manager: Any = None, **kwargs: Any) -> bool:
        """Return whether a call streams; for `streaming=True` alone it does not if it asks for several answers."""
        return not self._gives_several(kwargs) and super()._should_stream(
            async_api=async_api, run_manager=run_manager, **kwargs
        )

    def _should_use_protocol_streaming(self, *, async_api: bool, run_manager: Any = None, **kwargs: Any) -> bool:
        """Return whether a call streams for a callback that wants events; see `_should_stream`."""
        return not self._gives_several(kwargs) and super()._should_use_protocol_streaming(
            async_api=async_api, run_manager=run_manager, **kwargs
        )

    def _gives_several(self, kwargs: Mapping[str, Any]) -> bool:
        """Return whether a call asks for several answers, and not for a stream; wrong options it will refuse itself."""
        options = self._traced_options(None, kwargs)
        return options is not None and options.n > 1 and not kwargs.get("stream")

    # ---- what the model can do

    def _resolve_model_profile(self) -> ModelProfile:
        config = Path(self.model_name) / "config.json"
        known = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
        return _profile(known.get("max_position_embeddings"))

    def _get_engine(self) -> Engine:
        """Return the engine over the model, loading it on first use; it tells the profile how much can be read."""
        engine = super()._get_engine()
        length = engine.client.context_length
        if self.profile is not None and length is not None:
            self.profile["max_input_tokens"] = min(length, self.profile.get("max_input_tokens", length))
        return engine

    @short_traceback
    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Sequence[Any] | None = None) -> int:
        """Return how many tokens of a prompt these messages make, rendered by the model's template.

        Args:
            messages: A conversation, or a part of one.
            tools: Tools that would be bound.
        """
        if not messages:  # LangChain asks for that where nothing fits
            return 0
        return len(self._prompt(messages, ResponseFormat.of_call({"tools": tools})).ids)

    # ---- calls

    def _combine_llm_outputs(self, llm_outputs: list[dict[str, Any] | None]) -> dict[str, Any]:
        usages = [output["token_usage"] for output in llm_outputs if output]  # None: it came from a cache
        total = {name: sum(usage[name] for usage in usages) for name in (usages[0] if usages else ())}
        names = [output["model_name"] for output in llm_outputs if output]
        return {"token_usage": total, "model_name": names[0] if names else self.model_name}

    @short_traceback
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002 - the base class calls back
        **kwargs: Any,
    ) -> ChatResult:
        with self._expecting():
            answers = self._begin(messages, stop, kwargs)
        with cancelling(answer.generation for answer in answers):
            for answer in answers:
                for piece in answer.generation:
                    answer.add(piece)
        return _result(answers)

    @short_traceback
    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002 - the base class calls back
        **kwargs: Any,
    ) -> ChatResult:
        answers = await begun_off_loop(partial(self._begin, messages, stop, kwargs), _cancel, self._expecting())
        with cancelling(answer.generation for answer in answers):
            for answer in answers:
                async for piece in answer.generation:
                    await added_off_loop(answer, piece)
        return _result(answers)

    @short_traceback
    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        with self._expecting():
            [answer] = self._begin(messages, stop, kwargs, streams=True)
        for piece in answer.generation:
            chunk = answer.add(piece)
            _warn([answer])
            if chunk is not None:
                if run_manager:
                    run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    @short_traceback
    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        [answer] = await begun_off_loop(
            partial(self._begin, messages, stop, kwargs, streams=True), _cancel, self._expecting()
        )
        with cancelling([answer.generation]):  # at once, where the loop would get round to it later
            async for piece in answer.generation:
                chunk = await added_off_loop(answer, piece)
                _warn([answer])
                if chunk is not None:
                    if run_manager:
                        await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk

    @short_traceback
    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """Answer several conversations together; see `Runnable.batch`."""
        together = self._together(config, len(inputs))
        return super().batch(inputs, together, return_exceptions=return_exceptions, **kwargs)

    # ---- tools and structured output

    @short_traceback
    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | bool | dict[str, Any] | None = None,
        parallel_tool_calls: bool | None = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Let answers call tools; what they call parses and fits the tool's schema, whatever the model.

        Args:
            tools: Functions, pydantic classes, TypedDicts, LangChain tools, or schemas in OpenAI's or Anthropic's form.
            tool_choice: None or "auto" lets the model decide; "none" lets it call nothing; "any", "required" or True
                makes it call something; a tool's name, or OpenAI's `{"type": "function", ...}`, makes it call that.
            parallel_tool_calls: False allows one call in an answer at the most, True several; None allows several
                unless `tool_choice` names a tool.
            strict: True refuses a schema of which something cannot be guaranteed while decoding. Otherwise that is
                checked when a call is there (a warning says what), and a call that breaks it is in
                `invalid_tool_calls`. False lets arguments hold properties that a schema does not name.
            kwargs: Further options of each call.

        Raises:
            InvalidRequestError: The choice names no tool of these, or a strict schema cannot be guaranteed; says which.

        Example:
            .. code-block:: python

                def add(a: int, b: int) -> int:
                    \"\"\"Add two numbers.\"\"\"
                    return a + b

                chat.bind_tools([add], tool_choice="any").invoke("What is 2 plus 3?").tool_calls
        """
        bound: dict[str, Any] = {
            "tools": openai_tools(tools, strict=strict),
            "tool_choice": tool_choice,
            "parallel_tool_calls": parallel_tool_calls,
        }
        form = ResponseFormat.of_call(dict(bound))
        form.constraint(find_format(self.tool_format, self.chat_template))  # raises now
        self._tell(form.warnings)
        return self.bind(**{name: value for name, value in bound.items() if value is not None}, **kwargs)

    @short_traceback
    def with_structured_output(
        self,
        schema: dict[str, Any] | type | None = None,
        *,
        include_raw: bool = False,
        method: Method = "json_schema",
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Return a model whose answers are objects that fit a schema, whatever the model.

        Args:
            schema: A pydantic class or a dataclass (answers are its instances), a TypedDict or a JSON schema (they are
                dictionaries).
            include_raw: Return a dictionary of the message (`raw`), the object (`parsed`) and what went wrong
                (`parsing_error`).
            method: "json_schema" constrains the answer to the schema and tells the model of it; "function_calling"
                makes the model call a tool that has it; "json_mode" constrains the answer to any JSON object, and
                leaves it to your prompt to say which.
            strict: True refuses a schema of which something cannot be guaranteed while decoding. Otherwise that is
                checked when the answer is there (a warning says what), and an answer that breaks it raises LangChain's
                `OutputParserException`. False lets objects hold properties that the schema does not name.
            kwargs: Further options of each call.

        An answer that `max_tokens` ended early raises `OutputLimitError`, with the object as it is in `partial`.

        Raises:
            InvalidRequestError: There is no schema, or it is strict and cannot be guaranteed.
        """
        return structured(
            self, schema, method=method, include_raw=include_raw, strict=strict, tell=self._tell, **kwargs
        )

    # ---- from messages to the engine

    def _begin(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any], *, streams: bool = False
    ) -> list[ChatResponse]:
        """Submit a conversation to the engine, with the model that the call names."""
        return self._for_call(kwargs)._start(messages, stop, kwargs, streams=streams)  # noqa: SLF001 - of this class

    def _for_call(self, kwargs: dict[str, Any]) -> ChatPetals:
        """Return the object for the model that a call names; takes the name out of `kwargs`."""
        names = kwargs.pop("model", None), kwargs.pop("model_name", None)
        name = names[0] or names[1]
        if name in (None, self.model_name):
            return self
        if self.client is not None or self.tokenizer is not None:
            msg = f"model={name!r} cannot be loaded beside the client or tokenizer that were given; make a ChatPetals."
            raise InvalidRequestError(msg)
        shared = self._given - OF_ONE_MODEL - {"profile"}
        return type(self)(**{field: getattr(self, field) for field in shared} | {"model_name": name})

    def _start(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any], *, streams: bool = False
    ) -> list[ChatResponse]:
        """Submit a conversation to the engine.

        Raises:
            InvalidRequestError: A message or an option cannot be honoured.
            PromptTooLongError: The conversation leaves no room for an answer.
        """
        kwargs.pop("stream", None)
        form = ResponseFormat.of_call(kwargs)
        options = self._call_options(stop, kwargs, streams=streams)
        prompts = self._prompts()
        prompt = self._prompt(messages, form)
        if prompts.end_text is not None:
            options = options.model_copy(update={"stop": (*options.stop, prompts.end_text)})
        constraint = form.constraint(prompts.tool_format, thinking=prompt.thinking)
        if constraint is not None and options.constraint is not None:
            msg = "tools and response_format do not go together with json_schema, regex or grammar; leave those out"
            raise InvalidRequestError(msg)
        self._tell(form.warnings)
        constraint = constraint or options.constraint
        end_tokens = () if prompts.end_token is None else (prompts.end_token,)
        generations = self._submit([prompt.ids], options, end_tokens=end_tokens, constraint=constraint)
        ruled, markers = constraint is not None and constraint.grammar is not None, form.markers(prompts.tool_format)
        return [
            ChatResponse(
                generation,
                model_name=self.model_name,
                splitter=None if ruled else ReasoningSplitter(started=prompt.thinking, ends=markers),
                parser=form.parser(prompts.tool_format),
                token_text=self._token_text,
                counts_prompt=index == 0,
                numbers_blocks=self.output_version == "v1",
                remember=partial(prompts.remember, prompt),
                problem_of=options.problem_of if form.schema is None else form.problem_of,
                is_raw=not form.is_parsed and (form.schema is not None or options.constraint is not None),
            )
            for index, generation in enumerate(generations)
        ]

    def _prompts(self) -> PromptBuilder:
        """Return what makes prompts; a copy of this object with other fields notices that it needs another one."""
        key = self._get_engine(), self.chat_template, self.tool_format
        if self._made is None or self._made[0] != key:
            engine, chat_template, tool_format = key
            client = engine.client
            prompts = PromptBuilder(
                client.tokenizer,
                client.end_tokens,
                history_of(engine),
                model_name=self.model_name,
                family=client.family,
                chat_template=chat_template,
                tool_format=tool_format,
            )
            self._made = key, prompts
        return self._made[1]

    def _prompt(self, messages: list[BaseMessage], form: ResponseFormat) -> Prompt:
        return self._prompts().make(
            turns(messages), form, self.chat_template_kwargs, allow_special_tokens=self.allow_special_tokens
        )


def _warn(answers: Iterable[ChatResponse]) -> None:
    """Say once what is wrong with answers of some form."""
    for warning in dict.fromkeys(each for answer in answers for each in answer.warnings):
        warnings.warn(warning, stacklevel=3)


def _cancel(answer: ChatResponse) -> None:
    answer.generation.cancel()


def _result(answers: Sequence[ChatResponse]) -> ChatResult:
    _warn(answers)
    usages = [answer.usage for answer in answers]
    usage = {
        "prompt_tokens": sum(each["input_tokens"] for each in usages),
        "completion_tokens": sum(each["output_tokens"] for each in usages),
        "total_tokens": sum(each["total_tokens"] for each in usages),
    }
    generations = [answer.result() for answer in answers]
    name = generations[0].message.response_metadata["model_name"]
    return ChatResult(generations=generations, llm_output={"token_usage": usage, "model_name": name})


def _profile(context_length: int | None) -> ModelProfile:
    """Return what a model can do; how much it can read is known once its config is."""
    profile = ModelProfile(
        text_inputs=True,
        image_inputs=False,
        audio_inputs=False,
        video_inputs=False,
        text_outputs=True,
        tool_calling=True,
        tool_choice=True,
        structured_output=True,
    )
    if context_length is not None:
        profile["max_input_tokens"] = context_length
    return profile
