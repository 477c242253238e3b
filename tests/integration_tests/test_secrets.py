"""The hub's key, through everything that a program does with a model: it is written down nowhere."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
import requests
from langchain_core.tracers import LangChainTracer
from langsmith import Client as LangSmith
from leaks import CANARY, frames, raised, sings, written_forms

from langchain_petals import ChatPetals, Petals
from langchain_petals.errors import (
    AccessDeniedError,
    HubUnreachableError,
    InvalidKeyError,
    PetalsError,
    SwarmUnreachableError,
    UnsupportedModelError,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from local_hub import LocalHub

    from langchain_petals.swarm import LocalSwarm

NOBODY = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWQGTqmM7NKjV6ggU1ZCap8zWiyKR89RViDXiqehSiCpY5"

both = pytest.mark.parametrize("model_class", [Petals, ChatPetals])


class CapturingSession(requests.Session):
    """Takes what LangSmith's client would send."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[str] = []

    def request(self, method: str | bytes, url: str | bytes, *arguments: Any, **options: Any) -> requests.Response:
        self.sent.append(f"{method!r} {url!r} {arguments} {options}")
        answer = requests.Response()
        answer.status_code = 200
        answer._content = b"{}"
        return answer


@pytest.fixture
def model(hub: LocalHub, swarm: LocalSwarm, tiny_folder: Path, tmp_path: Path) -> Callable[..., Any]:
    """Return a factory of models that need the canary to load."""
    hub.keys.add(CANARY)
    hub.echoes_keys = False  # httpcore's log has the headers of answers
    hub.add("acme/gated", tiny_folder, gated=True, readers={CANARY})

    def model(model_class: type[Any], **fields: Any) -> Any:
        defaults = {
            "model": "acme/gated",
            "initial_peers": swarm.initial_peers,
            "dht_prefix": swarm.dht_prefix,
            "cache_dir": str(tmp_path / "cache"),
            "temperature": 0,
            "max_tokens": 4,
            "huggingface_api_key": CANARY,
        }
        return model_class(**defaults | fields)

    return model


@both
async def test_a_model_in_use_shows_its_key_nowhere(
    *,
    model: Callable[..., Any],
    model_class: type[Any],
    hub: LocalHub,
    swarm: LocalSwarm,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for name in ("", *logging.root.manager.loggerDict):
        caplog.set_level(logging.DEBUG, name or None)
    session = CapturingSession()
    langsmith = LangSmith(
        api_url="http://langsmith.test", api_key="none", session=session, auto_batch_tracing=False, info={}
    )
    tracer = LangChainTracer(project_name="canary", client=langsmith)
    config: Any = {"callbacks": [tracer]}

    used = model(model_class)
    used.invoke("Hello", config)
    list(used.stream("Hello", config))
    used.batch(["Hello", "Hi"], config)
    await used.ainvoke("Hello", config)
    [chunk async for chunk in used.astream("Hello", config)]
    [event async for event in used.astream_events("Hello", config, version="v2")]
    raised(lambda: used.invoke("Hello", config, wrong_option=1))
    tracer.wait_for_futures()

    assert {request.key for request in hub.requests if "/acme/gated/" in request.path} == {CANARY}
    loggers = {record.name.partition(".")[0] for record in caplog.records}
    assert loggers >= {"langchain_petals", "huggingface_hub"}
    written = written_forms(used) | {"log": caplog.text, "output": "".join(capfd.readouterr())}
    written |= {f"trace {number}": sent for number, sent in enumerate(session.sent)}
    written |= {"run tree": f"{tracer.run_map} {tracer.latest_run and vars(tracer.latest_run)}"}
    written |= {f"log of {server.pid}": server.log_path.read_text() for server in swarm.servers}
    client = used._get_engine().client
    kept = (client, client.parts, client.parts.config, client.tokenizer, client.routes, client.generation_config)
    written |= {
        f"part {number} of the client": f"{getattr(each, '__dict__', each)}" for number, each in enumerate(kept)
    }
    assert any("Hello" in sent for sent in session.sent)
    assert [name for name, text in written.items() if sings(text)] == []


@both
def test_no_error_of_loading_holds_the_key(
    *,
    model: Callable[..., Any],
    model_class: type[Any],
    hub: LocalHub,
    tiny_folder: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    files = {path.name: path.read_bytes() for path in tiny_folder.iterdir()}
    foreign = json.loads(files["config.json"]) | {"model_type": "gpt2"}
    hub.add("acme/foreign", files | {"config.json": json.dumps(foreign).encode()}, gated=True, readers={CANARY})
    hub.add("acme/broken", files | {"config.json": b"{"}, gated=True, readers={CANARY})
    hub.add("acme/torn", files | {"model.safetensors": b"no weights"}, gated=True, readers={CANARY})
    hub.add("acme/weightless", {"config.json": files["config.json"]}, gated=True, readers={CANARY})

    def error(**fields: Any) -> BaseException:
        found = raised(lambda: model(model_class, **fields).invoke("Hello"))
        assert [text for text in frames(found) if sings(text)] == []
        return found

    assert isinstance(error(initial_peers=[NOBODY]), SwarmUnreachableError)
    assert isinstance(error(model="acme/foreign"), UnsupportedModelError)
    for name in ("acme/broken", "acme/weightless"):
        assert isinstance(error(model=name), PetalsError)
    error(model="acme/torn")
    hub.repositories["acme/gated"].readers.clear()
    assert isinstance(error(cache_dir=str(tmp_path / "empty")), AccessDeniedError)
    hub.keys.clear()
    assert isinstance(error(cache_dir=str(tmp_path / "empty")), InvalidKeyError)
    hub.close()
    assert isinstance(error(cache_dir=str(tmp_path / "empty")), HubUnreachableError)
    assert not sings(caplog.text)
