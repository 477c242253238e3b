"""Servers that lie: others give the same answer, and without others the documented error is raised."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hostile_server import HostileServer, Raw
from server_cache import routes_of
from server_lies import CLAIMS, FULL, NO_ANSWERS, SILENCE, short_of_room

from langchain_petals import Petals
from langchain_petals.errors import PromptTooLongError, SpanFailedError
from langchain_petals.swarm import LocalSwarm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROMPT = "Human: Count from 1 to 20.\nAI:"
LONG_PROMPT = 10 * PROMPT
LIES = NO_ANSWERS | CLAIMS
MEGABYTE = 2**20


@pytest.fixture(scope="module")
def honest() -> Iterator[LocalSwarm]:
    """Return a server that holds all blocks."""
    with LocalSwarm(servers=1) as swarm:
        yield swarm


@pytest.fixture(scope="module")
def hostile_one(honest: LocalSwarm) -> Iterator[HostileServer]:
    with HostileServer(honest) as server:
        yield server


@pytest.fixture
def hostile(hostile_one: HostileServer) -> Iterator[HostileServer]:
    """Return a server that does not lie yet."""
    hostile_one.announce()  # the last announcement expires after two minutes, which a busy machine may need for a test
    hostile_one.lie, hostile_one.truths, hostile_one.lies = None, 0, 0
    yield hostile_one
    hostile_one.lie = None


@pytest.fixture
def model(honest: LocalSwarm, hostile: HostileServer) -> Callable[..., Petals]:
    """Return a function that makes a model whose fastest server is the hostile one."""

    def make(*, alone: bool = False, **options: Any) -> Petals:
        if alone:
            options["allowed_servers"] = [hostile.peer_id]
        # without drafts, it is known which step is which
        usual = {"temperature": 0, "max_new_tokens": 12, "session_cache": 0, "prefill_chunk_tokens": 8}
        usual |= {"speculation": False}
        llm = Petals(**honest.connection, **(usual | options))
        routes = routes_of(llm)  # of all models like this one
        routes.report_success(hostile.peer_id)
        routes._limits.clear()
        routes.refresh(10)
        [span] = routes.choose(100, 100, 10)[0]
        assert span.server.peer_id == hostile.peer_id
        return llm

    return make


@pytest.fixture
def calm(hostile: HostileServer, model: Callable[..., Petals]) -> str:
    """Return the answer that the servers give when none lies."""
    return model().invoke(PROMPT)


@pytest.mark.parametrize("truths", [0, 1, 9], ids=["first step", "prefill", "mid-answer"])
@pytest.mark.parametrize("lie", LIES)
def test_an_answer_stays_the_same_when_a_server_lies(
    hostile: HostileServer,
    model: Callable[..., Petals],
    calm: str,
    caplog: pytest.LogCaptureFixture,
    *,
    lie: str,
    truths: int,
) -> None:
    llm = model()
    hostile.lie, hostile.truths = LIES[lie], truths
    assert llm.invoke(PROMPT) == calm
    assert hostile.lies == 1
    [warning] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert f"on {hostile.peer_id} failed, going around it: " in warning.message
    assert "\n" not in warning.message


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_without_a_way_around_is_an_error(
    hostile: HostileServer, model: Callable[..., Petals], caplog: pytest.LogCaptureFixture, lie: str
) -> None:
    llm = model(alone=True, max_retries=1)
    hostile.lie = LIES[lie]
    with pytest.raises(SpanFailedError, match=r"^Blocks 0:4 failed 2 time\(s\)"):
        llm.invoke(PROMPT)
    assert hostile.lies == 2
    [warning] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert f"on {hostile.peer_id} failed, and there is no way around it: " in warning.message


@pytest.mark.parametrize("truths", [0, 1, 9], ids=["first step", "prefill", "mid-answer"])
def test_a_silent_server_costs_the_time_of_a_step(
    hostile: HostileServer, model: Callable[..., Petals], calm: str, truths: int
) -> None:
    llm = model(step_timeout=2)
    hostile.lie, hostile.truths = SILENCE["silence"], truths
    assert llm.invoke(PROMPT) == calm


def test_silence_without_a_way_around_is_an_error(hostile: HostileServer, model: Callable[..., Petals]) -> None:
    llm = model(alone=True, max_retries=1, step_timeout=2)
    hostile.lie = SILENCE["silence"]
    with pytest.raises(SpanFailedError, match="TimeoutError"):
        llm.invoke(PROMPT)


# ---- room


def test_a_server_that_claims_little_room_shortens_no_context(
    hostile: HostileServer, model: Callable[..., Petals], caplog: pytest.LogCaptureFixture
) -> None:
    llm = model()
    calm = llm.invoke(LONG_PROMPT)
    hostile.lie = short_of_room(64)
    assert llm.invoke(LONG_PROMPT) == calm
    assert hostile.lies == 1
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_prompt_is_too_long_for_a_server_with_little_room_if_there_is_no_other(
    hostile: HostileServer, model: Callable[..., Petals]
) -> None:
    llm = model(alone=True)
    hostile.lie = short_of_room(64)
    with pytest.raises(PromptTooLongError) as caught:
        llm.invoke(LONG_PROMPT)
    assert caught.value.limit == 64


def test_a_server_that_is_always_full_is_gone_around(
    hostile: HostileServer, model: Callable[..., Petals], calm: str
) -> None:
    llm = model()
    hostile.lie = FULL
    assert llm.invoke(PROMPT) == calm
    with pytest.raises(SpanFailedError, match="Could not allocate"):
        model(alone=True, max_retries=1).invoke(PROMPT)
    assert hostile.lies == 1 + 3


# ---- memory


@pytest.mark.parametrize("lie", CLAIMS)
def test_a_large_claim_takes_no_memory(
    hostile: HostileServer, model: Callable[..., Petals], calm: str, lie: str
) -> None:
    """The process holds the client and the hostile server; gigabytes are claimed, and hundreds of megabytes sent."""
    llm = model()
    hostile.lie = CLAIMS[lie]
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak is what is used now
    before = _peak_memory()
    assert llm.invoke(PROMPT) == calm
    assert _peak_memory() - before < 64 * MEGABYTE


def _peak_memory() -> int:
    """Return the most memory that this process has had since its peak was reset, in bytes; Linux only."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    [peak] = [line.split()[1] for line in lines if line.startswith("VmHWM")]
    return int(peak) * 1024


# ---- announcements


ANNOUNCEMENTS: dict[str, Any] = {
    "nothing": None,
    "a dictionary": {},
    "bytes that are no value": Raw(b"\xc1"),
    "a dictionary with a number for a name": Raw(b"\x81\x01\x02"),
    "a type of values that nobody knows": Raw(b"\xd4\x07a"),
    "details with a number for a name": (2, 1.0, {1: 2, "start_block": 0, "end_block": 4}),
    "no details": (2, 1.0),
    "blocks that the model lacks": (2, 1e9, {"start_block": 0, "end_block": 400}),
    "throughput of NaN": (2, math.nan, {"start_block": 0, "end_block": 4}),
    "speed of NaN": (2, 1.0, {"start_block": 0, "end_block": 4, "inference_rps": math.nan}),
    "a huge number": (2, 1.0, {"start_block": 0, "end_block": 4, "cache_tokens_left": 2**64 - 1}),
    "giant fields": (2, 1.0, {"start_block": 0, "end_block": 4, "version": "9" * 100_000, "adapters": ["x"] * 10_000}),
}


@pytest.mark.parametrize("value", ANNOUNCEMENTS)
def test_an_announcement_that_lies_has_no_effect_on_others(
    honest: LocalSwarm, hostile: HostileServer, model: Callable[..., Petals], calm: str, value: str
) -> None:
    for block in range(4):
        hostile.store(block, {hostile.peer_id: ANNOUNCEMENTS[value]})
    try:
        llm = Petals(**honest.connection, temperature=0, max_new_tokens=12, session_cache=0, prefill_chunk_tokens=8)
        routes = routes_of(llm)
        routes.refresh(10)
        assert {server.peer_id for server in routes._table.servers} == {honest.servers[0].peer_id}
        assert llm.invoke(PROMPT) == calm
    finally:
        hostile.announce()


def test_thousands_of_announcements_under_one_block_have_no_effect_on_others(
    honest: LocalSwarm, hostile: HostileServer, model: Callable[..., Petals], calm: str
) -> None:
    everything = (2, 1e9, {"start_block": 0, "end_block": 4})
    for part in range(10):
        hostile.store(0, {f"server {part}.{number}": everything for number in range(300)})
    assert model().invoke(PROMPT) == calm
