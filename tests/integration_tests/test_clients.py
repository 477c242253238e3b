"""Each model is loaded once and shared; different models are separate."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from random_weights import write_random_model
from safetensors.torch import load_file
from transformers import AutoTokenizer

from langchain_petals import Petals
from langchain_petals.engine.loading import SwarmClient
from langchain_petals.errors import BlocksMissingError, SwarmUnreachableError
from langchain_petals.swarm import LocalSwarm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def test_objects_with_one_connection_share_an_engine(swarm: LocalSwarm) -> None:
    with ThreadPoolExecutor(8) as threads:
        llms = [Petals(**swarm.connection, temperature=index / 10) for index in range(8)]
        engines = set(threads.map(lambda llm: id(llm._get_engine()), llms))
    assert len(engines) == 1


def test_preload_loads_in_the_constructor(swarm: LocalSwarm) -> None:
    assert Petals(**swarm.connection)._engine is None
    assert Petals(**swarm.connection, preload=True)._engine is not None


class DistributedConfig:
    """The config of petals' distributed model, as far as a client looks at it."""

    def __init__(self, folder: Path, swarm: LocalSwarm) -> None:
        self._values = json.loads((folder / "config.json").read_text())
        self.initial_peers, self.dht_prefix = swarm.initial_peers, swarm.dht_prefix
        self.allowed_servers = self.blocked_servers = self.active_adapter = None

    def to_dict(self) -> dict[str, Any]:
        return self._values


class DistributedModel:
    """Petals' distributed model: embeddings, norm and head as parameters, and a place for the blocks."""

    generation_config = None
    device = torch.device("cpu")

    def __init__(self, folder: Path, swarm: LocalSwarm) -> None:
        self.config = DistributedConfig(folder, swarm)
        self.transformer = SimpleNamespace(h=SimpleNamespace(sequence_manager=None))
        self._weights = load_file(folder / "model.safetensors")

    def named_parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        parts = (name for name in self._weights if ".layers." not in name)
        return ((name, torch.nn.Parameter(self._weights[name])) for name in parts)


def test_a_distributed_model_of_petals_gives_its_parts_and_its_swarm(swarm: LocalSwarm, tiny_folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    given = Petals(client=DistributedModel(tiny_folder, swarm), tokenizer=tokenizer, temperature=0, max_new_tokens=12)
    assert given.invoke("Who are you?") == Petals(**swarm.connection, temperature=0, max_new_tokens=12).invoke(
        "Who are you?"
    )
    assert isinstance(given._get_engine().client, SwarmClient)


def test_a_peer_with_another_id_than_its_address_says_is_an_error(swarm: LocalSwarm) -> None:
    nobody = "12D3KooWQGTqmM7NKjV6ggU1ZCap8zWiyKR89RViDXiqehSiCpY5"
    peers = [f"{peer.rpartition('/')[0]}/{nobody}" for peer in swarm.initial_peers]
    with pytest.raises(
        SwarmUnreachableError, match="Check that they are running and that initial_peers holds"
    ) as caught:
        Petals(**swarm.connection | {"initial_peers": peers}).invoke("Hello")
    assert nobody in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_adapter_that_no_server_has_is_an_error(swarm: LocalSwarm) -> None:
    with pytest.raises(BlocksMissingError, match="active_adapter"):
        Petals(**swarm.connection, active_adapter="nobody/adapter", max_retries=0).invoke("Hello")


def test_a_model_in_float16_answers(swarm: LocalSwarm) -> None:
    assert Petals(**swarm.connection, torch_dtype="float16", temperature=0, max_new_tokens=4).invoke("Hello")


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
