"""The variables that name a model and its swarm: what they are defaults of, and when."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.load import dumps, loads
from langchain_core.runnables import ConfigurableField
from peer_addresses import ADDRESS

from langchain_petals import ChatPetals, Petals
from langchain_petals.environment import VARIABLES, connection_from_environment, variables_of
from langchain_petals.errors import InvalidRequestError

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

OTHER_ADDRESS = ADDRESS.replace("10.1.2.3", "10.9.9.9")
SWARM = {"model": "/models/own", "initial_peers": [ADDRESS, OTHER_ADDRESS], "dht_prefix": "own"}

both = pytest.mark.parametrize("model_class", [Petals, ChatPetals])


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Name a model on a private swarm in the environment."""
    for name, value in variables_of(SWARM).items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def place(model: Petals) -> tuple[str, tuple[str, ...], str | None]:
    connection = model._connection()
    return connection.model, connection.initial_peers, connection.dht_prefix


@both
@pytest.mark.usefixtures("environment")
def test_a_program_without_arguments_uses_the_model_of_the_environment(model_class: type[Petals]) -> None:
    assert place(model_class()) == ("/models/own", (ADDRESS, OTHER_ADDRESS), "own")
    assert place(model_class(model=None, initial_peers=None, dht_prefix=None)) == place(model_class())
    assert model_class() == model_class(**SWARM)


@both
@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    ("arguments", "prefix"),
    [
        ({"model": "/models/own"}, "own"),
        ({"model": "another/one"}, None),
        ({"initial_peers": ["/dns" + ADDRESS.removeprefix("/ip4")]}, None),
        ({"dht_prefix": "mine"}, "mine"),
        ({"model": "another/one", "dht_prefix": "mine"}, "mine"),
    ],
)
def test_an_argument_wins_and_the_prefix_belongs_to_one_model_on_one_swarm(
    model_class: type[Petals], arguments: dict[str, Any], prefix: str | None
) -> None:
    expected = SWARM | arguments
    assert place(model_class(**arguments)) == (expected["model"], tuple(expected["initial_peers"]), prefix)


@both
@pytest.mark.usefixtures("environment")
def test_the_swarm_of_the_environment_serves_other_models_too_so_that_nothing_goes_to_strangers(
    model_class: type[Petals],
) -> None:
    assert model_class(model="another/one").initial_peers == [ADDRESS, OTHER_ADDRESS]
    assert model_class(model="another/one", initial_peers=[])._connection().initial_peers == ()


@pytest.mark.parametrize("separator", [",", " ", ", ", "\n", " , ,"])
def test_peers_are_separated_by_commas_or_white_space(monkeypatch: pytest.MonkeyPatch, separator: str) -> None:
    monkeypatch.setenv(VARIABLES["initial_peers"], f" {ADDRESS}{separator}{OTHER_ADDRESS} ")
    assert Petals(model="m").initial_peers == [ADDRESS, OTHER_ADDRESS]


def test_a_prefix_without_a_model_belongs_to_whichever_model_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLES["dht_prefix"], "own")
    assert place(Petals(model="m")) == ("m", (), "own")


@both
def test_empty_variables_are_none(model_class: type[Petals], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES.values():
        monkeypatch.setenv(name, " ")
    assert place(model_class(model="m")) == ("m", (), None)
    assert place(Petals()) == ("bigscience/bloom-petals", (), None)
    assert connection_from_environment() == {"model": None, "initial_peers": None, "dht_prefix": None}


def test_a_chat_model_without_a_name_says_how_to_give_one() -> None:
    for arguments in ({}, {"model": None}, {"model": ""}):
        with pytest.raises(InvalidRequestError, match=r"model is missing; .* or set LANGCHAIN_PETALS_MODEL"):
            ChatPetals(**arguments)


@both
@pytest.mark.parametrize(
    ("argument", "value", "told"),
    [
        ("initial_peers", "10.1.2.3:31337", "LANGCHAIN_PETALS_INITIAL_PEERS: '10.1.2.3:31337' is not a multiaddress"),
        ("dht_prefix", "own.model", "LANGCHAIN_PETALS_DHT_PREFIX='own.model' must be a name without '.'"),
    ],
)
def test_an_error_names_the_variable(
    model_class: type[Petals], monkeypatch: pytest.MonkeyPatch, argument: str, value: str, told: str
) -> None:
    monkeypatch.setenv(VARIABLES[argument], value)
    with pytest.raises(InvalidRequestError) as caught:
        model_class(model="m")
    assert str(caught.value).startswith(told)
    model_class(model="m", initial_peers=[], dht_prefix="own")  # what is not used is not checked


@both
def test_a_serialised_object_takes_its_swarm_from_where_it_is_loaded(
    model_class: type[Petals], environment: pytest.MonkeyPatch
) -> None:
    text = dumps(model_class(temperature=0.25))
    assert not any(word in text for word in ("/models/own", "10.1.2.3", "dht_prefix"))
    known: dict[str, Any] = {"allowed_objects": [model_class], "valid_namespaces": ["langchain_petals"]}
    assert loads(text, **known) == model_class(temperature=0.25)
    environment.setenv(VARIABLES["initial_peers"], OTHER_ADDRESS)
    assert loads(text, **known).initial_peers == [OTHER_ADDRESS]


@both
def test_copies_and_pickles_stay_on_their_swarm(model_class: type[Petals], environment: pytest.MonkeyPatch) -> None:
    model = model_class()
    pickled = pickle.dumps(model)
    configurable = model.configurable_fields(temperature=ConfigurableField(id="temperature"))
    for name in VARIABLES.values():
        environment.delenv(name)
    chosen = configurable.with_config(configurable={"temperature": 0.5})._prepare()[0]  # type: ignore[attr-defined]
    for copied in (copy.copy(model), copy.deepcopy(model), model.model_copy(), pickle.loads(pickled), chosen):
        assert place(copied) == ("/models/own", (ADDRESS, OTHER_ADDRESS), "own")


@both
@pytest.mark.usefixtures("environment")
def test_a_copy_with_another_model_or_swarm_leaves_the_prefix_of_the_environment(model_class: type[Petals]) -> None:
    model, named = model_class(), model_class(dht_prefix="named")
    other: dict[str, Any] = {"model_name": "third"}
    public: dict[str, Any] = {"initial_peers": []}
    assert place(model.model_copy(update=other)) == ("third", (ADDRESS, OTHER_ADDRESS), None)
    assert place(model.model_copy(update=public)) == ("/models/own", (), None)
    assert place(model.model_copy(update={"temperature": 0.5})) == place(model)
    assert [place(named.model_copy(update=update))[2] for update in (other, public)] == ["named", "named"]
    assert place(model_class(model="third").model_copy(update={"model_name": "/models/own"})) == place(model)


@both
@pytest.mark.usefixtures("environment")
def test_a_loaded_model_has_nothing_to_do_with_the_environment(
    model_class: type[Petals], tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = model_class(model="tiny", client=tiny_model, tokenizer=tiny_tokenizer)
    assert place(model) == ("tiny", (), None)


@both
@pytest.mark.usefixtures("environment")
def test_the_cache_key_is_that_of_the_same_arguments(model_class: type[Petals]) -> None:
    assert model_class()._identifying_params == model_class(**SWARM)._identifying_params


@pytest.mark.usefixtures("environment")
def test_a_call_that_names_another_model_uses_the_swarm_of_the_environment() -> None:
    named = ChatPetals(model="another/one")
    for model in (named, ChatPetals()):
        for name in ("third", "/models/own", "another/one"):
            assert place(model._for_call({"model": name})) == place(ChatPetals(model=name))
            assert model._get_llm_string(model=name) == ChatPetals(model=name)._get_llm_string()
