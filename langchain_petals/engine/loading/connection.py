"""What identifies an engine: the model, its swarm, and how it is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import SecretStr


@dataclass(frozen=True)
class Connection:
    """The model, its swarm, and how the model is loaded. Equal connections share one engine.

    Attributes:
        model: Folder or hub name.
        initial_peers: Multiaddresses of peers to join through; empty for the public swarm.
        dht_prefix: The name under which servers announce the model's blocks in the DHT; None for petals' default.
        allowed_servers: The only peer ids to use; empty for any.
        blocked_servers: Peer ids not to use.
        active_adapter: LoRA adapter that the servers apply.
        torch_dtype: Type of embeddings and head: "auto" for the checkpoint's, or "float32", "bfloat16", ...
        device: Torch device of embeddings and head.
        revision: Commit, branch or tag on the hub.
        cache_dir: Folder for downloaded files.
        local_files_only: Whether to read only the cache, and not ask the hub.
        key: The hub's key, for gated and private models; not in the repr. Connections with different keys are equal:
            all objects of the process share a loaded model, like the cache on the disk.
    """

    model: str
    initial_peers: tuple[str, ...] = ()
    dht_prefix: str | None = None
    allowed_servers: tuple[str, ...] = ()
    blocked_servers: tuple[str, ...] = ()
    active_adapter: str | None = None
    torch_dtype: str = "auto"
    device: str = "cpu"
    revision: str | None = None
    cache_dir: str | None = None
    local_files_only: bool = False
    key: SecretStr | None = field(default=None, repr=False, compare=False)
