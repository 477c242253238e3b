"""The parts of hivemind that the client uses. hivemind's own log handler is off."""

from __future__ import annotations

import contextlib
import importlib
import importlib.resources
import warnings
from typing import TYPE_CHECKING, Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecations of what hivemind imports: nothing that a user could act on
    from hivemind.compression import base as _compression
    from hivemind.compression.serialization import deserialize_torch_tensor, serialize_torch_tensor
    from hivemind.dht import node as _node
    from hivemind.dht.node import DHTNode
    from hivemind.dht.storage import DictionaryDHTValue
    from hivemind.p2p import P2P, PeerID
    from hivemind.p2p.p2p_daemon_bindings.utils import (
        P2PDaemonError,
        raise_if_failed,
        read_pbmsg_safe,
        write_pbmsg,
    )
    from hivemind.proto import p2pd_pb2
    from hivemind.proto.dht_pb2 import PingRequest
    from hivemind.proto.p2pd_pb2 import RPCError
    from hivemind.proto.runtime_pb2 import CompressionType, ExpertInfo, ExpertRequest, ExpertResponse, ExpertUID
    from hivemind.utils.logging import use_hivemind_log_handler
    from hivemind.utils.multiaddr import Multiaddr
    from hivemind.utils.serializer import MSGPackSerializer
    from hivemind.utils.timed_storage import ValueWithExpiration

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
    "StrangersValues",
    "ValueWithExpiration",
    "deserialize_torch_tensor",
    "p2pd_pb2",
    "raise_if_failed",
    "read_pbmsg_safe",
    "serialize_torch_tensor",
    "write_pbmsg",
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


class StrangersValues(MSGPackSerializer):  # type: ignore[misc]
    """Decodes values from the DHT. What cannot be decoded becomes an empty dictionary, which is no announcement.

    hivemind 1.1.12 decodes in tasks that nobody waits for. After an error there, the search would never end.
    """

    @classmethod
    def loads(cls, buf: bytes) -> Any:
        """Return the value, or an empty dictionary."""
        try:
            return super().loads(buf)
        except Exception:  # noqa: BLE001 - msgpack raises whatever a stranger's bytes lead to
            return DictionaryDHTValue()

    @classmethod
    def _decode_ext_types(cls, type_code: int, data: bytes) -> Any:
        if type_code != cls._TUPLE_EXT_TYPE_CODE and type_code not in cls._ext_type_codes:
            msg = f"an unknown type of values: {type_code}"
            raise ValueError(msg)  # hivemind would print a warning
        return super()._decode_ext_types(type_code, data)


class _Search(_node._SearchState):  # type: ignore[misc] # noqa: SLF001 - hivemind has no option for it
    """A search in the DHT that ends whatever strangers answer."""

    def add_candidate(self, *arguments: Any, **options: Any) -> None:
        with contextlib.suppress(Exception):  # an answer that is none: the other peers' answers count
            super().add_candidate(*arguments, **options)

    def finish_search(self) -> None:
        try:
            super().finish_search()
        except Exception:  # noqa: BLE001 - as above
            if not self.future.done():
                self.future.set_result(None)


_node._SearchState = _Search  # noqa: SLF001 - as above
