"""Routes: chains of servers that together hold all blocks of a model."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from langchain_petals.errors import BlocksMissingError, SwarmUnreachableError
from langchain_petals.petals_compat import load_petals

if TYPE_CHECKING:
    from langchain_petals.engine.causal_model import DistributedModel

logger = logging.getLogger(__name__)


class Routes:
    """The servers and their blocks, as petals' `RemoteSequenceManager` knows them. Each wait has a time limit."""

    def __init__(self, model: DistributedModel) -> None:
        self.manager: Any = model.transformer.h.sequence_manager

    @property
    def can_roll_back(self) -> bool:
        """Whether servers can forget the last tokens of a session. Servers of petals 2.3 can.

        All peers of a swarm have one version of petals; a server of petals 2.2 would ignore the request.
        """
        return bool(load_petals().can_roll_back)

    def refresh(self, timeout: float) -> None:
        """Ask the DHT for the servers again; raise SwarmUnreachableError if it does not answer in `timeout` seconds."""
        self.manager.ready.clear()
        self._wait(timeout)

    def _wait(self, timeout: float) -> None:
        manager = self.manager
        # only `make_sequence` and `rpc_info` start this thread, and both may wait for ever
        with manager._thread_start_lock:  # noqa: SLF001 - petals starts it at the first request only
            if not manager.is_alive():
                manager._thread.start()  # noqa: SLF001 - as above
        if not manager.ready.is_set():
            manager.update(wait=False)
            if not manager.ready.wait(timeout):
                msg = (
                    f"The swarm's DHT did not answer within {timeout:g} s. Check that the initial peers are still "
                    "running and reachable."
                )
                raise SwarmUnreachableError(msg)

    def choose(self, max_length: int, timeout: float) -> list[Any]:
        """Return the fastest chain over all blocks whose servers should have `max_length` tokens of cache free.

        It consists of `RemoteSpanInfo` objects with `peer_id`, `start` and `end`, in the order of the blocks.

        Raises:
            BlocksMissingError: Some blocks have no server.
            SwarmUnreachableError: The DHT did not answer within `timeout` seconds.
        """
        self._wait(timeout)
        manager = self.manager
        with manager.lock_changes:
            missing = [i for i, spans in enumerate(manager.state.sequence_info.spans_containing_block) if not spans]
        if missing:
            raise BlocksMissingError(missing, manager.config.dht_prefix)
        # the public `make_sequence` may wait for ever for an update
        spans: list[Any] = manager._make_sequence_with_min_latency(  # noqa: SLF001 - see above
            0, len(manager), cache_tokens_needed=max_length
        )
        logger.debug("Route: %s", " => ".join(f"{s.start}:{s.end} via {s.peer_id}" for s in spans))
        return spans

    def ban(self, peer_id: Any) -> None:
        """Exclude a server from the routes for a while, from the next `refresh` on."""
        self.manager.on_request_failure(peer_id)

    def note_full(self, peer_id: Any) -> None:
        """Note that a server's attention cache is full: others are preferred until its next announcement in the DHT."""
        manager = self.manager
        with manager.lock_changes:
            for spans in manager.state.sequence_info.spans_containing_block:
                for span in spans:
                    if span.peer_id == peer_id:
                        span.server_info.cache_tokens_left = 0

    def report_success(self, peer_id: Any) -> None:
        """Note that a server has answered; this resets its count of failures."""
        self.manager.on_request_success(peer_id)

    def free_cache_tokens(self, peer_id: str, block: int, timeout: float = 10) -> int:
        """Ask a block's server how much attention cache is free; the DHT's number may be two minutes old.

        The result counts tokens of a single block: a session of n tokens on three blocks takes 3 * n. `peer_id` is in
        base 58.
        """
        api, manager = load_petals(), self.manager
        stub = api.handler.get_stub(manager.state.p2p, api.hivemind.PeerID.from_base58(peer_id))
        question = api.runtime_pb2.ExpertUID(uid=manager.block_uids[block])
        answer = api.worker.run_coroutine(stub.rpc_info(question, timeout=timeout))
        return int(api.hivemind.MSGPackSerializer.loads(answer.serialized_info)["cache_tokens_available"])
