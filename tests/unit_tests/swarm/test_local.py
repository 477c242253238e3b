"""What LocalSwarm makes of its arguments, before and without starting a process."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from langchain_petals.engine import engines
from langchain_petals.errors import InvalidRequestError, LocalSwarmError, ModelLoadError, PetalsNotInstalledError
from langchain_petals.swarm import LocalSwarm, local

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class FakeSupervisorLink:
    """Takes the orders and reports at once that the processes are ready, without starting any."""

    made: list[FakeSupervisorLink]
    is_ours = True

    def __init__(self, python: Path, log_dir: Path | None) -> None:
        self.made.append(self)
        self.python, self.log_dir = python, log_dir or Path("temporary")
        self.orders: dict[str, dict[str, Any]] = {}
        self.pids: dict[str, int] = {}
        self.killed: list[str] = []
        self.ended = 0

    def log_path(self, name: str) -> Path:
        return self.log_dir / f"{name}.log"

    def start(self, name: str, **order: Any) -> None:
        self.orders[name] = order
        self.pids[name] = 1000 + len(self.pids)

    def wait_ready(
        self, roles: dict[str, str], deadline: float, timeout: float, say: Callable[[str], None]
    ) -> dict[str, Any]:
        del deadline, timeout
        say(f"Waiting for {', '.join(roles)}")
        return {name: {"peer_id": f"peer of {name}", "initial_peers": ["/ip4/1.2.3.4"]} for name in roles}

    def is_gone(self, name: str) -> bool:
        return name in self.killed or self.ended > 0

    def kill(self, name: str) -> None:
        self.killed.append(name)

    def end(self) -> None:
        self.ended += 1


@pytest.fixture(autouse=True)
def links(monkeypatch: pytest.MonkeyPatch) -> list[FakeSupervisorLink]:
    """Return the links that a test's swarms have made: none means that nothing was started."""
    FakeSupervisorLink.made = []
    monkeypatch.setattr(local, "SupervisorLink", FakeSupervisorLink)
    monkeypatch.setenv("LANGCHAIN_PETALS_SERVER_PYTHON", sys.executable)
    return FakeSupervisorLink.made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a model with 5 blocks whose name has a dot."""
    model = tmp_path / "Some model-1.5"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"n_layer": 5}))
    (model / "model.safetensors").touch()
    return model


def test_importing_the_swarm_does_not_load_torch_or_petals() -> None:
    check = "import sys, langchain_petals.swarm; print({'torch', 'petals', 'hivemind'} & set(sys.modules))"
    root = Path(local.__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", check], cwd=root, check=True, capture_output=True, text=True)
    assert run.stdout == "set()\n"


def test_defaults_are_the_bundled_model_on_two_servers(links: list[FakeSupervisorLink]) -> None:
    with LocalSwarm() as swarm:
        assert swarm.connection == {
            "model": str(Path(local.__file__).with_name("tiny")),
            "initial_peers": ["/ip4/1.2.3.4"],
            "dht_prefix": "tiny",
        }
        assert [server.blocks for server in swarm.servers] == [range(2), range(2, 4)]
    assert len(links) == 1


@pytest.mark.parametrize(
    ("servers", "spans"),
    [
        (1, [range(5)]),
        (2, [range(2), range(2, 5)]),
        (3, [range(1), range(1, 3), range(3, 5)]),
        (5, [range(1), range(1, 2), range(2, 3), range(3, 4), range(4, 5)]),
    ],
)
def test_blocks_are_split_evenly(folder: Path, servers: int, spans: list[range]) -> None:
    assert [server.blocks for server in LocalSwarm(folder, servers=servers).servers] == spans


def test_replicas_follow_the_servers_that_hold_the_model_once(folder: Path) -> None:
    swarm = LocalSwarm(folder, servers=2, replicas=2)
    assert [server.blocks for server in swarm.servers] == [range(2), range(2, 5), range(2), range(2, 5)]
    assert len({server.pid for server in swarm.servers}) == len({server.peer_id for server in swarm.servers}) == 4


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"servers": 0}, "servers=0"),
        ({"servers": 2.0}, "servers=2.0"),
        ({"servers": True}, "servers=True"),
        ({"servers": 5}, "1 to 4"),
        ({"replicas": 0}, "replicas=0"),
        ({"startup_timeout": 0}, "startup_timeout=0"),
        ({"hop_delay": float("inf")}, "hop_delay=inf"),
        ({"hop_delay": float("nan")}, "hop_delay=nan"),
        ({"dht_prefix": "llama-3.1"}, "without '.' and ' '"),
        ({"dht_prefix": "my model"}, "without '.' and ' '"),
        ({"dht_prefix": ""}, "dht_prefix=''"),
        ({"model": "no/such/folder"}, "neither a folder nor a name on the hub"),
        ({"model": Path("nothing")}, "neither a folder nor a name on the hub"),
        ({"model": "./nothing"}, "neither a folder nor a name on the hub"),
        ({"model": Path(__file__).parent}, "it needs config.json and one of model.safetensors"),
    ],
)
def test_impossible_arguments_are_refused_before_anything_starts(
    links: list[FakeSupervisorLink], arguments: dict[str, Any], named: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        LocalSwarm(**arguments)
    assert named in str(caught.value)
    assert not links


@pytest.mark.parametrize("text", ["", "[1]", "{"])
def test_a_broken_config_is_named(links: list[FakeSupervisorLink], folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelLoadError, match=r"config\.json of .*1\.5"):
        LocalSwarm(folder)
    assert not links


def test_a_config_without_a_number_of_blocks_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text("{}")
    with pytest.raises(InvalidRequestError, match="does not have the number of blocks"):
        LocalSwarm(folder)


def test_the_prefix_comes_from_the_models_name_without_petals_delimiters(folder: Path) -> None:
    assert LocalSwarm(folder).dht_prefix == "Some-model-1-5"
    assert LocalSwarm(folder, dht_prefix="mine").connection["dht_prefix"] == "mine"


@pytest.mark.parametrize(("context", "longest"), [(4096, 4096), (131072, 8192), (None, 8192)])
def test_servers_take_sessions_as_long_as_the_context(
    links: list[FakeSupervisorLink], folder: Path, context: int | None, longest: int
) -> None:
    (folder / "config.json").write_text(json.dumps({"num_hidden_layers": 2, "max_position_embeddings": context}))
    LocalSwarm(folder)
    order = links[0].orders["server-0"]
    assert order["inference_max_length"] == longest
    assert order["attn_cache_tokens"] == 16 * longest


@pytest.mark.parametrize("blocks", [range(2, 4), (2, 4), "2:4", " 2 : 4 "])
def test_a_server_is_added_for_any_way_to_write_a_span(links: list[FakeSupervisorLink], blocks: Any) -> None:
    swarm = LocalSwarm(log_dir="logs")
    server = swarm.add_server(blocks)
    assert server is swarm.servers[2]
    assert server.blocks == range(2, 4)
    assert server.log_path == Path.cwd() / "logs" / "server-2.log"
    assert links[0].orders["server-2"]["block_indices"] == "2:4"


@pytest.mark.parametrize(
    "blocks",
    [
        range(2, 5),
        range(0),
        range(0, 4, 2),
        range(3, 1, -1),
        (2, 2),
        (-1, 2),
        (1,),
        "2",
        "2-4",
        "1:2:3",
        2,
        None,
    ],
)
def test_a_span_that_the_model_does_not_have_is_refused(links: list[FakeSupervisorLink], blocks: Any) -> None:
    swarm = LocalSwarm()
    with pytest.raises(InvalidRequestError, match="0 <= start < end <= 4"):
        swarm.add_server(blocks)
    assert "server-2" not in links[0].orders


def test_a_swarm_says_what_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    @contextmanager
    def progress(text: str) -> Iterator[Callable[[str], None]]:
        said.append(text)
        yield said.append

    monkeypatch.setattr(local, "progress", progress)
    swarm = LocalSwarm()
    assert said == ["Starting a swarm", "Waiting for bootstrap", "Waiting for server-0, server-1"]
    swarm.add_server("0:1")
    assert said[3:] == ["Starting a server", "Waiting for server-2"]


def test_servers_run_with_the_interpreter_that_is_named(links: list[FakeSupervisorLink], tmp_path: Path) -> None:
    (tmp_path / "python").touch()
    LocalSwarm(python=tmp_path / "python")
    LocalSwarm()
    assert [link.python for link in links] == [tmp_path / "python", Path(sys.executable)]


def test_an_interpreter_that_does_not_exist_is_refused_before_anything_starts(links: list[FakeSupervisorLink]) -> None:
    with pytest.raises(PetalsNotInstalledError, match="'nowhere' is not a file"):
        LocalSwarm(python="nowhere")
    assert not links


@pytest.mark.parametrize(("config", "blocks"), [({"n_layer": 3}, 3), ({"num_hidden_layers": 2, "n_layer": 3}, 2)])
def test_the_number_of_blocks_is_read_from_the_config(folder: Path, config: dict[str, int], blocks: int) -> None:
    (folder / "config.json").write_text(json.dumps(config))
    assert LocalSwarm(folder, servers=1).servers[0].blocks == range(blocks)


@pytest.mark.parametrize("blocks", [0, -1, True, "4", 2.0, None])
def test_a_number_of_blocks_that_is_none_is_refused(folder: Path, blocks: Any) -> None:
    (folder / "config.json").write_text(json.dumps({"num_hidden_layers": blocks}))
    with pytest.raises(InvalidRequestError, match="does not have the number of blocks"):
        LocalSwarm(folder)


def test_closing_ends_the_processes_once(links: list[FakeSupervisorLink]) -> None:
    with LocalSwarm() as swarm:
        swarm.close()
        swarm.close()
    assert links[0].ended == 1
    assert repr(swarm).endswith("closed)")


def test_an_error_while_starting_ends_the_processes(
    links: list[FakeSupervisorLink], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    swarm = LocalSwarm()
    monkeypatch.setattr(FakeSupervisorLink, "wait_ready", interrupt)
    with pytest.raises(KeyboardInterrupt):
        swarm.add_server("0:1")
    assert (links[0].killed, links[0].ended) == (["server-2"], 0)
    with pytest.raises(KeyboardInterrupt):
        LocalSwarm()
    assert links[1].ended == 1


def test_a_garbage_collected_swarm_is_closed(links: list[FakeSupervisorLink]) -> None:
    LocalSwarm()
    assert links[0].ended == 1


def test_a_closed_swarm_takes_no_servers() -> None:
    swarm = LocalSwarm()
    swarm.close()
    with pytest.raises(LocalSwarmError, match="closed"):
        swarm.add_server("0:1")


def test_closing_disconnects_the_engines_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    released: list[tuple[list[str], str | None]] = []

    def release(initial_peers: list[str], model: str | None) -> None:
        released.append((initial_peers, model))

    monkeypatch.setattr(engines, "release", release)
    LocalSwarm().close()
    assert released == [(["/ip4/1.2.3.4"], None)]


def test_a_killed_server_shows_as_dead() -> None:
    swarm = LocalSwarm()
    server = swarm.servers[1]
    assert repr(server) == f"LocalServer(blocks 2:4, pid {server.pid})"
    server.kill()
    assert repr(server) == f"LocalServer(blocks 2:4, pid {server.pid}, dead)"
    assert swarm.servers[0].alive
