"""What a survey of a swarm means for a user: whether the model can be used, how fast at best, and what to do if not."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_petals.engine.network import Pace, Survey

_MOST_NAMED = 6  # gaps, models
_LITTLE_ROOM = 128  # tokens


@dataclass(frozen=True)
class View:
    """A model on a swarm, as `langchain-petals status` shows it.

    Attributes:
        model: Folder or hub name.
        initial_peers: The swarm's peers; empty for the public one.
        survey: Its servers.
        own_prefix: The prefix that servers announce it under if nobody says otherwise.
        others: Prefixes of the models that the swarm announces, if it has no server of this one.
    """

    model: str
    initial_peers: Sequence[str]
    survey: Survey
    own_prefix: str
    others: Sequence[str] = ()


@dataclass(frozen=True)
class Verdict:
    """What to tell.

    Attributes:
        is_usable: Whether the model can be used.
        text: Sentences.
        command: What mends it; None if nothing is broken, or no command helps.
    """

    is_usable: bool
    text: str
    command: str | None = None


def ranges_of(blocks: Sequence[int]) -> list[range]:
    """Return the ranges that rising block numbers make."""
    groups = groupby(enumerate(blocks), lambda pair: pair[1] - pair[0])
    spans = [[block for _, block in group] for _, group in groups]
    return [range(span[0], span[-1] + 1) for span in spans]


def span_text(span: range) -> str:
    """Return a span as petals and this package write it: "0:2" is blocks 0 and 1."""
    return f"{span.start}:{span.stop}"


def gaps_text(blocks: Sequence[int]) -> str:
    """Return the spans of rising block numbers in words; of many, the first ones."""
    gaps = ranges_of(blocks)
    return ", ".join(map(span_text, gaps[:_MOST_NAMED])) + (", ..." if len(gaps) > _MOST_NAMED else "")


def verdict_of(view: View) -> Verdict:
    """Return what a view of a model means."""
    survey = view.survey
    if not survey.servers:
        return _nobody(view)
    missing = survey.missing
    if not missing:
        pace = survey.pace
        text = f"All {survey.blocks} blocks are served." + ("" if pace is None else _pace_text(pace))
        return Verdict(is_usable=True, text=text)
    text = f"No server that can be used holds {_count(len(missing), 'block')}: {gaps_text(missing)}."
    lost = {*missing}
    holders = [each for each in survey.servers if not lost.isdisjoint(range(each.server.start, each.server.end))]
    joining = sum(each.is_joining for each in holders)
    silent = sum(not survey.answers(each) for each in holders if not each.is_joining)
    if joining:
        text += f" {_count(joining, 'server')} for them {_be(joining)} joining; look again in a minute."
    if silent:
        text += (
            f" {_count(silent, 'server')} that {_be(silent)} announced for them gave no answer: ended or cut off. "
            "A swarm forgets a server that has ended within 2 minutes."
        )
    if joining and not silent:
        return Verdict(is_usable=False, text=text)
    first, *others = ranges_of(missing)
    text += " " if view.initial_peers else " Wait until somebody serves them, or serve them yourself. "
    text += f"Start servers for them; for {span_text(first)}:" if others else "Start a server for them:"
    return Verdict(is_usable=False, text=text, command=_server_command(view, first))


def _nobody(view: View) -> Verdict:
    survey = view.survey
    swarm = "This swarm" if view.initial_peers else "The public swarm"
    text = f"{swarm} has no server for {survey.prefix!r}."
    if view.others:
        names = ", ".join(view.others[:_MOST_NAMED]) + (", ..." if len(view.others) > _MOST_NAMED else "")
        text += f" It announces {names}; if one of these is the model, name it with --dht-prefix."
    text += " Start a server:" if view.initial_peers else " Choose another model, or serve it yourself:"
    return Verdict(is_usable=False, text=text, command=_server_command(view, None))


def _server_command(view: View, gap: range | None) -> str:
    words = ["langchain-petals", "server", "run", view.model]
    if gap is not None:
        words += ["--blocks", span_text(gap)]
    if view.survey.prefix != view.own_prefix:
        words += ["--dht-prefix", view.survey.prefix]
    if view.initial_peers:
        words += ["--initial-peers", view.initial_peers[0]]
    return shlex.join(words)


def _pace_text(pace: Pace) -> str:
    works = f" and {_milliseconds(pace.computing)} of work, as they announce" if pace.computing else ""
    text = (
        f" At best, one answer gets about {_rate(pace.tokens_per_second)}: a token takes "
        f"{_milliseconds(pace.on_the_way)} on the way to {_count(len(pace.spans), 'server')} and back{works}."
    )
    if pace.silent == 1:
        text += " One server announces no speed; its work is not counted."
    elif pace.silent:
        text += f" {pace.silent} servers announce no speed; their work is not counted."
    rooms = [
        span.server.cache_tokens_left / (2 * (span.server.end - span.server.start))
        for span in pace.spans
        if span.server.cache_tokens_left is not None
    ]
    if rooms and min(rooms) < _LITTLE_ROOM:
        text += f" Attention caches are nearly full, with room for {int(min(rooms))} tokens: answers may have to wait."
    return text


def as_json(view: View) -> dict[str, Any]:
    """Return a view for programs: numbers in seconds, tokens and blocks; null for what is not known."""
    survey, verdict = view.survey, verdict_of(view)
    pace = survey.pace if verdict.is_usable else None
    return {
        "model": view.model,
        "dht_prefix": survey.prefix,
        "initial_peers": list(view.initial_peers),
        "blocks": survey.blocks,
        "usable": verdict.is_usable,
        "missing": survey.missing,
        "tokens_per_second": None if pace is None else round(pace.tokens_per_second, 3),
        "advice": verdict.text,
        "command": verdict.command,
        "servers": [
            {
                "peer_id": each.server.peer_id,
                "name": each.name,
                "state": "joining" if each.is_joining else "online" if survey.answers(each) else "no answer",
                "blocks": [each.server.start, each.server.end],
                "throughput": each.throughput,
                "blocks_per_second": each.server.blocks_per_second if each.has_speed else None,
                "free_cache_tokens": free_cache(each.server.cache_tokens_left, each.server.end - each.server.start),
                "version": each.version,
                "round_trip": _finite(survey.round_trips.get(each.server.peer_id)),
                "relay": each.uses_relay,
                "quantization": each.quantization,
                "adapters": sorted(each.server.adapters),
            }
            for each in survey.servers
        ],
    }


def free_cache(announced: int | None, blocks: int) -> int | None:
    """Return for how many tokens of one session a server has room: it counts keys and values of each block."""
    return None if announced is None else announced // (2 * blocks)


def _finite(seconds: float | None) -> float | None:
    return None if seconds is None or not math.isfinite(seconds) else round(seconds, 4)


def _rate(tokens_per_second: float) -> str:
    return f"{tokens_per_second:.1f} tokens/s" if tokens_per_second < 10 else f"{tokens_per_second:.0f} tokens/s"  # noqa: PLR2004


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _be(number: int) -> str:
    return "is" if number == 1 else "are"
