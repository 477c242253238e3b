"""Traces contain the options that a call used, from whichever source."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import HumanMessage
from local_engine import LocalEngine

from langchain_petals import ChatPetals, Petals
from langchain_petals.engine import engines
from langchain_petals.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

both = pytest.mark.parametrize("model_class", [Petals, ChatPetals])


class Tracer(BaseCallbackHandler):
    """Records the parameters of calls that begin.

    Attributes:
        metadata: What LangSmith shows.
        params: What it calls `invocation_params`.
    """

    def __init__(self) -> None:
        self.metadata: dict[str, Any] = {}
        self.params: dict[str, Any] = {}

    def on_llm_start(self, *_: Any, **told: Any) -> None:
        self.metadata, self.params = told["metadata"], told["invocation_params"]

    on_chat_model_start = on_llm_start


async def _read(stream: Any) -> None:
    async for _ in stream:
        pass


WAYS: dict[str, Callable[..., object]] = {
    "invoke": lambda asked, config, **options: asked.invoke("Hi", config, **options),
    "ainvoke": lambda asked, config, **options: asyncio.run(asked.ainvoke("Hi", config, **options)),
    "stream": lambda asked, config, **options: list(asked.stream("Hi", config, **options)),
    "astream": lambda asked, config, **options: asyncio.run(_read(asked.astream("Hi", config, **options))),
    "batch": lambda asked, config, **options: asked.batch(["Hi"], config, **options),
    "bind": lambda asked, config, **options: asked.bind(**options).invoke("Hi", config),
    "bind and stream": lambda asked, config, **options: list(asked.bind(**options).stream("Hi", config)),
    "batch_as_completed": lambda asked, config, **options: list(asked.batch_as_completed(["Hi"], config, **options)),
}
by_all_ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


@pytest.fixture
def loaded(tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {"client": tiny_model, "tokenizer": tiny_tokenizer, "model": "tiny"}


def told(metadata: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metadata.items() if name in OF_CALL}


OF_CALL = ("ls_provider", "ls_model_name", "ls_temperature", "ls_max_tokens", "ls_stop")
SAID = {"ls_provider": "petals", "ls_model_name": "tiny"}


@by_all_ways
@both
@pytest.mark.parametrize(
    ("fields", "options", "expected"),
    [
        ({"max_tokens": 3}, {}, {"ls_temperature": 0.7, "ls_max_tokens": 3}),
        ({"max_tokens": 3}, {"temperature": 0.0}, {"ls_temperature": 0.0, "ls_max_tokens": 3}),
        ({"max_tokens": 3}, {"temperature": 0}, {"ls_temperature": 0.0, "ls_max_tokens": 3}),
        ({"max_tokens": 3, "temperature": 0.2}, {"temperature": None}, {"ls_temperature": 0.2, "ls_max_tokens": 3}),
        ({}, {"max_tokens": 2}, {"ls_temperature": 0.7, "ls_max_tokens": 2}),
        ({}, {"max_new_tokens": 2}, {"ls_temperature": 0.7, "ls_max_tokens": 2}),
        ({"model_kwargs": {"max_new_tokens": 2, "temperature": 0.1}}, {}, {"ls_temperature": 0.1, "ls_max_tokens": 2}),
        ({"max_length": 100, "model_kwargs": {"stop": "x"}}, {}, {"ls_temperature": 0.7, "ls_stop": ["x"]}),
        ({"max_tokens": 3}, {"max_length": 100}, {"ls_temperature": 0.7}),
        ({"max_tokens": 3, "stop": ["a"]}, {}, {"ls_temperature": 0.7, "ls_max_tokens": 3, "ls_stop": ["a"]}),
        (
            {"max_tokens": 3, "stop": ["a"]},
            {"stop": ["b"]},
            {"ls_temperature": 0.7, "ls_max_tokens": 3, "ls_stop": ["b"]},
        ),
        ({"max_tokens": 3, "stop": ["a"]}, {"stop": []}, {"ls_temperature": 0.7, "ls_max_tokens": 3}),
    ],
    ids=str,
)
def test_traces_contain_the_options_that_a_call_used(
    model_class: type[Petals],
    way: Callable[..., object],
    loaded: dict[str, Any],
    *,
    fields: dict[str, Any],
    options: dict[str, Any],
    expected: dict[str, Any],
) -> None:
    tracer = Tracer()
    way(model_class(**loaded, **fields), {"callbacks": [tracer]}, **options)
    assert told(tracer.metadata) == SAID | expected
    params = tracer.params
    assert params["temperature"] == expected["ls_temperature"]
    assert params["max_new_tokens"] == expected.get("ls_max_tokens")
    assert (params["stop"] or None) == expected.get("ls_stop")
    assert params.get("max_tokens", params["max_new_tokens"]) == params["max_new_tokens"]


@by_all_ways
@both
def test_all_options_of_a_call_are_traced(
    model_class: type[Petals], way: Callable[..., object], loaded: dict[str, Any]
) -> None:
    options = {"top_p": 0.5, "top_k": 3, "seed": 7, "do_sample": False, "repetition_penalty": 1.5, "max_tokens": 2}
    tracer = Tracer()
    way(model_class(**loaded), {"callbacks": [tracer]}, **options)
    del options["max_tokens"]
    assert {name: tracer.params[name] for name in options} == options


@pytest.mark.parametrize("name", ["model", "model_name"])
@by_all_ways
def test_traces_contain_the_model_that_a_call_used(
    way: Callable[..., object],
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    tiny_model: LlamaForCausalLM,
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    engine, tracer = LocalEngine(tiny_model, tiny_tokenizer), Tracer()
    monkeypatch.setattr(engines, "connect", lambda _: engine)
    way(ChatPetals(model="a/model", max_tokens=2), {"callbacks": [tracer]}, **{name: "another/model"})
    assert tracer.metadata["ls_model_name"] == "another/model"
    result = ChatPetals(model="a/model", max_tokens=2).generate([[HumanMessage("Hi")]], **{name: "another/model"})
    assert result.llm_output is not None
    assert result.llm_output["model_name"] == "another/model"


@by_all_ways
@both
def test_a_call_with_wrong_options_is_traced_too(
    model_class: type[Petals], way: Callable[..., object], loaded: dict[str, Any]
) -> None:
    tracer = Tracer()
    for wrong in ({"temperature": "warm"}, {"stop": 5}, {"temprature": 1}):
        tracer.metadata = {}
        with pytest.raises(InvalidRequestError):
            way(model_class(**loaded), {"callbacks": [tracer]}, **wrong)
        assert tracer.metadata["ls_model_name"] == "tiny"


@both
def test_a_call_inside_a_call_of_another_object_has_its_own_options(
    model_class: type[Petals], loaded: dict[str, Any]
) -> None:
    inner = model_class(**loaded, temperature=0.25)

    class Looker(BaseCallbackHandler):
        def on_llm_start(self, *_: Any, **__: Any) -> None:
            seen.append(inner._identifying_params["temperature"])

        on_chat_model_start = on_llm_start

    seen: list[float] = []
    model_class(**loaded, max_tokens=2).invoke("Hi", {"callbacks": [Looker()]}, temperature=0.5)
    assert seen == [0.25]
