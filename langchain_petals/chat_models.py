"""`ChatPetals`, LangChain's chat model interface to a Petals swarm.

The steps of a call: messages -> `chat.messages` (dictionaries) -> `chat.prompt` (token ids) -> the engine ->
`chat.response` (chunks and messages).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from langchain_core.outputs import ChatResult
from pydantic import PrivateAttr

from langchain_petals.calls import (
    added_off_loop,
    begun_off_loop,
    cancel_answer,
    short_traceback,
    show_warnings,
    summed_usage,
)
from langchain_petals.chat import (
    ChatResponse,
    Method,
    Prompt,
    PromptBuilder,
    ReasoningSplitter,
    ResponseFormat,
    history_of,
    structured_output_model,
)
from langchain_petals.chat.tools import find_format, openai_tools
from langchain_petals.configuration import OF_ONE_MODEL, ChatParameters
from langchain_petals.engine import cancelling
from langchain_petals.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence

    from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
    from langchain_core.language_models import LanguageModelInput
    from langchain_core.messages import AIMessage, BaseMessage
    from langchain_core.outputs import ChatGenerationChunk
    from langchain_core.runnables import Runnable, RunnableConfig
    from langchain_core.tools import BaseTool


class ChatPetals(ChatParameters):
    r"""A chat model whose transformer blocks are served by a Petals swarm.

    Example:
        ```python
        from langchain_petals import ChatPetals
        from langchain_petals.swarm import LocalSwarm

        with LocalSwarm() as swarm:
            chat = ChatPetals(**swarm.connection, temperature=0)
            for chunk in chat.stream([("system", "You are Pip."), ("human", "Who are you?")]):
                print(chunk.text, end="", flush=True)
        ```

        ```text
        I am Pip.
        ```
    """

    _builder: tuple[Any, PromptBuilder] | None = PrivateAttr(default=None)
    """The last prompt builder, and the fields that it was made with."""

    @property
    def _llm_type(self) -> str:
        return "petals-chat"

    @short_traceback
    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Sequence[Any] | None = None) -> int:
        """Return the number of tokens of the prompt that the model's template makes of these messages.

        Args:
            messages: A conversation, or a part of one.
            tools: Tools of the conversation.
        """
        if not messages:  # LangChain passes no messages if none fits its limit
            return 0
        return len(self._prompt(messages, ResponseFormat.from_call({"tools": tools})).ids)

    def _combine_llm_outputs(self, llm_outputs: list[dict[str, Any] | None]) -> dict[str, Any]:
        usages = [output["token_usage"] for output in llm_outputs if output]  # None for an answer from a cache
        names = [output["model_name"] for output in llm_outputs if output]
        return {"token_usage": summed_usage(usages), "model_name": names[0] if names else self.model_name}

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
        answers = await begun_off_loop(partial(self._begin, messages, stop, kwargs), cancel_answer, self._expecting())
        with cancelling(answer.generation for answer in answers):
            for answer in answers:
                async for piece in answer.generation:
                    await added_off_loop(answer.add, piece)
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
            show_warnings([answer])
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
            partial(self._begin, messages, stop, kwargs, streams=True), cancel_answer, self._expecting()
        )
        with cancelling([answer.generation]):  # cancels at once; without it, only when the loop closes the generator
            async for piece in answer.generation:
                chunk = await added_off_loop(answer.add, piece)
                show_warnings([answer])
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

    def _should_stream(self, *, async_api: bool, run_manager: Any = None, **kwargs: Any) -> bool:
        """Return whether a call streams. A call for several answers does not, even with `streaming=True`."""
        return not self._gives_several(kwargs) and super()._should_stream(
            async_api=async_api, run_manager=run_manager, **kwargs
        )

    def _should_use_protocol_streaming(self, *, async_api: bool, run_manager: Any = None, **kwargs: Any) -> bool:
        """Return whether a call streams for a callback that wants events; see `_should_stream`."""
        return not self._gives_several(kwargs) and super()._should_use_protocol_streaming(
            async_api=async_api, run_manager=run_manager, **kwargs
        )

    def _gives_several(self, kwargs: Mapping[str, Any]) -> bool:
        """Return whether a call asks for several answers and no stream; False for invalid options."""
        options = self._traced_options(None, kwargs)
        return options is not None and options.n > 1 and not kwargs.get("stream")

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
        """Return a model whose answers may call tools. Calls always fit the schemas of their tools, for any model.

        Args:
            tools: Functions, pydantic classes, TypedDicts, LangChain tools, or schemas in OpenAI's or Anthropic's
                format.
            tool_choice: None or "auto" lets the model decide; "none" forbids calls; "any", "required" or True demands
                a call; a tool's name, or OpenAI's `{"type": "function", ...}`, demands a call of that tool.
            parallel_tool_calls: False allows at most one call in an answer, True several; None allows several unless
                `tool_choice` names a tool.
            strict: True refuses a schema with keywords that decoding cannot enforce. Otherwise a warning names these
                keywords, and complete calls are checked against them. A call that breaks the schema is in
                `invalid_tool_calls`. False allows arguments that a schema does not name.
            kwargs: Further options of each call.

        Raises:
            InvalidRequestError: The choice names no bound tool, or a strict schema cannot be enforced.

        Example:
            ```python
            from langchain_petals import ChatPetals
            from langchain_petals.swarm import LocalSwarm


            def add(a: int, b: int) -> int:
                "Add two numbers."
                return a + b


            with LocalSwarm() as swarm:
                chat = ChatPetals(**swarm.connection, temperature=0).bind_tools([add])
                print(chat.invoke("What is 2 plus 3?").tool_calls[0]["args"])
            ```

            ```text
            {'a': 2, 'b': 3}
            ```
        """
        bound: dict[str, Any] = {
            "tools": openai_tools(tools, strict=strict),
            "tool_choice": tool_choice,
            "parallel_tool_calls": parallel_tool_calls,
        }
        response_format = ResponseFormat.from_call(dict(bound))
        response_format.constraint(find_format(self.tool_format, self.chat_template))  # raises for a wrong schema
        self._tell(response_format.warnings)
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
        """Return a model whose answers are objects that fit a schema, for any model.

        Args:
            schema: A pydantic class or a dataclass (answers are its instances), a TypedDict or a JSON schema (answers
                are dictionaries).
            include_raw: Return a dictionary of the message (`raw`), the object (`parsed`) and the error
                (`parsing_error`).
            method: "json_schema" constrains the answer to the schema and shows the model the schema;
                "function_calling" makes the model call a tool with this schema; "json_mode" constrains the answer to
                any JSON object, which your prompt has to describe.
            strict: True refuses a schema with keywords that decoding cannot enforce. Otherwise a warning names these
                keywords, and complete answers are checked against them. An answer that breaks the schema raises
                LangChain's `OutputParserException`. False allows properties that the schema does not name.
            kwargs: Further options of each call.

        An answer that `max_tokens` ended early raises `OutputLimitError`; its `partial` is the incomplete object.

        Raises:
            InvalidRequestError: There is no schema, or it is strict and cannot be enforced.

        Example:
            ```python
            from pydantic import BaseModel

            from langchain_petals import ChatPetals
            from langchain_petals.swarm import LocalSwarm


            class Person(BaseModel):
                "A person."

                name: str
                age: int


            with LocalSwarm() as swarm:
                chat = ChatPetals(**swarm.connection, temperature=0)
                extract = chat.with_structured_output(Person)
                print(repr(extract.invoke("The name is Ada and the age is 36.")))
            ```

            ```text
            Person(name='Ada', age=36)
            ```
        """
        return structured_output_model(
            self, schema, method=method, include_raw=include_raw, strict=strict, warn=self._tell, **kwargs
        )

    # ---- from messages to the engine

    def _for_call(self, kwargs: dict[str, Any]) -> ChatPetals:
        """Return the object for the model that a call names; takes the name out of `kwargs`."""
        names = kwargs.pop("model", None), kwargs.pop("model_name", None)
        name = names[0] or names[1]
        if name in (None, self.model_name):
            return self
        if self.client is not None or self.tokenizer is not None:
            msg = f"model={name!r} cannot be loaded beside the client and tokenizer given; make another ChatPetals."
            raise InvalidRequestError(msg)
        shared = self._given - OF_ONE_MODEL - {"profile"}
        return type(self)(**{field: getattr(self, field) for field in shared} | {"model_name": name})

    def _begin(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any], *, streams: bool = False
    ) -> list[ChatResponse]:
        """Submit a conversation to the engine, with the model that the call names."""
        model = self._for_call(kwargs)
        if model is not self:
            return model._begin(messages, stop, kwargs, streams=streams)  # noqa: SLF001 - of this class
        kwargs.pop("stream", None)
        response_format = ResponseFormat.from_call(kwargs)
        options = self._call_options(stop, kwargs, streams=streams)
        prompts = self._prompts()
        prompt = self._prompt(messages, response_format)
        options = options.model_copy(update={"stop": (*options.stop, *prompts.stop)})
        constraint = response_format.constraint(prompts.tool_format, thinking=prompt.thinking)
        if constraint is not None and options.constraint is not None:
            msg = "tools and response_format do not go together with json_schema, regex or grammar; leave these out"
            raise InvalidRequestError(msg)
        self._tell(response_format.warnings)
        constraint = constraint or options.constraint
        generations = self._submit([prompt.ids], options, end_tokens=prompts.end_tokens, constraint=constraint)
        has_grammar = constraint is not None and constraint.grammar is not None
        markers = response_format.markers(prompts.tool_format)
        return [
            ChatResponse(
                generation,
                model_name=self.model_name,
                splitter=None if has_grammar else ReasoningSplitter(started=prompt.thinking, ends=markers),
                parser=response_format.parser(prompts.tool_format),
                token_text=self._token_text,
                counts_prompt=index == 0,
                numbers_blocks=self.output_version == "v1",
                remember=partial(prompts.remember, prompt),
                problem_of=options.problem_of if response_format.schema is None else response_format.problem_of,
                reports_problem=not response_format.is_parsed
                and (response_format.schema is not None or options.constraint is not None),
            )
            for index, generation in enumerate(generations)
        ]

    def _prompts(self) -> PromptBuilder:
        """Return the prompt builder; a new one if fields have changed, as in a copy of this object."""
        key = self._get_engine(), self.chat_template, self.tool_format
        if self._builder is None or self._builder[0] != key:
            engine, chat_template, tool_format = key
            client = engine.client
            self._builder = (
                key,
                PromptBuilder(
                    client.tokenizer,
                    client.end_tokens,
                    history_of(engine),
                    model_name=self.model_name,
                    family=client.family,
                    chat_template=chat_template,
                    tool_format=tool_format,
                ),
            )
        return self._builder[1]

    def _prompt(self, messages: list[BaseMessage], response_format: ResponseFormat) -> Prompt:
        return self._prompts().make(
            messages, response_format, self.chat_template_kwargs, allow_special_tokens=self.allow_special_tokens
        )


def _result(answers: Sequence[ChatResponse]) -> ChatResult:
    show_warnings(answers)
    usage = summed_usage([answer.token_usage for answer in answers])
    generations = [answer.result() for answer in answers]
    name = generations[0].message.response_metadata["model_name"]
    return ChatResult(generations=generations, llm_output={"token_usage": usage, "model_name": name})
