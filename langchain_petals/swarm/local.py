"""LocalSwarm: a complete Petals swarm in processes on this machine."""

from __future__ import annotations

import math
import sys
import time
import weakref
from itertools import count, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_petals import hub
from langchain_petals.addresses import check_initial_peers, check_prefix, default_prefix
from langchain_petals.errors import LocalSwarmError
from langchain_petals.progress import progress
from langchain_petals.swarm.interpreter import servers_python
from langchain_petals.swarm.served_model import (
    BUNDLED_MODEL,
    blocks_and_context,
    parse_span,
    require,
    resolve_model,
    span_text,
)
from langchain_petals.swarm.supervisor_link import SupervisorLink

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from typing_extensions import Self

_LONGEST_SESSION = 8192  # tokens; less if the model's context is shorter
_FULL_SESSIONS = 16  # a server's attention cache holds this many sessions of `_LONGEST_SESSION` tokens
_BOOTSTRAP = "bootstrap"


class LocalServer:
    """A server of a `LocalSwarm`.

    Attributes:
        pid: Process id; also the id of the process group that holds all of the server's processes.
        peer_id: The server's name in the swarm, for `allowed_servers` and `blocked_servers`.
        blocks: Indices of the model's blocks that it holds.
        log_path: File of its log.
    """

    def __init__(self, name: str, blocks: range, peer_id: str, supervisor: SupervisorLink) -> None:
        self.pid, self.peer_id, self.blocks = supervisor.pids[name], peer_id, blocks
        self.log_path = supervisor.log_path(name)
        self._name, self._supervisor = name, supervisor

    @property
    def alive(self) -> bool:
        """Whether the server still runs."""
        return not self._supervisor.is_gone(self._name)

    def kill(self) -> None:
        """End the server at once, without notice to the swarm; return when all of its processes are gone.

        The DHT lists the server for up to two more minutes. Clients notice its end when their requests fail. Killing a
        dead server does nothing.

        Raises:
            LocalSwarmError: The server is still there after 5 s.
        """
        self._supervisor.kill(self._name)

    def __repr__(self) -> str:
        state = "" if self.alive else ", dead"
        return f"LocalServer(blocks {span_text(self.blocks)}, pid {self.pid}{state})"


class LocalSwarm:
    r"""A Petals swarm in processes on this machine.

    The servers are petals' own. They run on the CPU, and only this machine can reach them. The constructor starts them,
    and returns when every block can be found and used. All processes and temporary files are removed by `close()`, the
    end of the `with` block, Ctrl-C, or any end of this process.

    Example:
        ```python
        from langchain_petals import Petals
        from langchain_petals.swarm import LocalSwarm

        with LocalSwarm() as swarm:
            llm = Petals(**swarm.connection, temperature=0)
            print(llm.invoke("Human: Hello!\nAI:"))
        ```

        ```text
         Hello! How can I help you?
        ```

    Args:
        model: A folder with `config.json` and weights, or a name on the Hugging Face hub (the key for a gated
            model is read from HUGGINGFACE_API_KEY, HF_TOKEN or HUGGINGFACEHUB_API_TOKEN). Defaults to the small
            model that this package contains.
        servers: Number of servers over which the model's blocks are spread as evenly as possible.
        replicas: Number of servers that hold each span of blocks; `servers * replicas` are started.
        dht_prefix: The name under which the blocks are announced; without "." and " ". Defaults to the last
            part of the model's name.
        initial_peers: Addresses of a swarm to join, which may hold other models; by default a new swarm is made.
        startup_timeout: Seconds that starting the swarm may take, and also the limit of each `add_server`.
        log_dir: Folder for the processes' logs, which is kept. By default a temporary one that `close` removes.
        hop_delay: Seconds by which each message to and from a server is delayed, as in a real network, to test a
            program's speed.
        python: The Python interpreter that runs the servers: one whose environment has petals or a fork of it. By
            default the one that the environment variable LANGCHAIN_PETALS_SERVER_PYTHON names; else the one that
            `langchain-petals server install` made; else this program's own, if petals is installed beside it.

    Attributes:
        model: The model's folder or hub name.
        dht_prefix: The name under which the blocks are announced.
        initial_peers: Addresses through which clients join the swarm.
        servers: All servers in the order of their start, dead ones included: first one copy of the model in the
            order of the blocks, then the replicas.

    Raises:
        InvalidRequestError: An argument cannot be used.
        ModelLoadError: The model's config could not be read.
        PetalsNotInstalledError: There is no such interpreter, or it cannot run petals; says what to do.
        LocalSwarmError: A process ended while starting, or was not ready in time. The error has the end of its log.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        servers: int = 2,
        replicas: int = 1,
        dht_prefix: str | None = None,
        initial_peers: Sequence[str] | None = None,
        startup_timeout: float = 180,
        log_dir: str | os.PathLike[str] | None = None,
        hop_delay: float = 0,
        python: str | os.PathLike[str] | None = None,
    ) -> None:
        for name, value in {"servers": servers, "replicas": replicas}.items():
            is_count = type(value) is int and value > 0  # True is not a count
            require(is_count, f"{name}={value!r} is not a number of servers; give 1 or more.")
        require(startup_timeout > 0, f"startup_timeout={startup_timeout!r} must be a number of seconds above 0.")
        require(0 <= hop_delay < math.inf, f"hop_delay={hop_delay!r} must be a number of seconds, 0 or more.")
        self.model = resolve_model(BUNDLED_MODEL if model is None else model)
        self.dht_prefix = default_prefix(self.model) if dht_prefix is None else check_prefix(dht_prefix)
        interpreter = servers_python(python)
        self._key = None if Path(self.model).is_dir() else hub.key_from_environment()
        blocks, context = blocks_and_context(self.model, self._key)
        require(
            servers <= blocks,
            f"servers={servers} is more than the model's {blocks} blocks; give 1 to {blocks}, and use replicas "
            "for more servers per block.",
        )
        self._blocks = blocks
        self._longest_session = min(context or _LONGEST_SESSION, _LONGEST_SESSION)
        self._startup_timeout, self._hop_delay = startup_timeout, hop_delay

        self.initial_peers: list[str] = check_initial_peers(list(initial_peers or ()))
        self._joined = bool(initial_peers)
        self.servers: list[LocalServer] = []
        self._numbers = count()
        self._supervisor = SupervisorLink(interpreter, None if log_dir is None else Path(log_dir).absolute())
        self._finalizer = weakref.finalize(self, self._supervisor.end)
        try:
            deadline = time.monotonic() + startup_timeout
            with progress("Starting a swarm") as show:
                if not self._joined:
                    self._start_bootstrap(deadline, show)
                borders = [blocks * part // servers for part in range(servers + 1)]
                spans = [range(start, end) for start, end in pairwise(borders)] * replicas
                self._start_servers(spans, deadline, show)
        except BaseException:
            self.close()
            raise

    @property
    def connection(self) -> dict[str, Any]:
        """Keyword arguments with which `Petals` (and `ChatPetals`) uses this swarm."""
        return {"model": self.model, "initial_peers": list(self.initial_peers), "dht_prefix": self.dht_prefix}

    def add_server(self, blocks: range | str | tuple[int, int]) -> LocalServer:
        """Start one more server, and return it when its blocks can be found and used.

        Args:
            blocks: The span to hold: `range(2, 4)`, `(2, 4)` or "2:4" for blocks 2 and 3.

        Raises:
            InvalidRequestError: The model has no such span.
            LocalSwarmError: The server ended while starting, was not ready in time, or the swarm is closed.
        """
        span = parse_span(blocks, self._blocks)
        if not self._finalizer.alive:
            msg = "This LocalSwarm is closed; make a new one."
            raise LocalSwarmError(msg)
        with progress("Starting a server") as show:
            return self._start_servers([span], time.monotonic() + self._startup_timeout, show)[0]

    def close(self) -> None:
        """Disconnect this process's clients, end all of the swarm's processes, and remove temporary files.

        Returns when the processes are gone. Closing twice does nothing.
        """
        if not self._finalizer.alive or not self._supervisor.is_ours:
            return
        try:
            registry = sys.modules.get("langchain_petals.engine.registry")
            if registry is not None and self.initial_peers:
                registry.engines.release(self.initial_peers, self.model if self._joined else None)
        finally:
            self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = ", ".join(map(repr, self.servers)) if self._finalizer.alive else "closed"
        return f"LocalSwarm({self.model!r}: {state})"

    def _start_bootstrap(self, deadline: float, show: Callable[[str], None]) -> None:
        self._supervisor.start(_BOOTSTRAP, task=_BOOTSTRAP)
        roles = {_BOOTSTRAP: "The bootstrap peer"}
        reports = self._supervisor.wait_ready(roles, deadline, self._startup_timeout, show)
        self.initial_peers = reports[_BOOTSTRAP]["initial_peers"]

    def _start_servers(self, spans: Sequence[range], deadline: float, show: Callable[[str], None]) -> list[LocalServer]:
        named = {f"server-{next(self._numbers)}": span for span in spans}
        for name, span in named.items():
            self._supervisor.start(
                name,
                task="server",
                converted_model_name_or_path=self.model,
                dht_prefix=self.dht_prefix,
                initial_peers=self.initial_peers,
                block_indices=span_text(span),
                inference_max_length=self._longest_session,
                attn_cache_tokens=self._longest_session * _FULL_SESSIONS,
                hop_delay=self._hop_delay,
                # sent over the socket, since other users can read command lines and environments
                token=self._key.get_secret_value() if self._key else None,
            )
        roles = {name: f"{name} (blocks {span_text(span)})" for name, span in named.items()}
        try:
            reports = self._supervisor.wait_ready(roles, deadline, self._startup_timeout, show)
        except BaseException:
            for name in roles:
                self._supervisor.kill(name)
            raise
        new = [LocalServer(name, span, reports[name]["peer_id"], self._supervisor) for name, span in named.items()]
        self.servers += new
        return new
