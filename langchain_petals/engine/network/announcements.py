"""What servers announce in the swarm's DHT: values from strangers, checked before anything relies on them.

Under the key `{prefix}.{block}`, each server of that block stores `(state, throughput, details)` by its peer id. An
announcement with a value of a wrong type or out of range is left out as a whole. Fields that this client does not use
are not looked at.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from langchain_petals.engine.network.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterable

logger = logging.getLogger(__name__)

_ONLINE = 2  # 0 is offline, 1 is joining
_ROLLS_BACK = (2, 3)  # the first version of petals whose servers look at start_from_position

_MOST_BLOCKS = 10_000
_MOST_NEIGHBOURS = _MOST_ADAPTERS = 1_000
_LONGEST_NAME = 500

_Seconds = Annotated[float, Field(ge=0)]
_Name = Annotated[str, Field(max_length=_LONGEST_NAME)]
_PeerId = Annotated[str, StringConstraints(pattern=r"^(12D3KooW[1-9A-HJ-NP-Za-km-z]{44}|Qm[1-9A-HJ-NP-Za-km-z]{44})$")]


class _Announcement(BaseModel):
    """The fields of an announcement that this client uses."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)

    peer_id: _PeerId
    state: Annotated[int, Field(ge=0, le=_ONLINE)]
    throughput: Annotated[float, Field(ge=0)]
    start_block: Annotated[int, Field(ge=0, lt=_MOST_BLOCKS)]
    end_block: Annotated[int, Field(gt=0, le=_MOST_BLOCKS)]
    version: Annotated[str, Field(max_length=100)] | None = None
    inference_rps: Annotated[float, Field(ge=0)] | None = None
    adapters: Annotated[tuple[_Name, ...], Field(max_length=_MOST_ADAPTERS)] = ()
    cache_tokens_left: Annotated[int, Field(ge=0)] | None = None
    next_pings: Annotated[dict[_Name, _Seconds], Field(max_length=_MOST_NEIGHBOURS)] = Field(default_factory=dict)

    def server(self) -> Server:
        """Return the server that announces this."""
        speed = {"blocks_per_second": self.inference_rps} if self.inference_rps else {}
        return Server(
            self.peer_id,
            self.start_block,
            self.end_block,
            can_roll_back=_version(self.version) >= _ROLLS_BACK,
            adapters=frozenset(self.adapters),
            cache_tokens_left=self.cache_tokens_left,
            next_pings=self.next_pings,
            **speed,
        )


def online_servers(records: Iterable[tuple[int, Any, Any, float]], blocks: int) -> list[Server]:
    """Return the servers that are online, each as its latest announcement describes it.

    Args:
        records: Block, peer id, value and expiration time of each announcement, as the DHT holds them.
        blocks: Number of blocks of the model; a span that goes beyond them is invalid.
    """
    latest: dict[str, tuple[float, Server | None]] = {}
    for block, peer_id, value, expires in records:
        known = latest.get(peer_id) if isinstance(peer_id, str) else None
        if known is not None and expires <= known[0]:
            continue  # a server announces the same under each of its blocks
        try:
            announced = _read(peer_id, value)
            if not announced.start_block <= block < announced.end_block <= blocks:
                msg = f"a span of {announced.start_block}:{announced.end_block}"
                raise ValueError(msg)  # noqa: TRY301 - as invalid as what pydantic refuses
        except (ValidationError, ValueError, TypeError) as error:
            logger.debug("An announcement under block %d is invalid: %s", block, str(error)[:_LONGEST_NAME])
            continue
        latest[announced.peer_id] = expires, announced.server() if announced.state == _ONLINE else None
    return [server for _, server in latest.values() if server is not None]


def _read(peer_id: Any, value: Any) -> _Announcement:
    """Return a checked announcement.

    Raises:
        ValidationError: A field is missing, or of a wrong type, or out of range.
        TypeError, ValueError: The value has another shape.
    """
    state, throughput, details = value[:3]
    if not isinstance(details, dict):
        msg = "the details are no dictionary"
        raise TypeError(msg)
    if isinstance(details.get("adapters"), list):
        details = {**details, "adapters": tuple(details["adapters"])}
    if details.get("next_pings") is None:
        details = {key: each for key, each in details.items() if key != "next_pings"}
    return _Announcement(**{**details, "peer_id": peer_id, "state": state, "throughput": throughput})


def _version(text: str | None) -> tuple[int, ...]:
    """Return the numbers that a version begins with: (2, 3) for "2.3.0.dev2"; nothing for what is no version."""
    numbers = []
    for part in (text or "").split(".")[:2]:
        if not part.isascii() or not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)
