"""What the servers themselves say about their attention caches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_petals.engine.petals_compat import load_petals

if TYPE_CHECKING:
    from langchain_petals import Petals
    from langchain_petals.swarm import LocalSwarm


def free_tokens(llm: Petals, swarm: LocalSwarm) -> list[int]:
    """Return for how many tokens each living server of a swarm has free attention cache."""
    api = load_petals()
    blocks = llm._get_client().model.transformer.h
    stubs = {
        server: api.handler.get_stub(blocks.sequence_manager.state.p2p, api.hivemind.PeerID.from_base58(server.peer_id))
        for server in swarm.servers
        if server.alive
    }
    return [_free(api, stub, f"{swarm.dht_prefix}.{server.blocks.start}") for server, stub in stubs.items()]


def _free(api: Any, stub: Any, block: str) -> int:
    answer = api.worker.run_coroutine(stub.rpc_info(api.runtime_pb2.ExpertUID(uid=block), timeout=10))
    info = api.hivemind.MSGPackSerializer.loads(answer.serialized_info)
    return int(info["cache_tokens_available"])
