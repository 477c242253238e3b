"""What may take long runs on other threads than the event loop's: loading, rendering, tokenizing, compiling."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import queue
import threading
from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.messages import HumanMessage
from local_engine import LocalEngine
from pydantic import BaseModel, create_model
from saying_model import SayingModel
from transformers import PreTrainedTokenizerFast

from langchain_petals import ChatPetals, Petals
from langchain_petals.calls.off_loop import begun_off_loop
from langchain_petals.chat.prompt import PromptBuilder
from langchain_petals.chat.response_format import ResponseFormat
from langchain_petals.chat.templates.sandbox import SandboxedTemplate
from langchain_petals.engine import engines
from langchain_petals.grammars import builders as grammars
from langchain_petals.grammars.check import SchemaCheck

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from transformers import LlamaForCausalLM

    Way = Callable[..., Awaitable[object]]


async def _streamed(asked: Any, prompt: str, **options: Any) -> None:
    async for _ in asked.astream(prompt, **options):
        pass


async def _generated(asked: Any, prompt: str, **options: Any) -> None:
    await asked.agenerate([prompt] if isinstance(asked, Petals) else [[HumanMessage(prompt)]], **options)


async def _completed(asked: Any, prompt: str, **options: Any) -> None:
    async for _ in asked.abatch_as_completed([prompt, prompt], **options):
        pass


WAYS: dict[str, Way] = {
    "ainvoke": lambda asked, prompt, **options: asked.ainvoke(prompt, **options),
    "astream": _streamed,
    "abatch": lambda asked, prompt, **options: asked.abatch([prompt, prompt], **options),
    "agenerate": _generated,
    "abatch_as_completed": _completed,
}

by_all_ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
both = pytest.mark.parametrize("model_class", [Petals, ChatPetals])


class Watch:
    """Remembers what was called, and what of it on the thread of an event loop.

    Attributes:
        called: Names of what was called.
        on_loop: Names of what was called there.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self.called: set[str] = set()
        self.on_loop: set[str] = set()

    def note(self, name: str) -> None:
        self.called.add(name)
        with contextlib.suppress(RuntimeError):  # no loop runs on this thread
            asyncio.get_running_loop()
            self.on_loop.add(name)

    def over(self, owner: Any, attribute: str, name: str) -> None:
        """Watch a function."""
        function = getattr(owner, attribute)

        @functools.wraps(function)
        def watched(*arguments: Any, **options: Any) -> Any:
            self.note(name)
            return function(*arguments, **options)

        self._patch.setattr(owner, attribute, watched)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    watch = Watch(monkeypatch)
    watch.over(PreTrainedTokenizerFast, "__call__", "tokenize")
    watch.over(SandboxedTemplate, "render", "render")
    watch.over(grammars, "schema_rule", "compile")
    watch.over(ResponseFormat, "constraint", "compile")
    watch.over(PromptBuilder, "remember", "remember")
    return watch


@by_all_ways
@both
async def test_prompts_and_constraints_are_prepared_on_another_thread(
    model_class: Any,
    way: Way,
    watch: Watch,
    tiny_model: LlamaForCausalLM,
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    fields = {"client": tiny_model, "tokenizer": tiny_tokenizer, "model": "tiny", "max_tokens": 40}
    model = model_class(**fields)
    form: dict[str, Any] = {"json_schema": create_model("ObjectSchema", yes=(bool, ...))}
    if model_class is ChatPetals:
        form = {"response_format": form["json_schema"]}
    await way(model, "Who are you? " * 50, **form)
    assert watch.called >= {"tokenize", "compile"}
    assert (watch.called >= {"render", "remember"}) == (model_class is ChatPetals)
    assert not watch.on_loop


@pytest.fixture(scope="module")
def caller(tiny_tokenizer: PreTrainedTokenizerFast) -> SayingModel:
    """Return a model that calls a tool."""
    says = '<tool_call>\n{"name": "Add", "arguments": {"a": 1, "b": 2}}\n</tool_call>'
    return SayingModel(tiny_tokenizer, says)


@by_all_ways
async def test_tools_are_compiled_and_calls_respelled_on_another_thread(
    way: Way, watch: Watch, caller: SayingModel, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    class Add(BaseModel):
        """Add two numbers."""

        a: int
        b: int

    chat = ChatPetals(client=caller, tokenizer=tiny_tokenizer, model="tiny", max_batch_size=1)
    watch.over(PromptBuilder, "_respelled", "retell")
    await way(chat, "What is 1 and 2?", tools=[Add], temperature=0)
    assert watch.called == {"tokenize", "render", "compile", "remember", "retell"}
    assert not watch.on_loop


@by_all_ways
@both
async def test_a_model_is_loaded_on_another_thread(
    model_class: type[Petals],
    way: Way,
    monkeypatch: pytest.MonkeyPatch,
    tiny_model: LlamaForCausalLM,
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    watch, engine = Watch(monkeypatch), LocalEngine(tiny_model, tiny_tokenizer)
    monkeypatch.setattr(engines, "connect", lambda connection: (watch.note(connection.model), engine)[1])
    await way(model_class(model="a/model", max_tokens=2), "Hi")
    assert watch.called == {"a/model"}
    assert not watch.on_loop


@pytest.mark.parametrize("preload", [False, True])
@by_all_ways
async def test_another_model_for_a_call_is_loaded_on_another_thread(
    preload: bool,  # noqa: FBT001 - a test's parameter
    way: Way,
    monkeypatch: pytest.MonkeyPatch,
    tiny_model: LlamaForCausalLM,
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    watch, engine = Watch(monkeypatch), LocalEngine(tiny_model, tiny_tokenizer)
    monkeypatch.setattr(engines, "connect", lambda connection: (watch.note(connection.model), engine)[1])
    chat = await asyncio.to_thread(ChatPetals, model="a/model", max_tokens=2, preload=preload)
    await way(chat, "Hi", model="another/model")
    assert "another/model" in watch.called
    assert not watch.on_loop


async def test_generations_of_a_cancelled_task_are_cancelled() -> None:
    begun, go_on = threading.Event(), threading.Event()
    cancelled: queue.SimpleQueue[str] = queue.SimpleQueue()

    def begin() -> list[str]:
        begun.set()
        assert go_on.wait(30)
        return ["first", "second"]

    task = asyncio.create_task(begun_off_loop(begin, cancelled.put, contextlib.nullcontext()))
    assert await asyncio.to_thread(begun.wait, 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cancelled.empty()
    go_on.set()
    assert [await asyncio.to_thread(cancelled.get, timeout=30) for _ in range(2)] == ["first", "second"]


async def test_an_error_on_the_other_thread_is_raised_by_the_call() -> None:
    def fail() -> list[str]:
        raise KeyError

    with pytest.raises(KeyError):
        await begun_off_loop(fail, str, contextlib.nullcontext())


@by_all_ways
@both
@pytest.mark.filterwarnings("ignore:In (the schema|json_schema)", "ignore:An answer breaks its")
async def test_answers_are_checked_on_another_thread(
    model_class: type[Petals],
    way: Way,
    watch: Watch,
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    watch.over(SchemaCheck, "problem", "check")
    schema = {"type": "object", "properties": {"x": {"not": {"type": "integer"}}}, "required": ["x"]}
    saying = SayingModel(tiny_tokenizer, '{"x": 5}')
    model = model_class(client=saying, tokenizer=tiny_tokenizer, model="tiny", temperature=0, max_batch_size=1)
    form = {"type": "json_schema", "json_schema": {"name": "form", "schema": schema}}
    await way(model, "Which?", **({"json_schema": schema} if model_class is Petals else {"response_format": form}))
    assert "check" in watch.called
    assert "check" not in watch.on_loop
