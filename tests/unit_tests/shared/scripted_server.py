"""An interpreter that tells what a server tells, and serves nothing."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    Event = dict[str, Any]

PEER = "12D3KooWGAiDtiq61JbHg1QCnmvVYZM1KpAeqRgRkjVTE5RLpwip"
STATUS: Event = {
    "blocks": [0, 2],
    "throughput": 1234.5,
    "cache_free": 1.0,
    "servers": 1,
    "missing": [2, 3],
    "peers": 0,
}
STARTED: list[Event] = [
    {"event": "imported", "petals": "2.2.0.post1"},
    {
        "event": "joined",
        "peer_id": PEER,
        "addresses": [f"/ip4/127.0.0.1/tcp/31337/p2p/{PEER}", f"/ip4/192.168.1.20/tcp/31337/p2p/{PEER}"],
        "dht_prefix": "tiny",
        "total": 4,
    },
    {
        "event": "loading",
        "blocks": [0, 2],
        "device": "cpu",
        "torch_dtype": "float32",
        "quant_type": "none",
        "throughput": 1234.5,
        "reachable": True,
    },
    {"event": "loaded", "block": 0},
    {"event": "loaded", "block": 1},
    {"event": "ready", **STATUS},
]

_SCRIPT = """#!{python}
import json, os, signal, sys

folder = {folder!r}
order = json.loads(sys.stdin.readline())
with open(folder + "/order", "w") as file:
    json.dump({{"order": order, "arguments": sys.argv, "variables": dict(os.environ)}}, file)
signal.signal(signal.SIGTERM, lambda *_: (open(folder + "/ended", "w").close(), sys.exit(0)))
print({log!r}, end="", file=sys.stderr, flush=True)
for event in json.loads({events!r}):
    print(json.dumps(event), flush=True)
{then}
"""


class ScriptedServer:
    """An interpreter of servers in a folder.

    Args:
        folder: Where it is made.
        events: What it tells.
        log: What it writes to its log before.
        then: What it does then: by default, it waits to be ended.
    """

    def __init__(
        self, folder: Path, events: list[Event] = STARTED, *, log: str = "", then: str = "signal.pause()"
    ) -> None:
        self.python = folder / "python"
        self._folder = folder
        script = _SCRIPT.format(
            python=sys.executable, folder=str(folder), log=log, events=json.dumps(events), then=then
        )
        self.python.write_text(script)
        self.python.chmod(0o755)

    @property
    def told(self) -> dict[str, Any]:
        """What it was started with: `order`, `arguments` of its command line, and environment `variables`."""
        read: dict[str, Any] = json.loads((self._folder / "order").read_text())
        return read

    @property
    def was_ended(self) -> bool:
        """Whether it was told to end."""
        return (self._folder / "ended").exists()
