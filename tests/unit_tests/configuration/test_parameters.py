"""Every argument of the constructor goes somewhere, and what cannot be honoured is refused at once."""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.exceptions import ContextOverflowError
from langchain_core.language_models.llms import BaseLLM
from local_engine import LocalEngine
from peer_addresses import ADDRESS, PEER_ID
from scripted_session import ScriptedEngine, ScriptedSession

from langchain_petals import ChatPetals, Petals
from langchain_petals.configuration.options import GenerationOptions
from langchain_petals.engine import Connection, engines
from langchain_petals.engine.settings import Settings
from langchain_petals.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast


CONNECTION: dict[str, Any] = {
    "model_name": "some/model",
    "initial_peers": [ADDRESS],
    "dht_prefix": "prefix",
    "allowed_servers": [PEER_ID],
    "blocked_servers": [PEER_ID],
    "active_adapter": "some/adapter",
    "torch_dtype": "bfloat16",
    "device": "cuda:1",
    "revision": "abc",
    "cache_dir": "/some/folder",
    "local_files_only": True,
    "huggingface_api_key": "hf_key",
}
OPTIONS: dict[str, Any] = {
    "temperature": 0.1,
    "max_new_tokens": 7,
    "top_p": 0.2,
    "top_k": 3,
    "do_sample": False,
    "max_length": 9,
    "repetition_penalty": 1.4,
    "stop": ["x"],
    "seed": 5,
    "n": 2,
    "timeout": 3.5,
    "json_schema": {"type": "integer"},
    "regex": "a+",
    "grammar": 'start: "a"',
}
SETTINGS: dict[str, Any] = {
    "max_retries": 1,
    "connect_timeout": 2.5,
    "step_timeout": 3.5,
    "max_batch_size": 4,
    "batch_window": 5.5,
    "prefill_chunk_tokens": 6,
    "speculation": False,
    "session_cache": 7,
    "session_cache_tokens": 8,
    "session_idle_timeout": 9.5,
}
TESTED_ELSEWHERE = {"trust_remote_code"}  # in test_addresses.py
TESTED_BELOW = {"model_kwargs", "client", "tokenizer", "preload", "on_prefill"}


def test_these_tests_cover_every_field() -> None:
    tested = {*CONNECTION, *OPTIONS, *SETTINGS, *TESTED_BELOW, *TESTED_ELSEWHERE}
    assert tested == set(Petals.model_fields) - set(BaseLLM.model_fields)


def rows(page: str) -> Iterator[tuple[str, str]]:
    """Return the options of a page's tables, and their defaults."""
    text = (Path(__file__).parents[3] / "docs" / page).read_text(encoding="utf-8")
    for table in re.findall(r"^\| option \|.*\n((?:\|.*\n)+)", text, re.MULTILINE):
        for names, defaults in re.findall(r"^\| (`[^|]+) \| ([^|]+) \|", table, re.MULTILINE):
            options = re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", names))
            values = defaults.split(", ")
            yield from zip(options, values * len(options) if len(values) == 1 else values, strict=True)


def test_the_tables_of_options_have_the_defaults_of_the_class() -> None:
    fields = GenerationOptions.model_fields | Petals.model_fields
    found = {
        name: (ast.literal_eval(default), fields[name].get_default(call_default_factory=True))
        for name, default in rows("llm.md")
        if name in fields and name != "huggingface_api_key"
    }
    assert {name: pair for name, pair in found.items() if pair[0] != pair[1]} == {}
    assert found.keys() >= set(GenerationOptions.model_fields) | set(Petals.model_fields) - set(
        BaseLLM.model_fields
    ) - {"huggingface_api_key"}


# ---- where arguments go


@pytest.mark.parametrize("name", CONNECTION)
def test_connection_arguments_reach_the_connection(name: str) -> None:
    plain, other = Petals()._connection(), Petals(**{name: CONNECTION[name]})._connection()
    changed = {field.name for field in fields(plain) if getattr(plain, field.name) != getattr(other, field.name)}
    target = {"model_name": "model", "huggingface_api_key": "key"}.get(name, name)
    assert changed == {target}
    value = getattr(other, target)
    assert (value.get_secret_value() if target == "key" else value) == (
        tuple(CONNECTION[name]) if isinstance(CONNECTION[name], list) else CONNECTION[name]
    )


@pytest.mark.parametrize("name", OPTIONS)
def test_option_arguments_reach_the_options_of_a_call(name: str) -> None:
    value = OPTIONS[name]
    found = getattr(Petals(**{name: value})._call_options(None, {}), name)
    assert found == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize("name", SETTINGS)
def test_engine_arguments_reach_the_settings(name: str) -> None:
    assert Petals(**{name: SETTINGS[name]})._settings() == Settings(**{name: SETTINGS[name]})


def test_settings_and_fields_have_equal_defaults() -> None:
    assert asdict(Petals()._settings()) == asdict(Settings())


@pytest.mark.parametrize(
    ("alias", "name", "value"), [("model", "model_name", "x"), ("max_tokens", "max_new_tokens", 3)]
)
def test_an_alias_sets_the_same_field(alias: str, name: str, value: Any) -> None:
    assert getattr(Petals(**{alias: value}), name) == getattr(Petals(**{name: value}), name) == value


def test_options_of_a_call_override_those_of_the_object() -> None:
    llm = Petals(temperature=0.1, stop=["a"], model_kwargs={"min_p": 0.2})
    options = llm._call_options(["b"], {"temperature": 0.3, "min_p": 0.4})
    assert (options.temperature, options.stop, options.min_p) == (0.3, ("b",), 0.4)
    assert llm._call_options(None, {}).stop == ("a",)
    assert llm._call_options([], {}).stop == ()


def test_on_prefill_is_told_the_progress_of_the_prompt(petals_llm: Callable[..., Petals]) -> None:
    heard: list[tuple[int, int]] = []
    llm = petals_llm(
        max_new_tokens=1, prefill_chunk_tokens=2, on_prefill=lambda sent, total: heard.append((sent, total))
    )
    llm.invoke("abcde")
    assert heard == [(2, 5), (4, 5), (5, 5)]


def test_a_model_in_this_process_has_no_route(petals_llm: Callable[..., Petals]) -> None:
    assert Petals().route == []
    llm = petals_llm(max_new_tokens=1)
    llm.invoke("abcde")
    assert llm.route == []


def test_settings_reach_the_engine(petals_llm: Callable[..., Petals]) -> None:
    llm = petals_llm(max_batch_size=2, max_new_tokens=1)
    engine = ScriptedEngine(llm.tokenizer, lambda rows: ScriptedSession([[*b"ab"]] * rows, [[*b"x"]] * rows))
    llm._engine = engine
    assert llm.batch(["ab"] * 5) == ["x"] * 5
    assert sorted(rows for rows, _ in engine.opened) == [1, 2, 2]


# ---- loading


def test_nothing_is_loaded_before_it_is_used(
    monkeypatch: pytest.MonkeyPatch, tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    def load(_: Connection) -> Any:
        pytest.fail("loaded a model")

    monkeypatch.setattr(engines, "connect", load)
    Petals(client=tiny_model, tokenizer=tiny_tokenizer)
    Petals(model="some/model")


def test_preload_loads_the_model_in_the_constructor(
    monkeypatch: pytest.MonkeyPatch, tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    loaded: list[Connection] = []
    engine = LocalEngine(tiny_model, tiny_tokenizer)

    def load(connection: Connection) -> LocalEngine:
        loaded.append(connection)
        return engine

    monkeypatch.setattr(engines, "connect", load)
    llm = Petals(model="some/model", preload=True)
    assert [connection.model for connection in loaded] == ["some/model"]
    assert llm.get_token_ids("a") == [97]
    assert len(loaded) == 1


@pytest.mark.parametrize("model_class", [Petals, ChatPetals])
@pytest.mark.parametrize("given", ["client", "tokenizer"])
def test_client_and_tokenizer_must_be_given_together(
    model_class: type[Petals], given: str, tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    loaded = {"client": tiny_model, "tokenizer": tiny_tokenizer}
    with pytest.raises(InvalidRequestError, match="client and tokenizer belong together; give both"):
        model_class(model="m", **{given: loaded[given]})


# ---- unknown arguments


def test_unknown_argument_goes_to_model_kwargs_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="min_p is no field of Petals; it was moved to model_kwargs") as caught:
        llm = Petals(min_p=0.1)
    assert llm.model_kwargs == {"min_p": 0.1}
    assert llm._call_options(None, {}).min_p == 0.1
    assert caught[0].filename == __file__


def test_unknown_name_is_refused_at_once(petals_llm: Callable[..., Petals]) -> None:
    for unknown in ({"nonsense": 1}, {"model_kwargs": {"nonsense": 1}}):
        with pytest.raises(InvalidRequestError, match="'nonsense' is no"):
            petals_llm(**unknown)
    llm = petals_llm()
    for use in (llm.invoke, llm.batch, lambda prompt, **options: next(llm.stream(prompt, **options))):
        with pytest.raises(InvalidRequestError, match="'absurd' is no generation option"):
            use(["Hi"] if use == llm.batch else "Hi", absurd=1)


@pytest.mark.parametrize(
    "arguments",
    [
        {"min_p": 0.1, "model_kwargs": {"min_p": 0.2}},
        {"temperature": 0.1, "model_kwargs": {"temperature": 0.2}},
        {"max_new_tokens": 5, "model_kwargs": {"max_tokens": 5}},
    ],
    ids=str,
)
def test_argument_that_is_given_twice_is_refused(arguments: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(InvalidRequestError, match="given twice"):
            Petals(**arguments)


# ---- what is refused in the constructor


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_length": 9, "max_new_tokens": 5}, "max_length .* and max_new_tokens .* are both set; set one"),
        ({"max_length": 9, "max_tokens": 5}, "are both set; set one"),
        ({"max_new_tokens": 0}, "max_new_tokens: Input should be greater than or equal to 1"),
        ({"max_length": 0}, "max_length: Input should be greater than or equal to 1"),
        ({"stop": [""]}, "a stop sequence is empty"),
        ({"temperature": -1}, "temperature: Input should be greater than or equal to 0"),
        ({"model_kwargs": {"min_p": 2}}, "min_p: Input should be less than or equal to 1"),
        ({"max_batch_size": 0}, "max_batch_size"),
        ({"session_cache": -1}, "session_cache"),
        ({"max_retries": -1}, "max_retries"),
        ({"step_timeout": 0}, "step_timeout"),
        ({"torch_dtype": "int4"}, "torch_dtype"),
        ({"initial_peers": ["10.1.2.3:4000"]}, "initial_peers"),
        ({"allowed_servers": ["me"]}, "allowed_servers"),
    ],
    ids=str,
)
def test_impossible_argument_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        Petals(**arguments)


def test_both_limits_are_fine_when_one_is_a_default() -> None:
    options = Petals(max_length=9)._call_options(None, {})
    assert (options.max_length, options.max_new_tokens) == (9, None)


# ---- what is refused when it is used


@pytest.mark.parametrize("prompts", [[""], ["Hi", ""]])
def test_empty_prompt_is_refused(petals_llm: Callable[..., Petals], prompts: list[str]) -> None:
    llm = petals_llm()
    with pytest.raises(InvalidRequestError, match="A prompt is empty"):
        llm.generate(prompts)
    with pytest.raises(InvalidRequestError, match="A prompt is empty"):
        next(llm.stream(""))


async def test_empty_prompt_is_refused_in_async_calls(petals_llm: Callable[..., Petals]) -> None:
    with pytest.raises(InvalidRequestError, match="A prompt is empty"):
        await petals_llm().ainvoke("")


def test_prompt_over_the_limit_is_refused(petals_llm: Callable[..., Petals], tiny_model: LlamaForCausalLM) -> None:
    limit = tiny_model.config.max_position_embeddings
    with pytest.raises(ContextOverflowError, match=f"{limit + 5} tokens, but the context holds {limit}"):
        petals_llm().invoke("x" * (limit + 5))
    with pytest.raises(ContextOverflowError, match="12 tokens, but the context holds 12"):
        petals_llm(max_length=12).invoke("x" * 12)


def test_answer_ends_at_the_end_of_the_context(
    babbler: LlamaForCausalLM, endless_tokenizer: PreTrainedTokenizerFast
) -> None:
    llm = Petals(client=babbler, tokenizer=endless_tokenizer)
    limit = babbler.config.max_position_embeddings
    result = llm.generate(["A" * (limit - 5)])
    info = result.generations[0][0].generation_info
    assert info is not None
    assert info["finish_reason"] == "length"
    assert info["token_usage"]["completion_tokens"] == 5
