"""Each model is loaded once and shared; different models are separate."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from random_weights import write_random_model
from transformers import AutoTokenizer

from langchain_petals import Petals
from langchain_petals.engine.causal_model import CausalModel, DistributedModel, is_distributed
from langchain_petals.swarm import LocalSwarm

if TYPE_CHECKING:
    from pathlib import Path


def test_objects_with_one_connection_share_an_engine(swarm: LocalSwarm) -> None:
    with ThreadPoolExecutor(8) as threads:
        llms = [Petals(**swarm.connection, temperature=index / 10) for index in range(8)]
        engines = set(threads.map(lambda llm: id(llm._get_engine()), llms))
    assert len(engines) == 1


def test_preload_loads_in_the_constructor(swarm: LocalSwarm) -> None:
    assert Petals(**swarm.connection)._engine is None
    assert Petals(**swarm.connection, preload=True)._engine is not None


def test_distributed_model_has_all_members_that_the_engine_uses(swarm: LocalSwarm) -> None:
    client = Petals(**swarm.connection)._get_engine().client
    members = {name for protocol in (CausalModel, DistributedModel) for name in vars(protocol) if name[0] != "_"}
    assert [name for name in members if not hasattr(client.model, name)] == []
    assert is_distributed(client.model)


def test_two_models_in_one_process_answer_as_each_does_alone(
    swarm: LocalSwarm, tiny_folder: Path, tmp_path: Path
) -> None:
    other = write_random_model(tiny_folder, tmp_path / "other")
    with LocalSwarm(model=str(tmp_path / "other"), servers=1) as second:
        one = Petals(**swarm.connection, temperature=0, max_new_tokens=12)
        two = Petals(**second.connection, temperature=0, max_new_tokens=12)
        alone = [one.invoke("Who are you?"), two.invoke("Who are you?")]
        with ThreadPoolExecutor(2) as threads:
            together = list(threads.map(lambda llm: llm.invoke("Who are you?"), [one, two]))
    assert together == alone
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    ids = tokenizer("Who are you?", return_tensors="pt").input_ids
    expected = other.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
    assert alone[1] == tokenizer.decode(expected, skip_special_tokens=True)


def test_two_models_on_one_swarm(swarm: LocalSwarm, second_swarm: LocalSwarm) -> None:
    assert second_swarm.initial_peers == swarm.initial_peers
    answers = {
        Petals(**each.connection, temperature=0, max_new_tokens=12).invoke("Who are you?")
        for each in (swarm, second_swarm)
    }
    assert len(answers) == 1  # the weights are the same


def test_prefix_comes_from_the_folder(swarm: LocalSwarm) -> None:
    connection = {**swarm.connection, "dht_prefix": None}
    assert Petals(**connection, temperature=0, max_new_tokens=2).invoke("Hello") != ""
