"""`Petals`, LangChain's LLM interface to a Petals swarm.

The steps of a call: prompt text -> token ids (the model's own tokenizer) -> the engine -> pieces of text. `invoke`,
`batch`, `stream` and their async versions are thin adapters over `Engine.submit`.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any

from langchain_core.language_models.llms import BaseLLM
from langchain_core.outputs import Generation as TextGeneration
from langchain_core.outputs import GenerationChunk, LLMResult
from langchain_core.runnables import run_in_executor

from langchain_petals.calls import (
    added_off_loop,
    begun_off_loop,
    cancel_answer,
    short_traceback,
    show_warnings,
    summed_usage,
    token_usage,
)
from langchain_petals.configuration import CONSTRAINT_OPTIONS, OTHER_NAMES, JsonSchema, PetalsParameters
from langchain_petals.engine import cancelling
from langchain_petals.errors import InvalidRequestError
from langchain_petals.hub import KEY_FIELDS, hide_key
from langchain_petals.pieces import CUT_SHORT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
    from langchain_core.language_models import LanguageModelInput
    from langchain_core.runnables import RunnableConfig

    from langchain_petals.configuration import GenerationOptions
    from langchain_petals.engine.generation import Generation
    from langchain_petals.pieces import Piece


# LangChain makes the cache key from an object's `_identifying_params`, which do not depend on the call. So each call
# stores the object and the call's parameters here until it returns. An attribute of the object cannot hold them, since
# several threads and tasks call one object at the same time.
_identity_of_call: ContextVar[tuple[Any, dict[str, Any]]] = ContextVar("identity_of_call")


class Petals(PetalsParameters, BaseLLM):
    r"""A language model whose transformer blocks are served by a Petals swarm.

    Drop-in replacement for `langchain_community.llms.Petals`.

    Example:
        ```python
        from langchain_petals import Petals
        from langchain_petals.swarm import LocalSwarm

        with LocalSwarm() as swarm:
            llm = Petals(**swarm.connection, temperature=0)
            for piece in llm.stream("Human: Who are you?\nAI:"):
                print(piece, end="", flush=True)
        ```

        ```text
         I am a tiny language model. My blocks live on a Petals swarm.
        ```
    """

    json_schema: JsonSchema | None = None
    """Answers are JSON that fits this schema; takes a dictionary, a pydantic class or a TypedDict."""

    regex: str | None = None
    """Answers match this regular expression as a whole (Rust's syntax: no look-around, no back-references)."""

    grammar: str | None = None
    """Answers follow this Lark grammar, whose first rule is `start`."""

    @property
    def _llm_type(self) -> str:
        return "petals"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        model, identity = _identity_of_call.get((None, {}))
        return dict(identity) if model is self else super()._identifying_params

    def stream(
        self,
        input: LanguageModelInput,  # noqa: A002 - the base class's name
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> Iterator[str]:
        """Answer a prompt in pieces; see `BaseLLM.stream`."""
        return super().stream(input, config, **self._as_used(kwargs))

    def astream(
        self,
        input: LanguageModelInput,  # noqa: A002 - the base class's name
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[str]:
        """Answer a prompt in pieces; see `BaseLLM.astream`."""
        return super().astream(input, config, **self._as_used(kwargs))

    def _as_used(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return a call's options as traces show them: with the names and values that the call uses."""
        kwargs = hide_key(dict(kwargs))  # the call refuses a key later, but tracers see the options first
        options = self._traced_options(None, kwargs)
        if options is None:
            return kwargs
        named = {OTHER_NAMES.get(name, name): value for name, value in kwargs.items()}
        used = options.model_dump(include={*named, "max_new_tokens", "max_length"} - {*CONSTRAINT_OPTIONS, "stop"})
        return {**named, **used, "stop": list(options.stop)}

    def save(self, file_path: Path | str) -> None:
        """Write all fields but the key to a file; see `BaseLLM.save`."""
        with self._identified_by(self.model_dump(mode="json", exclude={*KEY_FIELDS, *BaseLLM.model_fields})):
            super().save(file_path)

    # Callbacks get the errors of `_generate`, the caller those of `generate`. So both shorten the traceback.

    @short_traceback
    def generate(self, prompts: list[str], stop: list[str] | None = None, *args: Any, **kwargs: Any) -> LLMResult:
        """Answer prompts; see `BaseLLM.generate`."""
        stop, identity = self._stop_and_identity(stop, kwargs)
        with self._identified_by(identity):
            return super().generate(prompts, stop, *args, **kwargs)

    @short_traceback
    async def agenerate(
        self, prompts: list[str], stop: list[str] | None = None, *args: Any, **kwargs: Any
    ) -> LLMResult:
        """Answer prompts; see `BaseLLM.agenerate`."""
        stop, identity = await run_in_executor(None, self._stop_and_identity, stop, kwargs)
        with self._identified_by(identity):
            return await super().agenerate(prompts, stop, *args, **kwargs)

    @contextmanager
    def _identified_by(self, identity: dict[str, Any]) -> Iterator[None]:
        token = _identity_of_call.set((self, identity))
        try:
            yield
        finally:
            _identity_of_call.reset(token)

    def _stop_and_identity(
        self, stop: list[str] | None, kwargs: Mapping[str, Any]
    ) -> tuple[list[str] | None, dict[str, Any]]:
        """Return the stop sequences of a call, and its cache key; the call itself refuses wrong options."""
        of_langchain = {"callbacks", "tags", "metadata", "run_name", "run_id"}
        options = {name: value for name, value in kwargs.items() if name not in of_langchain}
        try:
            identity = self._identity(stop, options)
        except InvalidRequestError:
            return stop, {"model_name": self.model_name, "refused": repr(hide_key(options))}
        return identity["stop"], identity

    @short_traceback
    def _generate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        with self._expecting():
            answers = self._begin(prompts, stop, kwargs)
        listener = run_manager if len(answers) == 1 else None  # the tokens of several answers would be mixed
        with cancelling(answer.generation for answer in answers):
            for answer in answers:
                for piece in answer.generation:
                    chunk = answer.add(piece)
                    if listener and chunk.text:
                        listener.on_llm_new_token(chunk.text, chunk=chunk)
        return self._result(answers, len(answers) // len(prompts) if prompts else 1)

    @short_traceback
    async def _agenerate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        answers = await begun_off_loop(partial(self._begin, prompts, stop, kwargs), cancel_answer, self._expecting())
        listener = run_manager if len(answers) == 1 else None
        with cancelling(answer.generation for answer in answers):
            for answer in answers:
                async for piece in answer.generation:
                    chunk = await added_off_loop(answer.add, piece)
                    if listener and chunk.text:
                        await listener.on_llm_new_token(chunk.text, chunk=chunk)
        return self._result(answers, len(answers) // len(prompts) if prompts else 1)

    @short_traceback
    def _stream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[GenerationChunk]:
        with self._expecting():
            [answer] = self._begin([prompt], stop, kwargs, streams=True)
        for piece in answer.generation:
            chunk = answer.add(piece)
            show_warnings([answer])
            if chunk.text or chunk.generation_info:
                if run_manager:
                    run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    @short_traceback
    async def _astream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[GenerationChunk]:
        begin = partial(self._begin, [prompt], stop, kwargs, streams=True)
        [answer] = await begun_off_loop(begin, cancel_answer, self._expecting())
        with cancelling([answer.generation]):  # cancels at once; without it, only when the loop closes the generator
            async for piece in answer.generation:
                chunk = await added_off_loop(answer.add, piece)
                show_warnings([answer])
                if chunk.text or chunk.generation_info:
                    if run_manager:
                        await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk

    def _begin(
        self, prompts: Sequence[str], stop: list[str] | None, kwargs: Mapping[str, Any], *, streams: bool = False
    ) -> list[_Answer]:
        """Submit prompts to the engine."""
        options = self._call_options(stop, kwargs, streams=streams)
        self._tell(options.warnings)
        # an empty prompt gets no tokens, even if the tokenizer adds a special token
        encoded = [self.get_token_ids(prompt) if prompt else [] for prompt in prompts]
        generations = self._submit(encoded, options)
        return [
            _Answer(generation, options, self._token_text, counts_prompt=index % options.n == 0)
            for index, generation in enumerate(generations)
        ]

    def _result(self, answers: Sequence[_Answer], n: int) -> LLMResult:
        show_warnings(answers)
        texts = [TextGeneration(text="".join(each.texts), generation_info=each.info) for each in answers]
        usage = summed_usage([each.token_usage for each in answers])
        return LLMResult(
            generations=[texts[start : start + n] for start in range(0, len(texts), n)],
            llm_output={"token_usage": usage, "model_name": self.model_name},
        )


class _Answer:
    """The text and the metadata of one answer, collected from its pieces.

    `info` (LangChain's `generation_info`) and `warnings` are complete after the last piece.
    """

    def __init__(
        self,
        generation: Generation,
        options: GenerationOptions,
        token_text: Callable[[int], str],
        *,
        counts_prompt: bool,
    ) -> None:
        self.generation, self._options, self._token_text = generation, options, token_text
        self._counts_prompt = counts_prompt
        self.warnings: list[str] = []
        self.texts: list[str] = []
        self.tokens = 0
        self.info: dict[str, Any] = {}

    @property
    def token_usage(self) -> dict[str, int]:
        return token_usage(self.generation, self.tokens, counts_prompt=self._counts_prompt)

    def add(self, piece: Piece) -> GenerationChunk:
        self.texts.append(piece.text)
        self.tokens = piece.generated
        info: dict[str, Any] = {}
        if piece.logprobs is not None:
            info["logprobs"] = {"content": [piece.logprobs.openai_format(self._token_text)]}
            self.info.setdefault("logprobs", {"content": []})["content"] += info["logprobs"]["content"]
        if piece.finish_reason is not None:
            info |= {"finish_reason": piece.finish_reason, "token_usage": self.token_usage}
            problem = self._options.problem_of("".join(self.texts))
            if problem is not None:
                info["schema_error"] = problem
                self.warnings.append(f"An answer breaks its json_schema: {problem}")
            if piece.finish_reason == "length" and self._options.constraint is not None:
                self.warnings.append(CUT_SHORT)
            self.info = info | self.info
        return GenerationChunk(text=piece.text, generation_info=info or None)
