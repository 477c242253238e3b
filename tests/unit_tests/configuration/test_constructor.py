"""Arguments of both classes: what None means, which names are known, and what is said of those that are not."""

from __future__ import annotations

import asyncio
import pickle
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from langchain_petals import ChatPetals, Petals
from langchain_petals.configuration.options import NAMES
from langchain_petals.engine import Connection, engines
from langchain_petals.errors import (
    HubUnreachableError,
    InvalidRequestError,
    ModelLoadError,
    PetalsError,
    PetalsNotInstalledError,
    SwarmUnreachableError,
    UnsupportedModelError,
)

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

both = pytest.mark.parametrize("model_class", [Petals, ChatPetals])


@pytest.fixture(scope="session")
def shared(tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Return arguments of an object over the bundled model."""
    return {"client": tiny_model, "tokenizer": tiny_tokenizer, "model": "tiny", "temperature": 0, "max_tokens": 4}


@pytest.fixture
def loaded(shared: dict[str, Any]) -> dict[str, Any]:
    return dict(shared)


def text(answer: Any) -> str:
    return str(getattr(answer, "text", answer))


# ---- None


@both
def test_none_in_the_constructor_means_the_default(model_class: type[Petals]) -> None:
    plain = model_class(model="m")
    names = {*model_class.model_fields, "max_tokens", "api_key"} - {"model_name", "top_p"}
    for name in names:
        other = model_class(model="m", **{name: None})
        assert other == plain, name
        assert other._call_options(None, {}) == plain._call_options(None, {})
        assert pickle.loads(pickle.dumps(other)) == plain
    assert model_class(model="m", **dict.fromkeys(names)) == plain


@both
def test_an_argument_and_none_in_model_kwargs_are_not_given_twice(model_class: type[Petals]) -> None:
    for fields in ({"seed": None, "model_kwargs": {"seed": 5}}, {"seed": 5, "model_kwargs": {"seed": None}}):
        assert model_class(model="m", **fields)._call_options(None, {}).seed == 5
    with pytest.warns(UserWarning, match="min_p is no field"):
        model = model_class(model="m", min_p=0.5, model_kwargs={"min_p": None})
    assert model._call_options(None, {}).min_p == 0.5


@both
def test_none_for_top_p_keeps_all_tokens(model_class: type[Petals]) -> None:
    assert model_class(model="m", top_p=None)._call_options(None, {}).sampling(0).top_p == 1
    assert model_class(model="m", top_p=0.5)._call_options(None, {"top_p": None}).top_p == 0.5
    assert model_class(model="m", top_p=0.5)._call_options(None, {"top_p": 1}).sampling(0).top_p == 1


@both
@pytest.mark.parametrize("name", sorted(NAMES))
def test_none_in_a_call_means_the_constructors_value(model_class: type[Petals], name: str) -> None:
    model = model_class(
        model="m", temperature=0.2, max_tokens=7, stop=["x"], n=2, timeout=5, model_kwargs={"logprobs": True}
    )
    assert model._call_options(None, {name: None}) == model._call_options(None, {})
    assert model_class(model="m", model_kwargs={name: None})._call_options(None, {}) == model_class(
        model="m"
    )._call_options(None, {})


@both
def test_none_is_accepted_by_every_kind_of_call(model_class: type[Petals], loaded: dict[str, Any]) -> None:
    model = model_class(**loaded)
    unset = dict.fromkeys(NAMES - {"stop"})
    expected = text(model.invoke("Hi"))
    assert text(model.invoke("Hi", stop=None, **unset)) == expected
    assert text(model.bind(stop=None, **unset).invoke("Hi")) == expected
    assert "".join(map(text, model.stream("Hi", stop=None, **unset))) == expected
    assert text(asyncio.run(model.ainvoke("Hi", stop=None, **unset))) == expected
    assert [text(each) for each in model.batch(["Hi"], stop=None, **unset)] == [expected]


def test_none_for_tools_in_a_chat_call_means_no_tools(loaded: dict[str, Any]) -> None:
    chat = ChatPetals(**loaded)
    unset = dict.fromkeys(ChatPetals._of_calls)
    assert chat.invoke("Hi", **unset).text == chat.invoke("Hi").text


@both
def test_a_key_that_is_none_comes_from_the_environment(
    model_class: type[Petals], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_fromThere")
    assert model_class(model="m", huggingface_api_key=None).huggingface_api_key == SecretStr("hf_fromThere")
    assert model_class(model="m", api_key=None).huggingface_api_key == SecretStr("hf_fromThere")
    assert model_class(model="m", api_key="").huggingface_api_key is None


# ---- stop


@both
@pytest.mark.parametrize(("stop", "found"), [("END", ["END"]), ("", []), ([], []), (("a", "b"), ["a", "b"])])
def test_stop_in_the_constructor_is_one_string_or_several(
    model_class: type[Petals], stop: Any, found: list[str]
) -> None:
    model = model_class(model="m", stop=stop)
    assert model.stop == found
    assert model._call_options(None, {}).stop == tuple(found)
    assert model._call_options([], {}).stop == ()


# ---- names


@both
@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("temprature", "temperature"),
        ("Temperature", "temperature"),
        ("max_token", "max_tokens"),
        ("maxTokens", "max_tokens"),
        ("max_new_token", "max_new_tokens"),
        ("topp", "top_p"),
        ("top_k_", "top_k"),
        ("stops", "stop"),
        ("sead", "seed"),
        ("timeouts", "timeout"),
        ("num_beam", "num_beams"),
        ("log_probs", "logprobs"),
        ("repetition_penalties", "repetition_penalty"),
    ],
)
def test_a_misspelt_option_is_refused_with_the_nearest_name(
    model_class: type[Petals], wrong: str, meant: str, loaded: dict[str, Any]
) -> None:
    message = rf"'{wrong}' is no .*; did you mean {meant}\?$"
    model = model_class(**loaded)
    for use in (
        lambda: model_class(model="m", **{wrong: 1}),
        lambda: model.invoke("Hi", **{wrong: 1}),
        lambda: list(model.stream("Hi", **{wrong: 1})),
        lambda: model.bind(**{wrong: 1}).invoke("Hi"),
        lambda: model_class(model="m", model_kwargs={wrong: 1}),
    ):
        with pytest.raises(InvalidRequestError, match=message):
            use()


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("inital_peers", "initial_peers"), ("max_retry", "max_retries"), ("local_file_only", "local_files_only")],
)
def test_a_misspelt_field_is_refused_with_the_nearest_name(wrong: str, meant: str) -> None:
    with pytest.raises(InvalidRequestError, match=rf"did you mean {meant}\?$"):
        ChatPetals(model="m", **{wrong: 1})
    with pytest.raises(InvalidRequestError, match=r"did you mean chat_template\?$"):
        ChatPetals(model="m", chat_tmplate=1)


def test_a_misspelt_argument_of_a_chat_call_is_refused_with_the_nearest_name(loaded: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match=r"did you mean tool_choice\?$"):
        ChatPetals(**loaded).invoke("Hi", tool_choise="any")


@both
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("base_url", "initial_peers"),
        ("endpoint_url", "initial_peers"),
        ("openai_api_base", "initial_peers"),
        ("model_id", "model"),
        ("repo_id", "model"),
        ("model_path", "model"),
        ("num_predict", "max_tokens"),
        ("n_predict", "max_tokens"),
        ("max_output_tokens", "max_tokens"),
        ("max_completion_tokens", "max_tokens"),
        ("max_tokens_to_sample", "max_tokens"),
        ("stop_sequences", "stop"),
        ("request_timeout", "timeout"),
        ("frequency_penalty", "repetition_penalty"),
        ("presence_penalty", "repetition_penalty"),
        ("num_ctx", "max_length"),
        ("context_length", "max_length"),
        ("num_return_sequences", "given as n"),
        ("logit_bias", "bad_words_ids"),
        ("n_gpu_layers", "device"),
    ],
)
def test_arguments_of_other_integrations_are_refused_with_the_name_used_here(
    model_class: type[Petals], name: str, told: str, loaded: dict[str, Any]
) -> None:
    for use in (lambda: model_class(model="m", **{name: 1}), lambda: model_class(**loaded).invoke("Hi", **{name: 1})):
        with pytest.raises(InvalidRequestError, match=f"'{name}' is no .*; .*{told}"):
            use()


@both
@pytest.mark.parametrize("name", ["openai_api_key", "anthropic_api_key", "together_api_token", "aws_secret_access_key"])
def test_keys_of_other_services_are_not_shown(model_class: type[Petals], name: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"{name} is no argument: a swarm needs no key") as caught:
        model_class(model="m", **{name: "sk-secret"})
    assert "sk-secret" not in str(caught.value)


@both
@pytest.mark.parametrize("name", ["api_key", "token", "openai_api_key"])
def test_a_key_in_a_call_is_refused_with_a_hint_at_the_constructor(
    model_class: type[Petals], name: str, loaded: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequestError, match="the hub's is given to the constructor, as huggingface_api_key"):
        model_class(**loaded).invoke("Hi", **{name: "hf_key"})


@both
@pytest.mark.parametrize(
    "name", ["max_retries", "model_kwargs", "verbose", "cache", "device", "session_cache", "speculation"]
)
def test_a_field_in_a_call_is_refused_with_a_hint_at_the_constructor(
    model_class: type[Petals], name: str, loaded: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequestError, match=f"'{name}' .* is given to the constructor of {model_class.__name__}"):
        model_class(**loaded).invoke("Hi", **{name: 1})


@pytest.mark.parametrize("name", ["tools", "tool_choice", "response_format"])
def test_an_argument_of_calls_in_the_constructor_is_refused_with_a_hint(name: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"{name} is given with a call, or by bind"):
        ChatPetals(model="m", **{name: 1})
    with pytest.raises(InvalidRequestError, match=f"'{name}' .* ChatPetals takes it"):
        Petals(model="m", **{name: 1})


@both
def test_one_argument_under_two_names_is_refused(model_class: type[Petals]) -> None:
    for twice in ({"model": "a", "model_name": "b"}, {"model": "a", "max_tokens": 5, "max_new_tokens": 6}):
        with pytest.raises(InvalidRequestError, match="two names of one argument; give it once"):
            model_class(**twice)
    assert model_class(model="a", max_tokens=5, max_new_tokens=None).max_new_tokens == 5


@both
def test_positional_arguments_are_refused_with_a_hint(model_class: type[Petals]) -> None:
    name = model_class.__name__
    for given_so, told in (
        ({"model": "m", "initial_peers": []}, f"two stars before the dictionary, as in {name}(**swarm.connection)"),
        ("some/model", f"a model's name is given as {name}(model=...)"),
        (7, f"write {name}(name=value, ...)"),
    ):
        with pytest.raises(InvalidRequestError) as caught:
            model_class(given_so)
        assert told in str(caught.value)


# ---- types


@both
@pytest.mark.parametrize(
    "wrong",
    [
        {"stop": 5},
        {"stop": [5]},
        {"model_kwargs": 5},
        {"model_kwargs": ["min_p"]},
        {"n": [2]},
        {"max_tokens": float("nan")},
        {"temperature": float("inf")},
        {"temperature": "warm"},
        {"timeout": float("inf")},
        {"step_timeout": float("nan")},
        {"batch_window": 1e300},
        {"prefill_chunk_tokens": 2**70},
        {"initial_peers": "/ip4/1.2.3.4"},
        {"model": 5},
        {"huggingface_api_key": 5},
        {"preload": "perhaps"},
        {"speculation": "perhaps"},
    ],
    ids=str,
)
def test_an_argument_of_a_wrong_type_is_named(model_class: type[Petals], wrong: dict[str, Any]) -> None:
    [name] = wrong
    with pytest.raises(InvalidRequestError, match=rf"^{name}\b"):
        model_class(**{"model": "m"} | wrong)


@both
def test_a_wrong_object_inside_another_class_is_its_validation_error(model_class: type[Petals]) -> None:
    holder = type("Holder", (BaseModel,), {"__annotations__": {"llm": model_class}})
    with pytest.raises(ValueError, match=r"llm\n.*temperature: Input should be"):
        holder(llm={"model": "m", "temperature": "warm"})


@both
def test_long_values_are_shortened_in_errors(model_class: type[Petals]) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        model_class(model="m", temperature="x" * 10_000, n=list(range(10_000)))
    assert len(str(caught.value)) < 500


# ---- loading early


@both
@pytest.mark.parametrize(
    "error",
    [
        PetalsNotInstalledError("petals is not installed"),
        HubUnreachableError("the hub"),
        ModelLoadError("files"),
        UnsupportedModelError("no code"),
        SwarmUnreachableError("nobody"),
        InvalidRequestError("no name"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_preload_raises_the_errors_of_loading(
    model_class: type[Petals], error: PetalsError, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(_: Connection) -> Any:
        raise error

    monkeypatch.setattr(engines, "connect", load)
    with pytest.raises(type(error), match=f"^{error}$"):
        model_class(model="m", preload=True)


# ---- anything at all


_ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 6),
    st.sampled_from([2**31, 2**63, 2**70, -(2**63), -(2**70)]),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=3),
    st.lists(st.one_of(st.text(max_size=2), st.integers(-2, 300)), max_size=3),
    st.lists(st.lists(st.integers(-1, 300), max_size=3), max_size=2),
    st.dictionaries(st.sampled_from(["type", "a"]), st.sampled_from(["object", "integer", 5]), max_size=2),
    st.sampled_from([{1}, object(), int, BaseModel, "[0-9]{2}", 'start: "a"', {"type": "integer"}, 10**40 * 1.0]),
)
# a hundred answers at once would be no fault
_FEW = st.one_of(st.integers(-1, 3), st.none(), st.sampled_from(["2", [2], 1.0, 1.5, float("nan"), 2**70 * -1, "x"]))


def _values(name: str) -> st.SearchStrategy[Any]:
    return _FEW if name in ("n", "num_beams") else _ANYTHING


_NAMES = sorted(NAMES | {"nonsense", "tools", "response_format", "tool_choice", "model", "stream", "max_retries"})
_OPTIONS = st.lists(st.sampled_from(_NAMES), max_size=3, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: _values(name) for name in names})
)
_LOADED = {"client", "tokenizer", "callbacks", "cache", "on_prefill"}  # the last one may raise what it likes
_FIELDS = sorted({*Petals.model_fields, *ChatPetals.model_fields, *NAMES} - _LOADED)
_CONSTRUCTOR = st.lists(st.sampled_from(_FIELDS), max_size=3, unique=True).flatmap(
    lambda names: st.fixed_dictionaries(
        {name: st.one_of(_OPTIONS, _ANYTHING) if name == "model_kwargs" else _values(name) for name in names}
    )
)


@both
@given(fields=_CONSTRUCTOR, options=_OPTIONS, way=st.sampled_from(["invoke", "stream", "bind", "async", "batch"]))
def test_whatever_is_given_brings_an_answer_or_a_documented_error(
    model_class: type[Petals], shared: dict[str, Any], *, fields: dict[str, Any], options: dict[str, Any], way: str
) -> None:
    base = dict(shared)
    aliases = {"model_name": "model", "max_new_tokens": "max_tokens", "max_length": "max_tokens"}
    for name in fields:
        base.pop(aliases.get(name, name), None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = model_class(**base, **fields)
        except PetalsError:
            return
        try:
            if way == "stream":
                list(model.stream("A", **options))
            elif way == "bind":
                model.bind(**options).invoke("A")
            elif way == "async":
                asyncio.run(model.ainvoke("A", **options))
            elif way == "batch":
                model.batch(["A", "B"], **options)
            else:
                model.invoke("A", **options)
        except PetalsError:
            pass


class ManyTruths(list[Any]):
    """A list that has no truth value, as arrays of several numbers have none."""

    def __bool__(self) -> bool:
        msg = "the truth value of several elements is ambiguous"
        raise ValueError(msg)


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("n", 10**30, "n: Input should be less than or equal to"),
        ("num_beams", 10**6, "num_beams: Input should be less than or equal to"),
        ("stop", ManyTruths([1, 2]), "stop.0: Input should be a valid string"),
        ("max_retry", 1, "did you mean max_retries"),
        ("functions", [], "tools are bound by ChatPetals.bind_tools"),
    ],
)
def test_a_wrong_option_of_a_call_is_refused_at_once(
    loaded: dict[str, Any], option: str, value: Any, reason: str
) -> None:
    for model_class in (Petals, ChatPetals):
        with pytest.raises(InvalidRequestError, match=reason):
            model_class(**loaded).invoke("Hi", **{option: value})


@pytest.mark.parametrize("tools", [None, 5, "add", {"name": "add"}])
def test_tools_that_are_not_a_list_are_refused(loaded: dict[str, Any], tools: Any) -> None:
    with pytest.raises(InvalidRequestError, match="a list of tools is needed"):
        ChatPetals(**loaded).bind_tools(tools)
