"""`python petals_routes.py PROGRAM FILE...`: let petals' sequence manager read announcements and choose a chain.

Runs in the servers' interpreter, where petals is; PROGRAM is the folder of the servers' program, which makes petals
importable. Prints a line of JSON for each file.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, sys.argv[1])
importlib.import_module("petals_servers.shims").import_petals()

from hivemind import PeerID  # noqa: E402 - hivemind has it from now on
from petals.client.routing.sequence_info import RemoteSequenceInfo  # noqa: E402
from petals.client.routing.sequence_manager import RemoteSequenceManager, SequenceManagerState  # noqa: E402
from petals.data_structures import RemoteModuleInfo, ServerInfo  # noqa: E402


def main() -> None:
    for path in sys.argv[2:]:
        question = json.loads(Path(path).read_text(encoding="utf-8"))
        uids = tuple(f"model.{block}" for block in range(question["blocks"]))
        started = time.perf_counter()
        information = _read(uids, question["records"])
        reading = time.perf_counter() - started
        manager = _manager(information, question["round_trips"])
        started = time.perf_counter()
        chain = manager._make_sequence_with_min_latency(0, len(uids), cache_tokens_needed=question["tokens"])  # noqa: SLF001
        choosing = time.perf_counter() - started
        spans = [(span.peer_id.to_base58(), span.start, span.end) for span in chain]
        print(json.dumps({"reading": reading, "choosing": choosing, "chain": spans}))


def _read(uids: tuple[str, ...], records: list[Any]) -> RemoteSequenceInfo:
    """Do what `petals.utils.dht.get_remote_module_infos` and the sequence manager do with the DHT's answer."""
    modules = [RemoteModuleInfo(uid, {}) for uid in uids]
    for block, name, value, _ in records:
        modules[block].servers[PeerID.from_base58(name)] = ServerInfo.from_tuple(value)
    information = RemoteSequenceInfo.make_empty(uids)
    information.update_(modules)
    return information


def _manager(information: RemoteSequenceInfo, round_trips: dict[str, float]) -> RemoteSequenceManager:
    """Return a sequence manager without a DHT, whose constructor would start one."""
    manager = RemoteSequenceManager.__new__(RemoteSequenceManager)
    manager.state = SequenceManagerState(sequence_info=information)
    known = {PeerID.from_base58(name): seconds for name, seconds in round_trips.items()}
    manager.ping_aggregator = SimpleNamespace(to_dict=lambda: known)
    manager.lock_changes = nullcontext()
    manager._thread = SimpleNamespace(shutdown=lambda: None)  # noqa: SLF001 - it has no update thread
    return manager


if __name__ == "__main__":
    main()
