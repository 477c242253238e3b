"""What servers announce in the swarm's DHT: values from strangers, checked before anything relies on them.

Under the key `{prefix}.{block}`, each server of that block stores `(state, throughput, details)` by its peer id. An
announcement with a value of a wrong type or out of range is left out as a whole. Fields that no chain depends on are
for people to read: what is wrong there counts as missing. How much is kept is bounded, too: for each server, and for
each block.

Under the key `_petals.models`, servers store `{"num_blocks": ..., "repository": ...}` by the prefix of their model.
"""

from __future__ import annotations

import logging
import random
import re
import unicodedata
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from langchain_petals.engine.network.server import AnnouncedModel, DescribedServer, Server

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

logger = logging.getLogger(__name__)

_OFFLINE, _ONLINE = 0, 2  # 1 is joining
_ROLLS_BACK = (2, 3)  # the first version of petals whose servers look at start_from_position

_MOST_BLOCKS = 10_000
_MOST_PER_BLOCK = 4_000  # announcements; the largest public swarm had some hundred servers
_MOST_SERVERS = 20_000
_MOST_NEIGHBOURS = 200  # petals' servers ping at most 10
_MOST_ADAPTERS = 200
_LONGEST_NAME = 500
_MOST_MODELS = 1_000
_LEAST_SPEED = 1e-3  # blocks in a second; costs of slower servers would not be finite

_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_PEER_ID = re.compile(r"(12D3KooW|Qm)[1-9A-HJ-NP-Za-km-z]{44}")

_Ping = Annotated[float, Field(ge=0, allow_inf_nan=True)]  # infinite where a server got no answer; never NaN
_Speed = Annotated[float, Field(ge=0, le=1e9)]
_Name = Annotated[str, Field(max_length=_LONGEST_NAME)]


class _Announcement(BaseModel):
    """The fields of an announcement that this client uses."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)

    peer_id: str
    state: Annotated[int, Field(ge=0, le=_ONLINE)]
    throughput: Annotated[float, Field(ge=0)]
    start_block: Annotated[int, Field(ge=0, lt=_MOST_BLOCKS)]
    end_block: Annotated[int, Field(gt=0, le=_MOST_BLOCKS)]
    version: Annotated[str, Field(max_length=100)] | None = None
    inference_rps: _Speed | None = None
    adapters: Annotated[tuple[_Name, ...], Field(max_length=_MOST_ADAPTERS)] = ()
    cache_tokens_left: Annotated[int, Field(ge=0, le=2**63)] | None = None
    next_pings: Annotated[dict[_Name, _Ping], Field(max_length=_MOST_NEIGHBOURS)] = Field(default_factory=dict)
    # what is wrong in these is no reason to do without the server
    torch_dtype: Any = None
    public_name: Any = None
    quant_type: Any = None
    using_relay: Any = None

    def server(self) -> Server:
        """Return the server that announces this."""
        speed = {} if self.inference_rps is None else {"blocks_per_second": max(self.inference_rps, _LEAST_SPEED)}
        return Server(
            self.peer_id,
            self.start_block,
            self.end_block,
            can_roll_back=_version(self.version) >= _ROLLS_BACK,
            adapters=frozenset(self.adapters),
            cache_tokens_left=self.cache_tokens_left,
            next_pings=self.next_pings,
            dtype=_TYPES.get(self.torch_dtype) if isinstance(self.torch_dtype, str) else None,
            **speed,
        )

    def described(self) -> DescribedServer:
        """Return the server with what it says of itself for people to read."""
        return DescribedServer(
            self.server(),
            is_joining=self.state != _ONLINE,
            has_speed=self.inference_rps is not None,
            throughput=self.throughput,
            version=_shown(self.version),
            name=_shown(self.public_name),
            quantization=_shown(self.quant_type),
            uses_relay=self.using_relay if isinstance(self.using_relay, bool) else None,
        )


def online_servers(
    records: Iterable[tuple[int, Any, Any, float]], blocks: int, known: Collection[str] = frozenset()
) -> list[Server]:
    """Return the servers that are online, each as its latest announcement describes it.

    Args:
        records: Block, peer id, value and expiration time of each announcement, in the order of the blocks, as the DHT
            holds them.
        blocks: Number of blocks of the model; a span that goes beyond them is invalid.
        known: Peer ids of servers that were online before. Where a block has too many announcements to look at, theirs
            come first, and of the others a random sample.
    """
    found = [each.server() for each in _latest(records, blocks, known) if each.state == _ONLINE]
    if len(found) > _MOST_SERVERS:
        found.sort(key=lambda server: (server.peer_id not in known, random.random()))  # noqa: S311 - no secret
    return found[:_MOST_SERVERS]


def described_servers(records: Iterable[tuple[int, Any, Any, float]], blocks: int) -> list[DescribedServer]:
    """Return the servers that are online or joining, with what they say of themselves; see `online_servers`."""
    found = [each.described() for each in _latest(records, blocks, ()) if each.state != _OFFLINE]
    return found[:_MOST_SERVERS]


def announced_models(records: Iterable[tuple[int, Any, Any, float]]) -> list[AnnouncedModel]:
    """Return the models that servers announce, in the order of their prefixes; what is invalid is left out.

    Args:
        records: What the DHT holds under `_petals.models`: the sub-keys are prefixes.
    """
    found: dict[str, AnnouncedModel] = {}
    for _, prefix, value, _ in records:
        if not isinstance(value, dict) or not isinstance(prefix, str) or _shown(prefix) != prefix:
            continue
        if any(each in prefix for each in ". "):
            continue
        blocks, repository = value.get("num_blocks"), value.get("repository")
        if isinstance(blocks, int) and not isinstance(blocks, bool) and 0 < blocks <= _MOST_BLOCKS:
            found[prefix] = AnnouncedModel(prefix, blocks, _shown(repository))
    return [found[prefix] for prefix in sorted(found)[:_MOST_MODELS]]


def _latest(
    records: Iterable[tuple[int, Any, Any, float]], blocks: int, known: Collection[str]
) -> Iterable[_Announcement]:
    """Return the latest announcement of each server that has a valid one."""
    latest: dict[str, tuple[float, _Announcement]] = {}
    for block, peer_id, value, expires in _bounded(records, known):
        before = latest.get(peer_id)
        if before is not None and expires <= before[0]:
            continue  # a server announces the same under each of its blocks
        try:
            announced = _read(peer_id, value)
            if not announced.start_block <= block < announced.end_block <= blocks:
                msg = f"a span of {announced.start_block}:{announced.end_block}"
                raise ValueError(msg)  # noqa: TRY301 - as invalid as what pydantic refuses
        except (ValidationError, ValueError, TypeError) as error:
            logger.debug("An announcement under block %d is invalid: %s", block, str(error)[:_LONGEST_NAME])
            continue
        latest[peer_id] = expires, announced
    return (announced for _, announced in latest.values())


def _bounded(
    records: Iterable[tuple[int, Any, Any, float]], known: Collection[str]
) -> Iterator[tuple[int, str, Any, float]]:
    """Yield the announcements that have a peer id: for each block, as many as a swarm may have."""
    for _, group in groupby(records, itemgetter(0)):
        named = [record for record in group if isinstance(record[1], str) and _PEER_ID.fullmatch(record[1])]
        if len(named) > _MOST_PER_BLOCK:
            random.shuffle(named)
            named.sort(key=lambda record: record[1] not in known)
            del named[_MOST_PER_BLOCK:]
        yield from named


def _read(peer_id: Any, value: Any) -> _Announcement:
    """Return a checked announcement.

    Raises:
        ValidationError: A field is missing, or of a wrong type, or out of range.
        TypeError, ValueError: The value has another shape.
    """
    if not isinstance(value, tuple | list):
        msg = "it is no list"
        raise TypeError(msg)
    state, throughput, details = value[:3]
    if not isinstance(details, dict) or not all(isinstance(key, str) for key in details):
        msg = "the details are no dictionary with names"
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


def _shown(text: Any) -> str | None:
    """Return a stranger's text on one line, without what a terminal would obey; None if there is nothing to show."""
    if not isinstance(text, str):
        return None
    kept = "".join(each for each in text[:_LONGEST_NAME] if each.isprintable() and not unicodedata.combining(each))
    return kept.strip() or None
