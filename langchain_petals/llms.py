"""`Petals`, LangChain's LLM interface to a Petals swarm.

A call goes: prompt text -> token ids (the model's own tokenizer) -> the engine -> pieces of text. `invoke`, `batch`,
`stream` and their async twins are thin adapters over `engine.submit`.
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from langchain_core.language_models.llms import BaseLLM
from langchain_core.outputs import Generation as TextGeneration
from langchain_core.outputs import GenerationChunk, LLMResult
from langchain_core.runnables import run_in_executor

from langchain_petals.engine.generation import cancelling
from langchain_petals.logprobs import described
from langchain_petals.options import CUT_SHORT, JsonSchema
from langchain_petals.parameters import PetalsParameters
from langchain_petals.schemas import is_class_of_forms, json_schema_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence

    from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
    from langchain_core.language_models import LangSmithParams

    from langchain_petals.engine.generation import Generation, Piece
    from langchain_petals.options import GenerationOptions


_OF_LANGCHAIN = frozenset({"stop", "callbacks", "tags", "metadata", "run_name", "run_id"})
"""Arguments of `generate` that are no options of the answer; LangChain has `stop` in a cache's key itself."""

# LangChain makes a cache's key of the object's own fields and leaves out what the call says
_options_of_call: ContextVar[dict[str, Any]] = ContextVar("options_of_call", default={})  # noqa: B039 - never changed


class Petals(PetalsParameters, BaseLLM):
    r"""A language model whose transformer blocks are served by a Petals swarm.

    Drop-in replacement for `langchain_community.llms.Petals`.

    Example:
        .. code-block:: python

            from langchain_petals import Petals
            from langchain_petals.swarm import LocalSwarm

            with LocalSwarm() as swarm:
                llm = Petals(**swarm.connection, temperature=0)
                for piece in llm.stream("Human: Who are you?\nAI:"):
                    print(piece, end="", flush=True)
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
        own = {name: getattr(self, name) for name in ("json_schema", "regex", "grammar")}
        return super()._identifying_params | own | _options_of_call.get()

    @classmethod
    def get_lc_namespace(cls) -> list[str]:
        """Return where `langchain_core.load.loads` finds the class."""
        return ["langchain_petals", "llms"]

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        options = self._call_options(stop, {})
        params = super()._get_ls_params(stop=list(options.stop) or None, **kwargs)
        params["ls_provider"] = "petals"
        params["ls_model_name"] = self.model_name
        params["ls_temperature"] = options.temperature
        if options.max_new_tokens is not None:
            params["ls_max_tokens"] = options.max_new_tokens
        return params

    def generate(self, prompts: list[str], *args: Any, **kwargs: Any) -> LLMResult:
        """Answer prompts; see `BaseLLM.generate`."""
        with _keyed_by(kwargs):
            return super().generate(prompts, *args, **kwargs)

    async def agenerate(self, prompts: list[str], *args: Any, **kwargs: Any) -> LLMResult:
        """Answer prompts; see `BaseLLM.agenerate`."""
        with _keyed_by(kwargs):
            return await super().agenerate(prompts, *args, **kwargs)

    def _generate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        options = self._call_options(stop, kwargs)
        generations = self._submit(self._encoded(prompts), options)
        listener = run_manager if len(prompts) == options.n == 1 else None  # tokens of several answers would mix
        answers = []
        with cancelling(generations):
            for generation in generations:
                answers.append(_Answer(self._token_text, options))
                for piece in generation:
                    chunk = answers[-1].add(piece)
                    if listener and chunk.text:
                        listener.on_llm_new_token(chunk.text, chunk=chunk)
        return self._result(answers, generations, options.n)

    async def _agenerate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        options = self._call_options(stop, kwargs)
        await run_in_executor(None, self._get_client)
        generations = self._submit(self._encoded(prompts), options)
        listener = run_manager if len(prompts) == options.n == 1 else None
        answers = []
        with cancelling(generations):
            for generation in generations:
                answers.append(_Answer(self._token_text, options))
                async for piece in generation:
                    chunk = answers[-1].add(piece)
                    if listener and chunk.text:
                        await listener.on_llm_new_token(chunk.text, chunk=chunk)
        return self._result(answers, generations, options.n)

    def _stream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[GenerationChunk]:
        options = self._call_options(stop, kwargs, streams=True)
        answer = _Answer(self._token_text, options)
        [generation] = self._submit(self._encoded([prompt]), options)
        for piece in generation:
            chunk = answer.add(piece)
            _warn([answer])
            if chunk.text or chunk.generation_info:
                if run_manager:
                    run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    async def _astream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[GenerationChunk]:
        options = self._call_options(stop, kwargs, streams=True)
        answer = _Answer(self._token_text, options)
        await run_in_executor(None, self._get_client)
        [generation] = self._submit(self._encoded([prompt]), options)
        with cancelling([generation]):  # at once, where the loop would get round to it later
            async for piece in generation:
                chunk = answer.add(piece)
                _warn([answer])
                if chunk.text or chunk.generation_info:
                    if run_manager:
                        await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk

    def _encoded(self, prompts: Sequence[str]) -> list[list[int]]:
        """Return the prompts' token ids; none for an empty one, though a tokenizer may put a special token first."""
        return [self.get_token_ids(prompt) if prompt else [] for prompt in prompts]

    def _result(self, answers: Sequence[_Answer], generations: Sequence[Generation], n: int) -> LLMResult:
        _warn(answers)
        texts = [TextGeneration(text="".join(each.texts), generation_info=each.info) for each in answers]
        prompt_tokens = sum(len(generation.request.prompt_ids) for generation in generations[::n])
        completion_tokens = sum(each.tokens for each in answers)
        usage = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
            "cached_tokens": sum(generation.reused_tokens for generation in generations),
        }
        return LLMResult(
            generations=[texts[start : start + n] for start in range(0, len(texts), n)],
            llm_output={"token_usage": usage, "model_name": self.model_name},
        )


@contextmanager
def _keyed_by(kwargs: dict[str, Any]) -> Iterator[None]:
    """Let a cache tell a call apart by its options, too; of a class by its schema, since two may have one name."""
    options = {name: value for name, value in kwargs.items() if name not in _OF_LANGCHAIN}
    if is_class_of_forms(options.get("json_schema")):
        options["json_schema"] = json_schema_of(options["json_schema"])
    token = _options_of_call.set(options)
    try:
        yield
    finally:
        _options_of_call.reset(token)


def _warn(answers: Iterable[_Answer]) -> None:
    """Say once what is wrong with answers of a given form."""
    for warning in dict.fromkeys(each for answer in answers for each in answer.warnings):
        warnings.warn(warning, stacklevel=3)


class _Answer:
    """What has come of one answer.

    Args:
        token_text: Gives the text of a token id, for log-probabilities.
        options: What was asked for.

    Attributes:
        warnings: What is wrong with it, once it has ended.
    """

    def __init__(self, token_text: Callable[[int], str], options: GenerationOptions) -> None:
        self._token_text, self._options = token_text, options
        self._problem: str | None = None
        self.warnings: list[str] = []
        self.texts: list[str] = []
        self.tokens = 0
        self._logprobs: list[dict[str, Any]] = []
        self._finish_reason: str | None = None

    @property
    def info(self) -> dict[str, Any]:
        """What LangChain calls `generation_info`."""
        info: dict[str, Any] = {"finish_reason": self._finish_reason}
        if self._problem is not None:
            info["schema_error"] = self._problem
        return info | {"logprobs": {"content": self._logprobs}} if self._logprobs else info

    def add(self, piece: Piece) -> GenerationChunk:
        self.texts.append(piece.text)
        self.tokens = piece.generated
        info: dict[str, Any] = {}
        if piece.logprobs is not None:
            self._logprobs.append(described(piece.logprobs, self._token_text))
            info["logprobs"] = {"content": self._logprobs[-1:]}
        if piece.finish_reason is not None:
            info["finish_reason"] = self._finish_reason = piece.finish_reason
            self._problem = self._options.problem_of("".join(self.texts))
            if self._problem is not None:
                info["schema_error"] = self._problem
                self.warnings.append(f"An answer breaks its json_schema: {self._problem}")
            if piece.finish_reason == "length" and self._options.constraint is not None:
                self.warnings.append(CUT_SHORT)
        return GenerationChunk(text=piece.text, generation_info=info or None)
