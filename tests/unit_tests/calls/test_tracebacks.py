"""What a user sees of an error: the own line, LangChain's frames, one of this package, and the text."""

from __future__ import annotations

import asyncio
import re
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from leaks import raised
from scripted_session import ScriptedEngine, ScriptedSession

import langchain_petals
from langchain_petals import ChatPetals, Petals
from langchain_petals.calls.tracebacks import short_traceback
from langchain_petals.engine import Connection, engines
from langchain_petals.errors import (
    BlocksMissingError,
    HubUnreachableError,
    InvalidRequestError,
    OutputLimitError,
    PetalsError,
    PetalsNotInstalledError,
    PromptTooLongError,
    SpanFailedError,
    SwarmUnreachableError,
    reason_of,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

PACKAGE = str(Path(langchain_petals.__file__).parent)

both = pytest.mark.parametrize("model_class", [Petals, ChatPetals])


async def _astream(model: Any, prompt: str, **options: Any) -> None:
    async for _ in model.astream(prompt, **options):
        pass


WAYS: dict[str, Callable[..., object]] = {
    "invoke": lambda model, prompt, **options: model.invoke(prompt, **options),
    "ainvoke": lambda model, prompt, **options: asyncio.run(model.ainvoke(prompt, **options)),
    "stream": lambda model, prompt, **options: list(model.stream(prompt, **options)),
    "astream": lambda model, prompt, **options: asyncio.run(_astream(model, prompt, **options)),
    "batch": lambda model, prompt, **options: model.batch([prompt], **options),
    "bind": lambda model, prompt, **options: model.bind(**options).invoke(prompt),
    "generate": lambda model, prompt, **options: model.generate_prompt([model._convert_input(prompt)], **options),
}
by_all_ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def own_frames(error: BaseException) -> list[str]:
    """Return the frames of this package that a traceback shows, those of its causes included."""
    shown = "".join(traceback.format_exception(error))
    return re.findall(rf'File "{re.escape(PACKAGE)}/[^"]*", line \d+, in \w+', shown)


def is_short(error: BaseException) -> bool:
    return len(own_frames(error)) == 1 and error.__cause__ is None and error.__context__ is None


@pytest.fixture
def loaded(tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {"client": tiny_model, "tokenizer": tiny_tokenizer, "model": "tiny", "temperature": 0, "max_tokens": 4}


@by_all_ways
@both
@pytest.mark.parametrize(
    ("prompt", "options", "kind"),
    [
        ("Hi", {"temprature": 1}, InvalidRequestError),
        ("Hi", {"temperature": "warm"}, InvalidRequestError),
        ("Hi", {"regex": "("}, InvalidRequestError),
        ("Hi", {"bad_words_ids": [[99_999]]}, InvalidRequestError),
        ("word " * 2000, {}, PromptTooLongError),
        ("Hi", {"regex": "[0-9]{30}"}, OutputLimitError),
    ],
    ids=["name", "type", "form", "in the engine", "prompt", "limit"],
)
def test_an_error_of_a_call_has_one_frame_of_this_package(
    model_class: type[Petals],
    way: Callable[..., object],
    loaded: dict[str, Any],
    *,
    prompt: str,
    options: dict[str, Any],
    kind: type[PetalsError],
) -> None:
    model = model_class(**loaded)
    error = raised(lambda: way(model, prompt, **options))
    assert type(error) is kind
    assert is_short(error), "".join(traceback.format_exception(error))


def caused(error: PetalsError) -> PetalsError:
    """Return an error that was raised, from a cause that was."""
    try:
        try:
            int("x")
        except ValueError as cause:
            raise error from cause
    except PetalsError as found:
        return found
    pytest.fail("nothing was raised")


@by_all_ways
@both
@pytest.mark.parametrize(
    "error",
    [
        SwarmUnreachableError("nobody"),
        BlocksMissingError([3], "prefix"),
        SpanFailedError(1, 2, 3, TimeoutError("no answer")),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_of_the_swarm_has_one_frame_of_this_package(
    model_class: type[Petals], way: Callable[..., object], error: PetalsError, loaded: dict[str, Any]
) -> None:
    def open_session(_: int) -> ScriptedSession:
        raise caused(error)

    model = model_class(**loaded)
    engine = ScriptedEngine(model.tokenizer, open_session)
    model._engine = engine
    found = raised(lambda: way(model, "Hi"))
    assert (type(found), str(found), vars(found)) == (type(error), str(error), vars(error))
    assert is_short(found), "".join(traceback.format_exception(found))


@by_all_ways
@both
def test_an_error_of_loading_has_one_frame_of_this_package(
    model_class: type[Petals], way: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(_: Connection) -> Any:
        raise caused(HubUnreachableError("the hub"))

    monkeypatch.setattr(engines, "connect", load)
    assert is_short(raised(lambda: way(model_class(model="a/b"), "Hi")))
    assert is_short(raised(lambda: model_class(model="a/b", preload=True)))
    assert is_short(raised(lambda: model_class(model="a/b").get_num_tokens("Hi")))


@by_all_ways
def test_an_error_of_a_template_has_one_frame_of_this_package(
    way: Callable[..., object], loaded: dict[str, Any]
) -> None:
    for template in ("{{ raise_exception('no') }}", "{{ messages[7].content }}", "{% for"):
        error = raised(lambda: way(ChatPetals(**loaded, chat_template=template), "Hi"))  # noqa: B023 - called at once
        assert isinstance(error, InvalidRequestError)
        assert is_short(error)


@both
def test_an_error_of_the_constructor_has_one_frame_of_this_package(model_class: type[Petals]) -> None:
    for wrong in ({"temperature": "warm"}, {"temprature": 1}, {"initial_peers": ["x"]}, {"stop": 5, "n": []}):
        assert is_short(raised(lambda: model_class(**{"model": "m"} | wrong)))  # noqa: B023 - called at once
    assert is_short(raised(lambda: model_class({})))


def test_an_error_of_binding_has_one_frame_of_this_package(loaded: dict[str, Any]) -> None:
    chat = ChatPetals(**loaded)
    for bind in (
        lambda: chat.bind_tools([5]),
        lambda: chat.bind_tools([], tool_choice="x"),
        lambda: chat.with_structured_output({"type": "object", "properties": {"a": {"type": "nothing"}}}),
    ):
        assert is_short(raised(bind))


@both
def test_an_error_of_another_type_keeps_its_frames(model_class: type[Petals], loaded: dict[str, Any]) -> None:
    def open_session(_: int) -> ScriptedSession:
        msg = "a fault"
        raise LookupError(msg)

    model = model_class(**loaded)
    engine = ScriptedEngine(model.tokenizer, open_session)
    model._engine = engine
    for way in WAYS.values():
        error = raised(lambda: way(model, "Hi"))  # noqa: B023 - called at once
        assert isinstance(error, LookupError)
        assert len(own_frames(error)) > 3


@both
def test_callbacks_get_the_error_without_frames(model_class: type[Petals], loaded: dict[str, Any]) -> None:
    class Listener(BaseCallbackHandler):
        def on_llm_error(self, error: BaseException, **_: Any) -> None:
            heard.append((error, own_frames(error)))

    heard: list[tuple[BaseException, list[str]]] = []
    raised(lambda: model_class(**loaded).invoke("Hi", temprature=1, config={"callbacks": [Listener()]}))
    [(error, frames)] = heard
    assert isinstance(error, InvalidRequestError)
    assert len(frames) == 1


@both
def test_calls_ended_by_one_error_get_one_copy_each(model_class: type[Petals], loaded: dict[str, Any]) -> None:
    shared = SwarmUnreachableError("nobody")

    def open_session(_: int) -> ScriptedSession:
        raise shared

    model = model_class(**loaded, batch_window=60_000, max_batch_size=3)
    engine = ScriptedEngine(model.tokenizer, open_session)
    model._engine = engine
    errors = [error for _, error in model.batch_as_completed(["Hi"] * 3, return_exceptions=True)]
    assert [type(error) for error in errors] == [SwarmUnreachableError] * 3
    assert len({id(error) for error in [*errors, shared]}) == 4
    assert all(map(is_short, errors))


def test_a_package_that_cannot_be_imported_keeps_its_cause() -> None:
    @short_traceback
    def load() -> None:
        msg = "petals could not be imported"
        raise PetalsNotInstalledError(msg) from ImportError("no module named speedtest")

    error = raised(load)
    assert str(error.__cause__) == "no module named speedtest"


def test_the_frames_of_an_error_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    @short_traceback
    def fail() -> None:
        raise caused(SwarmUnreachableError("nobody"))

    with caplog.at_level("DEBUG", "langchain_petals.tracebacks"):
        raised(fail)
    assert 'int("x")' in caplog.text


async def test_closing_a_decorated_generator_closes_the_inner_one() -> None:
    closed = []

    @short_traceback
    def numbers() -> Iterator[int]:
        try:
            yield from range(9)
        finally:
            closed.append("sync")

    @short_traceback
    async def anumbers() -> AsyncIterator[int]:
        try:
            for number in range(9):
                yield number
        finally:
            closed.append("async")

    generator, agenerator = numbers(), anumbers()
    assert (next(generator), await anext(agenerator)) == (0, 0)
    generator.close()  # type: ignore[attr-defined]
    await agenerator.aclose()  # type: ignore[attr-defined]
    assert closed == ["sync", "async"]


# ---- texts


class P2PDaemonError(Exception):
    """Named like hivemind's."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (P2PDaemonError("Daemon failed to start: 2024/11/26 06:29:01 failed to connect"), "failed to connect"),
        (P2PDaemonError("Daemon failed to start in 15.0 seconds"), "no answer within 15.0 seconds"),
        (P2PDaemonError("Daemon failed to start: None"), "no connection"),
        (P2PDaemonError("Failed to start p2pd daemon: [Errno 12]"), "[Errno 12]"),
        (P2PDaemonError(""), "no connection"),
        (P2PDaemonError("the daemon is gone"), "the p2pd is gone"),
        (RuntimeError("Nov 26 06:29:01.123 [ERROR] boom"), "RuntimeError: [ERROR] boom"),
        (RuntimeError("2024-11-26T06:29:01.123456Z boom"), "RuntimeError: boom"),
        (TimeoutError("no answer"), "TimeoutError: no answer"),
    ],
    ids=str,
)
def test_errors_of_hivemind_are_put_in_plain_words(error: Exception, said: str) -> None:
    assert reason_of(error) == said
    assert "aemon" not in str(SpanFailedError(1, 2, 3, error))
