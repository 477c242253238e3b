"""The parts of hivemind that the client uses. hivemind's own log handler is off."""

from __future__ import annotations

import importlib
import importlib.resources
import warnings
from typing import TYPE_CHECKING, Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecations of what hivemind imports: nothing that a user could act on
    from hivemind.compression import base as _compression
    from hivemind.compression.serialization import deserialize_torch_tensor, serialize_torch_tensor
    from hivemind.dht.node import DHTNode
    from hivemind.p2p import P2P, PeerID
    from hivemind.p2p.p2p_daemon_bindings.utils import P2PDaemonError
    from hivemind.proto.dht_pb2 import PingRequest
    from hivemind.proto.p2pd_pb2 import RPCError
    from hivemind.proto.runtime_pb2 import CompressionType, ExpertInfo, ExpertRequest, ExpertResponse, ExpertUID
    from hivemind.utils.logging import use_hivemind_log_handler
    from hivemind.utils.multiaddr import Multiaddr
    from hivemind.utils.serializer import MSGPackSerializer

if TYPE_CHECKING:
    from types import ModuleType

__all__ = [
    "P2P",
    "P2PD",
    "CompressionType",
    "DHTNode",
    "ExpertInfo",
    "ExpertRequest",
    "ExpertResponse",
    "ExpertUID",
    "MSGPackSerializer",
    "Multiaddr",
    "P2PDaemonError",
    "PeerID",
    "PingRequest",
    "RPCError",
    "deserialize_torch_tensor",
    "serialize_torch_tensor",
]

P2PD = str(importlib.resources.files("hivemind.hivemind_cli") / "p2pd")
"""Path of the program that comes with hivemind."""

use_hivemind_log_handler("nowhere")  # the user's program decides about its log
_compression.USE_LEGACY_BFLOAT16 = False  # as petals does: else bfloat16 tensors travel in twice the bytes


def _cancel_if_running(task: Any) -> None:
    if task is not None and not task.done() and not task.get_loop().is_closed():
        task.get_loop().call_soon_threadsafe(task.cancel)


# `P2P.__del__` and its companions (hivemind 1.1.12) cancel their tasks through the event loop of whatever thread
# collects them, which raises where there is none, and cancels from the wrong thread where there is one.
for _name in ("p2p_daemon", "p2p_daemon_bindings.control"):
    _module: ModuleType = importlib.import_module(f"hivemind.p2p.{_name}")
    _module.cancel_task_if_running = _cancel_if_running  # type: ignore[attr-defined]
