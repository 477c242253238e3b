"""A look at a swarm for people: who is there, who answers, what is missing, and how fast it could be."""

from __future__ import annotations

import math
from typing import Any

import pytest
from announced_swarm import AnnouncedSwarm
from scripted_swarm import ScriptedServer, peer_id

from langchain_petals.engine.network import survey, survey_announcements, survey_models
from langchain_petals.errors import SwarmUnreachableError


def look(*servers: ScriptedServer, round_trips: dict[int, float] | None = None) -> Any:
    network = AnnouncedSwarm(*servers)
    network.round_trips |= {peer_id(number): seconds for number, seconds in (round_trips or {}).items()}
    return survey(network, "tiny", 4)


def state(server: ScriptedServer, state: int) -> ScriptedServer:
    server.announcement = state, *server.announcement[1:]
    return server


def test_servers_come_in_the_order_of_their_blocks_with_what_they_say_of_themselves() -> None:
    found = look(
        ScriptedServer(1, 2, 4, public_name="second", using_relay=True, quant_type="nf4"), ScriptedServer(2, 0, 2)
    )
    first, second = found.servers
    assert (first.server.start, first.name, first.uses_relay, first.version) == (0, None, None, "2.2.0.post1")
    assert (second.name, second.uses_relay, second.quantization, second.has_speed) == ("second", True, "nf4", True)
    assert found.missing == []


@pytest.mark.parametrize("name", [None, "", 5, ["x"], {"a": 1}, "\n\x1b", b"bytes"])
def test_a_name_that_is_none_costs_a_server_nothing(name: Any) -> None:
    [server] = look(ScriptedServer(1, 0, 4, public_name=name, using_relay=name, quant_type=name)).servers
    assert (server.name, server.uses_relay, server.quantization) == (None, None, None)


def test_a_name_holds_nothing_that_a_terminal_would_obey() -> None:
    name = "\x1b[2J\x1b]0;title\x07\u202eevil\u200b\na\u0301\u0302\u0303" + "z" * 9_999
    [server] = look(ScriptedServer(1, 0, 4, public_name=name)).servers
    assert server.name is not None
    assert server.name.startswith("[2J]0;titleevilazzz")
    assert server.name.isprintable()
    assert len(server.name) <= 500


def test_servers_that_join_or_give_no_answer_leave_a_gap() -> None:
    found = look(state(ScriptedServer(1, 0, 2), 1), ScriptedServer(2, 2, 4), round_trips={2: math.inf})
    assert [each.is_joining for each in found.servers] == [True, False]
    assert [found.answers(each) for each in found.servers] == [True, False]
    assert found.missing == [0, 1, 2, 3]
    assert found.pace is None


def test_servers_that_are_offline_are_left_out() -> None:
    assert look(state(ScriptedServer(1, 0, 4), 0)).servers == []


def test_a_server_that_answers_the_second_question_is_there() -> None:
    network = AnnouncedSwarm(ScriptedServer(1, 0, 4))
    network.round_trips = {}

    async def round_trip(peer: str) -> float:
        network.pinged.append(peer)
        return math.inf if len(network.pinged) == 1 else 0.05

    network.round_trip = round_trip  # type: ignore[assignment]
    found = survey(network, "tiny", 4)
    assert found.round_trips == {peer_id(1): 0.05}


def test_the_pace_counts_the_way_to_each_server_of_the_fastest_chain_and_the_work_that_is_announced() -> None:
    slow, fast, last = ScriptedServer(1, 0, 2, speed=100), ScriptedServer(2, 0, 2, speed=100), ScriptedServer(3, 2, 4)
    del last.announcement[2]["inference_rps"]
    pace = look(slow, fast, last, round_trips={1: 0.5, 2: 0.05, 3: 0.03}).pace
    assert [span.server.peer_id for span in pace.spans] == [peer_id(2), peer_id(3)]
    assert (pace.on_the_way, pace.computing, pace.silent) == (pytest.approx(0.08), pytest.approx(0.02), 1)
    assert pace.tokens_per_second == pytest.approx(10)


def test_the_models_of_a_swarm_are_those_with_a_name_and_a_number_of_blocks() -> None:
    good = {"num_blocks": 4, "repository": "https://huggingface.co/some/model"}
    models: dict[Any, Any] = {
        "tiny": {"num_blocks": 4},
        "Llama": good,
        "a.b": good,
        "esc\x1b[2J": good,
        5: good,
        None: good,
        b"bytes": good,
        "none": {},
        "list": [4],
        "huge": {"num_blocks": 10**9},
        "true": {"num_blocks": True},
        "text": {"num_blocks": "4"},
    }
    found = survey_models(AnnouncedSwarm(models=models))
    assert [(each.prefix, each.blocks, each.repository) for each in found] == [
        ("Llama", 4, "https://huggingface.co/some/model"),
        ("tiny", 4, None),
    ]


def test_announcements_of_several_models_are_read_without_asking_their_servers() -> None:
    network: Any = AnnouncedSwarm(ScriptedServer(1, 0, 2), models={"tiny": {"num_blocks": 4}})
    [found] = survey_announcements(network, survey_models(network))
    assert found.missing == [2, 3]
    assert network.pinged == []


def test_announcements_of_many_models_are_one_reading() -> None:
    network: Any = AnnouncedSwarm(ScriptedServer(1, 0, 2), models={f"m{number}": {"num_blocks": 4} for number in "123"})
    found = survey_announcements(network, survey_models(network))
    assert [(each.prefix, each.missing) for each in found] == [("m1", [2, 3]), ("m2", [2, 3]), ("m3", [2, 3])]
    assert network.readings == 1
    assert survey_announcements(network, []) == []


def test_a_swarm_that_was_left_is_an_error() -> None:
    network: Any = AnnouncedSwarm()
    network.is_open = False
    with pytest.raises(SwarmUnreachableError):
        survey(network, "tiny", 4)


def test_an_error_of_the_network_says_what_to_check() -> None:
    network: Any = AnnouncedSwarm()

    async def fail(_: int) -> None:
        msg = "broken"
        raise OSError(msg)

    network.reading = fail
    with pytest.raises(SwarmUnreachableError, match=r"gave no answer \(OSError: broken\). Check that"):
        survey(network, "tiny", 4)
