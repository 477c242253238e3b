"""Models from a hub: a real HTTP server with the hub's routes, and huggingface_hub as it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import torch
import vcr
from cassettes import CDN, HUB, vcr_settings
from huggingface_hub import hf_hub_url
from huggingface_hub.utils._headers import build_hf_headers
from huggingface_hub.utils._http import get_session
from safetensors.torch import load_file

from langchain_petals import Petals
from langchain_petals.engine.loading.checkpoint import Checkpoint
from langchain_petals.engine.loading.tokenizer_files import load_tokenizer
from langchain_petals.errors import (
    AccessDeniedError,
    HubUnreachableError,
    InvalidKeyError,
    UnsupportedModelError,
)
from langchain_petals.hub import read_json
from langchain_petals.swarm import LocalSwarm

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from local_hub import LocalHub

    from langchain_petals.hub import Repository

READER, STRANGER = "hf_mayReadTheGatedModel", "hf_belongsToSomebodyElse"
MEGABYTE = 2**20
PROMPT = "Human: Who are you?\nAI:"


@pytest.fixture(autouse=True)
def _models(hub: LocalHub, tiny_folder: Path) -> None:
    hub.keys |= {READER, STRANGER}
    hub.add("acme/open", tiny_folder)
    hub.add("acme/gated", tiny_folder, gated=True, readers={READER})


@pytest.fixture
def llm(hub: LocalHub, swarm: LocalSwarm, tmp_path: Path) -> Callable[..., Petals]:
    """Return a factory of language models whose files come from the hub, and whose blocks are on the swarm."""

    def llm(model: str, **fields: Any) -> Petals:
        place = {"initial_peers": swarm.initial_peers, "dht_prefix": swarm.dht_prefix}
        return Petals(model=model, **place, cache_dir=str(tmp_path / "cache"), temperature=0, max_tokens=12, **fields)

    return llm


def pickled(folder: Path, work_dir: Path) -> dict[str, bytes]:
    """Return a model's files, with its weights in a pickle."""
    weights = work_dir / "pytorch_model.bin"
    torch.save(load_file(folder / "model.safetensors"), weights)
    return {path.name: path.read_bytes() for path in (*folder.glob("*.json"), weights)}


def test_an_open_model_needs_no_key(hub: LocalHub, llm: Callable[..., Petals], swarm: LocalSwarm) -> None:
    expected = Petals(**swarm.connection, temperature=0, max_new_tokens=12).invoke(PROMPT)
    assert llm("acme/open").invoke(PROMPT) == expected
    assert {request.key for request in hub.requests} == {None}


def test_every_file_of_a_gated_model_is_requested_with_the_key(
    hub: LocalHub, llm: Callable[..., Petals], swarm: LocalSwarm
) -> None:
    expected = Petals(**swarm.connection, temperature=0, max_new_tokens=12).invoke(PROMPT)
    gated = llm("acme/gated", huggingface_api_key=READER)
    assert gated.invoke(PROMPT) == expected
    assert {(request.place, request.key) for request in hub.requests} == {("hub", READER), ("cdn", None)}
    assert [request for request in hub.requests if request.status in {401, 403}] == []
    got = {
        request.path.rpartition("/")[2] for request in hub.requests if (request.method, request.status) == ("GET", 200)
    }
    assert got >= {"config.json", "tokenizer.json", "generation_config.json"}


def test_a_revision_is_read_and_then_found_in_the_cache(
    hub: LocalHub, llm: Callable[..., Petals], tiny_folder: Path
) -> None:
    files = {path.name: path.read_bytes() for path in tiny_folder.iterdir()}
    older = hub.add("acme/open", files | {"README.md": b"older"}, branch="v1").branches["v1"]
    answer = llm("acme/open", revision="v1").invoke(PROMPT)
    got = {request.path for request in hub.requests if request.method == "GET" and request.place == "hub"}
    assert got
    # the first question is for the branch, and its answer tells the commit
    assert {path for path in got if older not in path} <= {"/acme/open/resolve/v1/config.json"}
    hub.requests.clear()
    assert llm("acme/open", revision="v1", local_files_only=True).invoke(PROMPT) == answer
    assert hub.requests == []


def test_weights_in_pickles_cause_one_warning(
    hub: LocalHub, llm: Callable[..., Petals], tiny_folder: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    hub.add("acme/pickled", pickled(tiny_folder, tmp_path))
    warnings.simplefilter("always")
    assert len({llm("acme/pickled").invoke(PROMPT) for _ in range(3)}) == 1
    assert len([warning for warning in recwarn if "pickles only" in str(warning.message)]) == 1


def test_the_key_is_not_kept_in_the_model(llm: Callable[..., Petals]) -> None:
    client: Any = llm("acme/gated", huggingface_api_key=READER)._get_engine().client
    for kept in (client, client.parts, client.parts.config, client.tokenizer, client.routes, client.generation_config):
        assert READER not in f"{getattr(kept, '__dict__', {})} {kept}"


def test_a_refused_key_does_not_spoil_the_connection(llm: Callable[..., Petals]) -> None:
    with pytest.raises(AccessDeniedError, match="no key was given"):
        llm("acme/gated").invoke(PROMPT)
    with pytest.raises(InvalidKeyError, match="does not know the key"):
        llm("acme/gated", huggingface_api_key="hf_isNoKeyAtAll").invoke(PROMPT)
    with pytest.raises(AccessDeniedError, match="has no access"):
        llm("acme/gated", huggingface_api_key=STRANGER).invoke(PROMPT)
    loaded = llm("acme/gated", huggingface_api_key=READER)
    assert loaded.invoke(PROMPT)
    # what one key has loaded, all objects of the process share
    assert llm("acme/gated")._get_engine() is loaded._get_engine()


def test_servers_get_the_key_but_do_not_show_it(hub: LocalHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_TOKEN", READER)
    with LocalSwarm("acme/gated", servers=1, log_dir=tmp_path / "logs") as swarm:
        hub.requests.clear()
        family = [psutil.Process(swarm._supervisor._process.pid)]
        family += family[0].children(recursive=True)
        assert len(family) >= 3
        for process in family:
            assert READER not in f"{process.cmdline()} {process.environ()}"
        llm = Petals(**swarm.connection, cache_dir=str(tmp_path / "cache"), temperature=0, max_tokens=4)
        assert llm.invoke(PROMPT)
    for log in (tmp_path / "logs").iterdir():
        assert READER not in log.read_text()
    assert {request.key for request in hub.requests if request.place == "hub"} == {READER}


def test_a_swarm_of_a_gated_model_needs_the_key() -> None:
    with pytest.raises(AccessDeniedError, match="'acme/gated' is gated, and no key was given"):
        LocalSwarm("acme/gated")


def test_the_environment_gives_the_hubs_address_and_the_key(hub: LocalHub, swarm: LocalSwarm, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(exist_ok=True)
    (tmp_path / "home" / "token").write_text(READER)
    program = """
import sys, json
from langchain_petals import Petals
print(Petals(**json.loads(sys.argv[1]), temperature=0, max_tokens=12).invoke(sys.argv[2]))
"""
    place = {"model": "acme/gated", "initial_peers": swarm.initial_peers, "dht_prefix": swarm.dht_prefix}
    run = subprocess.run(
        [sys.executable, "-c", program, json.dumps(place), PROMPT],
        env={**os.environ, "HF_ENDPOINT": hub.url},
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    assert run.stdout.rstrip("\n") == Petals(**swarm.connection, temperature=0, max_new_tokens=12).invoke(PROMPT)
    assert {request.key for request in hub.requests if "/acme/gated/" in request.path} == {READER}
    assert {request.key for request in hub.requests} <= {READER, None}  # huggingface_hub asks for what is public, too
    assert READER not in run.stderr


EMBEDDINGS = "model.embed_tokens.weight"


def test_the_cache_is_read_when_the_hub_is_down(hub: LocalHub, find: Callable[..., Repository]) -> None:
    def load(repository: Repository) -> tuple[Any, Any]:
        config = read_json(repository, "config.json") or {}
        return load_tokenizer(repository, config), Checkpoint(repository).read(EMBEDDINGS)

    online = find("acme/gated", READER)
    load(online)
    find("acme/open")
    hub.close()
    offline = find("acme/gated")
    assert offline.revision == online.revision
    tokenizer, embeddings = load(offline)
    assert tokenizer("Hi")["input_ids"] == [72, 105]
    assert embeddings.dim() == 2
    incomplete = find("acme/open")
    for read in (lambda: load_tokenizer(incomplete, {}), lambda: Checkpoint(incomplete)):
        with pytest.raises(HubUnreachableError, match="all files of 'acme/open' must be in the cache") as caught:
            read()
        assert hub.url in str(caught.value)
    with pytest.raises(HubUnreachableError, match="could not be reached"):
        find("acme/unknown")


def test_an_interrupted_download_is_resumed(hub: LocalHub, find: Callable[..., Repository]) -> None:
    weights = bytes(24 * MEGABYTE)  # huggingface_hub writes 10 at a time
    hub.add("acme/large", {"config.json": b"{}", "model.safetensors": weights}, gated=True, readers={READER})
    repository = find("acme/large", READER)
    hub.interruptions = 1
    try:
        cached = repository.file("model.safetensors")
    except HubUnreachableError:  # older versions leave it to the next call
        cached = repository.file("model.safetensors")
    first, second = (request for request in hub.requests if request.place == "cdn")
    assert (first.status, second.status) == (200, 206)
    assert int(second.headers["range"].removeprefix("bytes=").split("-")[0]) >= 10 * MEGABYTE
    assert cached is not None
    assert cached.read_bytes() == weights


def test_weights_in_pickles_are_requested_from_the_hub_only(
    hub: LocalHub, find: Callable[..., Repository], tiny_folder: Path, tmp_path: Path
) -> None:
    hub.add("acme/pickled", pickled(tiny_folder, tmp_path), gated=True, readers={READER})
    with pytest.warns(UserWarning, match="pickles only"):
        checkpoint = Checkpoint(find("acme/pickled", READER))
    for name, tensor in load_file(tiny_folder / "model.safetensors").items():
        found = checkpoint.read(name)
        assert found is not None
        assert torch.equal(found, tensor)
    # transformers would ask for a conversion
    assert [request.path for request in hub.requests if "/api/models/" in request.path] == []


def test_an_unknown_family_is_refused_before_its_weights_are_downloaded(
    hub: LocalHub, tiny_folder: Path, tmp_path: Path
) -> None:
    files = {path.name: path.read_bytes() for path in tiny_folder.iterdir()}
    config = json.loads(files["config.json"]) | {"model_type": "gpt2"}
    hub.add("acme/foreign", files | {"config.json": json.dumps(config).encode()})
    with pytest.raises(UnsupportedModelError, match="family 'gpt2'"):
        Petals(model="acme/foreign", dht_prefix="foreign", cache_dir=str(tmp_path / "cache")).invoke(PROMPT)
    assert [request.path for request in hub.requests if "safetensors" in request.path] == []


def test_a_redirect_to_another_host_does_not_carry_the_key(hub: LocalHub) -> None:
    url = hf_hub_url("acme/gated", "model.safetensors")
    answer = get_session().get(url, headers=build_hf_headers(token=READER), timeout=10)
    assert answer.status_code == 200
    assert [(request.place, request.key) for request in hub.requests] == [("hub", READER), ("cdn", None)]


def test_a_fresh_cassette_holds_no_secret(hub: LocalHub, find: Callable[..., Repository], tmp_path: Path) -> None:
    recorder = vcr.VCR(**vcr_settings({hub.url: HUB, hub.cdn_url: CDN}))
    cassette = tmp_path / "fresh.yaml"
    with recorder.use_cassette(str(cassette), record_mode="all"):
        for key in (READER, STRANGER, "hf_isNoKeyAtAll"):
            try:
                repository = find("acme/gated", key, revision="main")
                load_tokenizer(repository, {})
                repository.file("model.safetensors")
            except AccessDeniedError:
                continue
    asked_with = {request.key for request in hub.requests}
    assert asked_with >= {READER, STRANGER, "hf_isNoKeyAtAll"}
    text = cassette.read_text()
    assert "hub.test/acme/gated" in text
    assert "cdn.test" in text
    for secret in ("hf_", "Bearer", "Set-Cookie", "session=", hub.url, hub.cdn_url):
        assert secret.lower() not in text.lower()
