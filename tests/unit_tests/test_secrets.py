"""The hub's key: taken from where it should be, kept, and written down nowhere."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.load import dumpd, dumps, loads
from leaks import CANARY, frames, raised, sings, written_forms
from pydantic import SecretStr

from langchain_petals import ChatPetals, Petals
from langchain_petals.errors import InvalidRequestError

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

PEER = "/ip4/127.0.0.1/tcp/31337/p2p/12D3KooWQGTqmM7NKjV6ggU1ZCap8zWiyKR89RViDXiqehSiCpY5"
FIELDS: dict[str, Any] = {
    "model": "acme/gated",
    "temperature": 0,
    "stop": ["\n"],
    "initial_peers": [PEER],
    "model_kwargs": {"min_p": 0.1},
    "huggingface_api_key": CANARY,
}

both = pytest.mark.parametrize("model_class", [Petals, ChatPetals])


def restored(text: str, model_class: type, key: str | None = CANARY) -> Any:
    secrets = {} if key is None else {"HF_TOKEN": key}
    return loads(text, secrets_map=secrets, valid_namespaces=["langchain_petals"], allowed_objects=[model_class])


# ---- where it comes from


@both
@pytest.mark.parametrize("variable", ["HUGGINGFACE_API_KEY", "HF_TOKEN", "HUGGINGFACEHUB_API_TOKEN"])
def test_the_key_comes_from_the_environment(
    model_class: type[Petals], variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert model_class(model="m").huggingface_api_key is None
    monkeypatch.setenv(variable, CANARY)
    assert model_class(model="m").huggingface_api_key == SecretStr(CANARY)
    assert model_class(model="m", huggingface_api_key="hf_another").huggingface_api_key == SecretStr("hf_another")


@both
def test_an_empty_variable_hides_no_other(model_class: type[Petals], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUGGINGFACE_API_KEY", " ")
    monkeypatch.setenv("HF_TOKEN", f"{CANARY}\n")
    assert model_class(model="m").huggingface_api_key == SecretStr(CANARY)


@both
def test_a_key_may_be_a_string_or_a_secret_under_either_name(model_class: type[Petals]) -> None:
    assert model_class(model="m", huggingface_api_key=f" {CANARY}\n").huggingface_api_key == SecretStr(CANARY)
    assert model_class(model="m", huggingface_api_key="").huggingface_api_key is None
    assert model_class(model="m", api_key=CANARY).huggingface_api_key == SecretStr(CANARY)
    assert model_class(model="m", huggingface_api_key=SecretStr(CANARY)).huggingface_api_key == SecretStr(CANARY)


# ---- where it does not go


@both
def test_no_written_form_holds_the_key(model_class: type[Petals]) -> None:
    model = model_class(**FIELDS)
    assert [name for name, form in written_forms(model).items() if sings(form)] == []
    assert model._connection().key == SecretStr(CANARY)


@both
@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": "hot"},
        {"huggingface_api_key": f"{CANARY} {CANARY}"},
        {"huggingface_api_key": f"{CANARY}é"},
        {"huggingface_api_key": [CANARY[:3]]},
        {"max_length": 3, "max_new_tokens": 3},
        {"initial_peers": ["nowhere"]},
        {"api_key": CANARY, "temperature": "hot"},
        {"model_kwargs": {"token": CANARY}},
        {"token": CANARY},
        {"use_auth_token": CANARY},
        {"huggingfacehub_api_token": CANARY},
        {"stop": 5, "temperature": []},
    ],
    ids=" ".join,
)
def test_no_error_of_the_constructor_holds_the_key(model_class: type[Petals], wrong: dict[str, Any]) -> None:
    error = raised(lambda: model_class(**FIELDS | wrong))
    assert isinstance(error, InvalidRequestError)
    assert [text for text in frames(error) if sings(text)] == []


@both
@pytest.mark.parametrize("name", ["token", "hf_token", "use_auth_token", "huggingfacehub_api_token"])
def test_the_key_under_another_name_is_refused(model_class: type[Petals], name: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"{name} is no argument; give the hub's key as huggingface_api_key"):
        model_class(model="m", **{name: CANARY})


@both
def test_a_key_that_no_header_can_carry_is_refused(model_class: type[Petals]) -> None:
    with pytest.raises(InvalidRequestError, match="white space or characters outside ASCII"):
        model_class(model="m", huggingface_api_key="hf_one\r\nX-Other: two")


@both
def test_no_error_of_a_call_holds_the_key(
    model_class: type[Petals], tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = model_class(**FIELDS, client=tiny_model, tokenizer=tiny_tokenizer)
    for call in (
        lambda: model.invoke("Hello", wrong_option=1),
        lambda: model.invoke("Hello", temperature=-1),
        lambda: model.invoke("x" * 5000),
        lambda: list(model.stream("Hello", n=2)),
        lambda: model.invoke(7),
    ):
        assert [text for text in frames(raised(call)) if sings(text)] == []


@both
@pytest.mark.parametrize("name", ["api_key", "huggingface_api_key", "token", "openai_api_key"])
@pytest.mark.parametrize("way", ["invoke", "stream"])
def test_no_trace_of_a_call_holds_a_key_that_it_was_given(
    model_class: type[Petals],
    name: str,
    way: str,
    tiny_model: LlamaForCausalLM,
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    class Tracer(BaseCallbackHandler):
        def on_llm_start(self, *told: Any, **more: Any) -> None:
            seen.append(repr((told, more)))

        on_chat_model_start = on_llm_start

    seen: list[str] = []
    model = model_class(**FIELDS, client=tiny_model, tokenizer=tiny_tokenizer)
    config: Any = {"callbacks": [Tracer()]}
    error = raised(lambda: list(getattr(model, way)("Hi", config, **{name: CANARY})))
    assert isinstance(error, InvalidRequestError)
    assert seen
    assert not sings(seen)
    assert not sings(str(error))


def test_a_model_that_is_saved_holds_no_key(tmp_path: Path) -> None:
    for name in ("model.yaml", "model.json"):
        Petals(**FIELDS).save(tmp_path / name)
        assert not sings((tmp_path / name).read_text())
    saved = yaml.safe_load((tmp_path / "model.yaml").read_text())
    assert saved["_type"] == "petals"
    assert (saved["model_name"], saved["temperature"], saved["initial_peers"]) == ("acme/gated", 0, [PEER])
    assert "huggingface_api_key" not in saved


# ---- what is written down can be read again


@both
@pytest.mark.parametrize(
    "fields",
    [
        FIELDS,
        {"model": "m"},
        {"model": "m", "max_length": 100},
        {"model": "m", "max_tokens": 7},
        {"model": "m", "model_kwargs": {"max_new_tokens": 5}},
        {"model": "m", "top_p": None, "do_sample": False, "session_cache": 0},
    ],
    ids=["many", "none", "max_length", "max_tokens", "max_new_tokens in model_kwargs", "false values"],
)
def test_dumps_and_loads_are_a_round_trip(model_class: type[Petals], fields: dict[str, Any]) -> None:
    model = model_class(**fields)
    text = dumps(model)
    again = restored(text, model_class)
    assert again == model
    assert again._call_options(None, {}) == model._call_options(None, {})
    assert dumps(again) == text


@both
def test_a_reconfigured_model_can_be_serialised(model_class: type[Petals]) -> None:
    from langchain_core.runnables import ConfigurableField  # noqa: PLC0415

    base = model_class(**FIELDS | {"model_kwargs": {"max_new_tokens": 5}})
    runnable = base.configurable_fields(temperature=ConfigurableField(id="heat"))
    model, _ = runnable._prepare({"configurable": {"heat": 0.25}})  # type: ignore[attr-defined]
    assert model.temperature == 0.25
    text = dumps(model)
    assert not sings(text)
    again = restored(text, model_class)
    assert (again.temperature, again.huggingface_api_key) == (0.25, SecretStr(CANARY))
    assert again._call_options(None, {}) == model._call_options(None, {})


@both
def test_serialisation_names_the_variable_of_the_key(model_class: type[Petals]) -> None:
    model = model_class(**FIELDS)
    assert model.lc_secrets == {"huggingface_api_key": "HF_TOKEN"}
    assert model.lc_attributes == {}
    module = {"Petals": "llms", "ChatPetals": "chat_models"}[model_class.__name__]
    assert model_class.lc_id() == ["langchain_petals", module, model_class.__name__]
    assert model.to_json()["kwargs"]["huggingface_api_key"] == {"lc": 1, "type": "secret", "id": ["HF_TOKEN"]}


def test_serialisation_writes_the_given_arguments_only() -> None:
    assert dumpd(Petals(**FIELDS)) == {
        "lc": 1,
        "type": "constructor",
        "id": ["langchain_petals", "llms", "Petals"],
        "name": "Petals",
        "kwargs": {
            "model_name": "acme/gated",
            "temperature": 0.0,
            "stop": ["\n"],
            "initial_peers": [PEER],
            "model_kwargs": {"min_p": 0.1},
            "huggingface_api_key": {"lc": 1, "type": "secret", "id": ["HF_TOKEN"]},
        },
    }


@both
def test_loads_without_the_key_takes_none(model_class: type[Petals]) -> None:
    assert restored(dumps(model_class(**FIELDS)), model_class, key=None).huggingface_api_key is None


@both
def test_a_model_that_was_used_can_be_pickled(
    model_class: type[Petals], tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = model_class(**FIELDS, client=tiny_model, tokenizer=tiny_tokenizer, max_new_tokens=4)
    answers = model.batch(["Hello"])
    again = pickle.loads(pickle.dumps(model))
    assert again._engine is None
    texts = [[getattr(answer, "text", answer) for answer in each] for each in (answers, again.batch(["Hello"]))]
    assert texts[0] == texts[1]


@both
def test_an_unpickled_model_takes_the_key_from_its_environment(
    model_class: type[Petals], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_class(**FIELDS)
    pickled = pickle.dumps(model)
    without = pickle.loads(pickled)
    assert without.huggingface_api_key is None
    assert without == model.model_copy(update={"huggingface_api_key": None})
    monkeypatch.setenv("HF_TOKEN", "hf_ofThatMachine")
    assert pickle.loads(pickled).huggingface_api_key == SecretStr("hf_ofThatMachine")
    assert model.huggingface_api_key == SecretStr(CANARY)


@both
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda model: model.model_copy(deep=True)])
def test_copies_have_the_key_and_share_the_loaded_model(
    model_class: type[Petals], copied: Any, tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = model_class(**FIELDS, client=tiny_model, tokenizer=tiny_tokenizer)
    model.invoke("Hello", max_tokens=2)
    engine = model._get_engine()
    twin = copied(model)
    assert twin == model
    assert twin.huggingface_api_key == SecretStr(CANARY)
    assert (twin.client, twin.tokenizer, twin._get_engine()) == (tiny_model, tiny_tokenizer, engine)
