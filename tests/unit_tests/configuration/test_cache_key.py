"""The key of LangChain's caches: all that an answer depends on, and nothing else."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal

import pytest
from langchain_core.caches import BaseCache, InMemoryCache
from local_engine import LocalEngine
from peer_addresses import ADDRESS, PEER_ID
from pydantic import BaseModel, create_model
from saying_model import SayingModel

from langchain_petals import ChatPetals, Petals
from langchain_petals.engine import Connection, engines
from langchain_petals.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

OTHER_ADDRESS = ADDRESS.replace("10.1.2.3", "10.9.9.9")

both = pytest.mark.parametrize("model_class", [Petals, ChatPetals])


class Keys(BaseCache):
    """A cache that remembers under which keys it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def lookup(self, prompt: str, llm_string: str) -> Sequence[Any] | None:  # noqa: ARG002 - the interface
        self.asked.append(llm_string)
        return None

    def update(self, prompt: str, llm_string: str, return_val: Sequence[Any]) -> None:
        pass

    def clear(self, **_: Any) -> None:
        self.asked.clear()


@pytest.fixture(scope="module")
def saying(tiny_tokenizer: PreTrainedTokenizerFast) -> SayingModel:
    return SayingModel(tiny_tokenizer, "Hello!")


@pytest.fixture
def key(
    monkeypatch: pytest.MonkeyPatch, saying: SayingModel, tiny_tokenizer: PreTrainedTokenizerFast
) -> Callable[..., str]:
    """Return a function that tells the key of a call."""
    engine = LocalEngine(saying, tiny_tokenizer)
    monkeypatch.setattr(engines, "connect", lambda _: engine)

    def ask(model_class: type[Petals], fields: dict[str, Any], options: dict[str, Any] | None = None) -> str:
        cache = Keys()
        limit = {} if "max_length" in fields else {"max_tokens": 30}
        model = model_class(**{"model": "a/model", "cache": cache} | limit | fields)
        model.invoke("Hi", **options or {})
        asyncio.run(model.ainvoke("Hi", **options or {}))
        [found] = set(cache.asked)
        return found

    return ask


@both
@pytest.mark.parametrize(
    "fields",
    [
        {"timeout": 5},
        {"model_kwargs": {"timeout": 5}},
        {"max_retries": 1},
        {"connect_timeout": 1},
        {"step_timeout": 1},
        {"max_batch_size": 1},
        {"batch_window": 0},
        {"prefill_chunk_tokens": 100},
        {"speculation": False},
        {"session_cache": 0},
        {"session_cache_tokens": 5},
        {"session_idle_timeout": 5},
        {"initial_peers": [ADDRESS]},
        {"allowed_servers": [PEER_ID]},
        {"blocked_servers": [PEER_ID]},
        {"device": "cpu"},
        {"cache_dir": "/a/folder"},
        {"local_files_only": True},
        {"preload": True},
        {"on_prefill": lambda *_: None},
        {"huggingface_api_key": "hf_aKey"},
        {"tags": ["a"], "metadata": {"b": 1}, "verbose": False},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_arguments_that_change_no_answer_are_not_in_the_cache_key(
    model_class: type[Petals], fields: dict[str, Any], key: Callable[..., str]
) -> None:
    assert key(model_class, fields) == key(model_class, {})
    name, value = next(iter(fields.items()))
    if name == "timeout":
        assert key(model_class, {}, {name: value}) == key(model_class, {})


@both
@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({"temperature": 0.5}, {"temperature": 0.5}),
        ({"temperature": 0}, {"temperature": 0.0}),
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_tokens": 5}, {"max_new_tokens": 5}),
        ({"model_kwargs": {"seed": 5}}, {"seed": 5}),
        ({"seed": 5}, {"seed": 5}),
        ({"stop": "x"}, {"stop": ["x"]}),
        ({"model_kwargs": {"stop": "x"}}, {"stop": ["x"]}),
        ({"model_kwargs": {"min_p": 0.1}}, {"min_p": 0.1}),
        ({}, {"temperature": None, "stop": None, "n": None}),
        ({}, {"stop": []}),
        ({}, {"min_new_tokens": 0, "logprobs": False}),
        ({"model_kwargs": {"regex": "a{3}"}}, {"regex": "a{3}"}),
    ],
    ids=str,
)
def test_the_layer_of_an_option_does_not_change_the_cache_key(
    model_class: type[Petals], fields: dict[str, Any], options: dict[str, Any], key: Callable[..., str]
) -> None:
    assert key(model_class, fields) == key(model_class, {}, options)


def person(kind: type) -> type[BaseModel]:
    return create_model("Person", x=(kind, ...))


COMMON: list[dict[str, Any]] = [
    {},
    {"temperature": 0.5},
    {"temperature": 0},
    {"max_tokens": 5},
    {"max_length": 500},
    {"top_p": 0.5},
    {"top_p": None},
    {"top_k": 5},
    {"do_sample": False},
    {"repetition_penalty": 1.5},
    {"seed": 1},
    {"seed": 2},
    {"n": 2},
    {"stop": ["x"]},
    {"stop": ["x", "y"]},
    {"model_kwargs": {"min_p": 0.1}},
    {"model_kwargs": {"typical_p": 0.1}},
    {"model_kwargs": {"bad_words_ids": [[5]]}},
    {"model_kwargs": {"no_repeat_ngram_size": 2}},
    {"model_kwargs": {"min_new_tokens": 2}},
    {"model_kwargs": {"num_beams": 2}},
    {"model_kwargs": {"logprobs": True}},
    {"model_kwargs": {"logprobs": True, "top_logprobs": 2}},
    {"model_kwargs": {"regex": "a{3}"}},
    {"model_kwargs": {"grammar": "start: /b/"}},
    {"model_kwargs": {"json_schema": {"type": "integer"}}},
    {"model": "another/model"},
    {"revision": "abc"},
    {"dht_prefix": "prefix"},
    {"active_adapter": "a/lora"},
    {"torch_dtype": "float32"},
]
OF_CHAT: list[dict[str, Any]] = [
    {"chat_template": "chatml"},
    {"chat_template_kwargs": {"enable_thinking": True}},
    {"allow_special_tokens": True},
    {"tool_format": "mistral"},
    {"output_version": "v1"},
]


@pytest.mark.parametrize(("model_class", "all_fields"), [(Petals, COMMON), (ChatPetals, [*COMMON, *OF_CHAT])])
def test_arguments_that_change_an_answer_are_in_the_cache_key(
    model_class: type[Petals], all_fields: list[dict[str, Any]], key: Callable[..., str]
) -> None:
    keys = [key(model_class, fields) for fields in all_fields]
    assert len(set(keys)) == len(keys)


def test_tools_and_response_formats_are_in_the_cache_key(key: Callable[..., str]) -> None:
    def tool(a: int) -> int:
        """Do something."""
        return a

    calls: list[dict[str, Any]] = [
        {},
        {"tools": [tool]},
        {"tools": [tool], "tool_choice": "any"},
        {"tools": [tool], "tool_choice": "tool"},
        {"tools": [tool], "parallel_tool_calls": False},
        {"tools": [tool], "strict": False},
        {"tools": [person(int)]},
        {"tools": [person(str)]},
        {"response_format": person(int)},
        {"response_format": person(bool)},
        {"response_format": {"type": "json_object"}},
        {"response_format": person(int), "strict": False},
        {"response_format": create_model("Two", a=(bool, ...), b=(bool, ...))},
        {"response_format": create_model("Two", b=(bool, ...), a=(bool, ...))},
        {"model": "another/model"},
    ]
    keys = [key(ChatPetals, {}, options) for options in calls]
    assert len(set(keys)) == len(keys)
    assert key(ChatPetals, {}, {"response_format": person(int)}) in keys
    assert key(ChatPetals, {}, {"tools": None, "tool_choice": None, "strict": None, "model": None}) == keys[0]
    assert (
        key(ChatPetals, {}, {"model_name": "another/model"}) == keys[-1] == key(ChatPetals, {"model": "another/model"})
    )


def test_equal_constraints_have_equal_cache_keys(key: Callable[..., str]) -> None:
    schema = person(int).model_json_schema()
    by_class = key(Petals, {}, {"json_schema": person(int)})
    assert by_class == key(Petals, {"json_schema": person(int)}) == key(Petals, {"json_schema": schema})
    assert by_class != key(Petals, {}, {"json_schema": person(bool)})
    fields: dict[str, Any] = {"a": (bool, ...), "b": (bool, ...)}
    ordered = [{"json_schema": create_model("Two", **{name: fields[name] for name in names})} for names in ("ab", "ba")]
    assert key(Petals, {}, ordered[0]) != key(Petals, {}, ordered[1])


@both
def test_different_clients_have_different_cache_keys(
    model_class: type[Petals],
    key: Callable[..., str],
    tiny_model: LlamaForCausalLM,
    saying: SayingModel,
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    keys = [key(model_class, {"client": each, "tokenizer": tiny_tokenizer}) for each in (tiny_model, saying)]
    assert len({key(model_class, {}), *keys}) == 3


@both
def test_a_wrong_option_is_not_answered_from_a_cache(
    model_class: type[Petals], tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = model_class(client=tiny_model, tokenizer=tiny_tokenizer, model="tiny", max_tokens=2, cache=InMemoryCache())
    model.invoke("Hi")
    for wrong in ({"temprature": 1}, {"temperature": "warm"}, {"top_logprobs": 2}, {"timeout": 0}, {"stop": 5}):
        for _ in range(2):
            with pytest.raises(InvalidRequestError):
                model.invoke("Hi", **wrong)


@pytest.mark.filterwarnings("ignore")  # that package is being sunset, and warns of that and of much else
@both
def test_a_cache_on_the_disk_survives_a_restart_of_the_swarm(
    model_class: type[Petals],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny_model: LlamaForCausalLM,
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    from langchain_community.cache import SQLiteCache  # noqa: PLC0415 - warns

    opened: list[LocalEngine] = []

    def load(_: Connection) -> LocalEngine:
        opened.append(LocalEngine(tiny_model, tiny_tokenizer))
        return opened[-1]

    monkeypatch.setattr(engines, "connect", load)

    def asked_of(address: str, how: Literal["invoke", "ainvoke"], **fields: Any) -> str:
        cache = SQLiteCache(str(tmp_path / "answers.db"))
        model = model_class(
            model="a/model", initial_peers=[address], dht_prefix="tiny", max_tokens=4, seed=1, cache=cache, **fields
        )
        answer = model.invoke("Hi") if how == "invoke" else asyncio.run(model.ainvoke("Hi"))
        return str(getattr(answer, "text", answer))

    first = asked_of(ADDRESS, "invoke")
    steps = len(opened)
    assert asked_of(OTHER_ADDRESS, "invoke", timeout=100, max_retries=0) == first
    assert asked_of(OTHER_ADDRESS, "ainvoke", session_cache=0) == first
    assert len(opened) == steps, "nothing was loaded, so nothing was generated"
    asked_of(OTHER_ADDRESS, "invoke", temperature=0.1)
    assert len(opened) > steps


def test_a_saved_model_has_all_its_fields(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    Petals(model="a/b", initial_peers=[ADDRESS], timeout=5, stop="x", json_schema={"type": "integer"}).save(path)
    text = path.read_text()
    assert all(f'"{name}"' in text for name in Petals._argument_names() & {"initial_peers", "timeout", "max_retries"})
    assert '"_type": "petals"' in text
