"""The picture of a swarm: announcements written by hand, and what a terminal shows of them."""

from __future__ import annotations

import io
import math
import random
from typing import Any

import pytest
from announced_swarm import AnnouncedSwarm
from rich.cells import cell_len
from rich.console import Console
from scripted_swarm import ScriptedServer, peer_id

from langchain_petals.cli.swarms.status_picture import picture
from langchain_petals.cli.swarms.status_verdict import View, as_json, ranges_of, verdict_of
from langchain_petals.engine.network import survey

PEER = f"/ip4/10.0.0.7/tcp/31337/p2p/{peer_id(50)}"
HALVES = (
    ScriptedServer(1, 0, 2, cache_tokens_left=8192 * 4, using_relay=False),
    ScriptedServer(2, 2, 4, cache_tokens_left=8192 * 4, using_relay=True, public_name="osaka-1"),
)


def view(*servers: ScriptedServer, blocks: int = 4, round_trips: dict[int, float] | None = None, **more: Any) -> View:
    network: Any = AnnouncedSwarm(*servers)
    network.round_trips |= {peer_id(number): seconds for number, seconds in (round_trips or {}).items()}
    fields: dict[str, Any] = {"model": "/models/tiny", "initial_peers": [PEER], "own_prefix": "tiny"} | more
    return View(survey=survey(network, "tiny", blocks), **fields)


def drawn(view: View, width: int = 80, most_lines: int | None = None, **options: Any) -> str:
    """Return what a terminal shows."""
    output = io.StringIO()
    settings = {"force_terminal": True, "color_system": None, "highlight": False, "soft_wrap": True} | options
    console = Console(file=output, width=width, **settings)
    console.print(picture(view, console, most_lines))
    return output.getvalue()


def copies(shown: str) -> str:
    [line] = [line for line in shown.splitlines() if line.startswith("copies")]
    return line.removeprefix("copies").replace(" ", "")


def test_each_server_has_a_row_with_its_span_as_a_bar() -> None:
    assert drawn(view(*HALVES)).splitlines()[:6] == [
        "tiny: 4 blocks, 2 servers, on a private swarm",
        "",
        "server   blocks 0                      3 tok/s cache  ping petals      via",
        "…AAAAAA2    0:2 ████████████············   300  8192 10 ms 2.2.0.post1 direct",
        "osaka-1     2:4 ············████████████   300  8192 10 ms 2.2.0.post1 relay",
        "copies          1     1     1     1",
    ]


def test_gaps_and_servers_without_an_answer_can_be_seen_without_colours() -> None:
    lines = drawn(view(*HALVES, round_trips={2: math.inf})).splitlines()
    silent, nobody = lines[4:6]
    assert "no answer" in silent
    assert set(silent.split()[2]) == {"·", "x"}
    assert nobody.split()[:2] == ["nobody", "2:4"]
    assert set(nobody.split()[2]) == {"·", "!"}
    assert set(copies("\n".join(lines))) == {"1", "!"}


def test_gaps_are_red() -> None:
    text = drawn(view(HALVES[0]), color_system="standard")
    assert "\x1b[1;31m!" in text


def test_no_color_takes_the_colours_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    text = drawn(view(HALVES[0]), color_system="standard")
    assert "!" in text
    assert "31" not in text.replace("31337", "")


def test_copies_of_a_block_are_counted() -> None:
    servers = [ScriptedServer(number, 0, 4) for number in range(12)]
    assert set(copies(drawn(view(*servers, ScriptedServer(20, 2, 4))))) == {"+"}
    assert set(copies(drawn(view(*HALVES, ScriptedServer(3, 2, 4))))) == {"1", "2"}


def test_a_usable_model_says_how_fast_it_is_at_best() -> None:
    verdict = verdict_of(view(*HALVES, round_trips={1: 0.05, 2: 0.15}))
    assert verdict.is_usable
    assert verdict.command is None
    assert verdict.text == (
        "All 4 blocks are served. At best, one answer gets about 4.7 tokens/s: a token takes 200 ms on the way to "
        "2 servers and back and 13 ms of work, as they announce."
    )


def test_servers_that_announce_no_speed_are_not_counted_as_fast() -> None:
    first, second = ScriptedServer(1, 0, 2), ScriptedServer(2, 2, 4)
    del first.announcement[2]["inference_rps"]
    assert verdict_of(view(first, second)).text.endswith(" One server announces no speed; its work is not counted.")
    del second.announcement[2]["inference_rps"]
    assert verdict_of(view(first, second)).text.endswith(" 2 servers announce no speed; their work is not counted.")


def test_full_caches_are_told() -> None:
    full = ScriptedServer(1, 0, 4, cache_tokens_left=80)
    assert "with room for 10 tokens" in verdict_of(view(full)).text


def test_a_gap_comes_with_the_command_that_fills_it() -> None:
    verdict = verdict_of(view(HALVES[0]))
    assert not verdict.is_usable
    assert verdict.text == "No server that can be used holds 2 blocks: 2:4. Start a server for them:"
    assert verdict.command == f"langchain-petals server run /models/tiny --blocks 2:4 --initial-peers {PEER}"
    public = verdict_of(view(HALVES[0], initial_peers=(), model="my model", own_prefix="other"))
    assert "Wait until somebody serves them, or serve them yourself." in public.text
    assert public.command == "langchain-petals server run 'my model' --blocks 2:4 --dht-prefix tiny"


def test_a_server_that_gives_no_answer_is_explained() -> None:
    text = verdict_of(view(*HALVES, round_trips={2: math.inf})).text
    assert "1 server that is announced for them gave no answer" in text
    assert "forgets a server that has ended within 2 minutes" in text


def test_a_server_that_joins_is_worth_a_minute() -> None:
    joining = ScriptedServer(2, 2, 4)
    joining.announcement = 1, *joining.announcement[1:]
    verdict = verdict_of(view(HALVES[0], joining))
    assert (verdict.is_usable, verdict.command) == (False, None)
    assert verdict.text.endswith("1 server for them is joining; look again in a minute.")


def test_a_swarm_without_the_model_says_what_it_has_instead() -> None:
    verdict = verdict_of(view(others=["a", "b"]))
    assert "This swarm has no server for 'tiny'. It announces a, b;" in verdict.text
    assert verdict.command == f"langchain-petals server run /models/tiny --initial-peers {PEER}"
    assert drawn(view(initial_peers=())).startswith("tiny: 4 blocks, 0 servers, on the public swarm\n\nNot usable. ")


def crowd(seed: int) -> View:
    """Return 60 servers over 80 blocks, some with awkward names, some away, with and without gaps."""
    dice = random.Random(seed)
    servers, round_trips = [], {}
    for number in range(57):
        start = dice.randrange(79)
        name = dice.choice([None, "日本のサーバー大阪", "🤗🤗🤗", "r2d2", "\x1b[31mred", "é" * 300, "a\tb\nc"])
        server = ScriptedServer(number, start, dice.randint(start + 1, 80), public_name=name)
        numbers = dice.uniform(0, 5000), {"cache_tokens_left": dice.randrange(2**60), "using_relay": number % 3 == 0}
        server.announcement = (1 if number % 17 == 5 else 2), numbers[0], server.announcement[2] | numbers[1]
        servers.append(server)
        round_trips[number] = math.inf if number % 13 == 4 else dice.uniform(0.001, 2)
    return view(*servers, blocks=80, round_trips=round_trips)


@pytest.mark.parametrize("width", [20, 60, 80, 120, 200])
@pytest.mark.parametrize("seed", range(4))
def test_a_large_swarm_fits_any_width(width: int, seed: int) -> None:
    seen = crowd(seed)
    shown = drawn(seen, width)
    command = verdict_of(seen).command
    for line in shown.splitlines():
        assert "\x1b" not in line
        if width >= 60 and (command is None or line.strip() != command):
            assert cell_len(line) <= width, line
    assert sum(line.startswith("nobody") for line in shown.splitlines()) == len(ranges_of(seen.survey.missing))


def test_at_80_columns_all_columns_are_there() -> None:
    header = drawn(crowd(0)).splitlines()[2].split()
    assert [*header[:2], *header[4:]] == ["server", "blocks", "tok/s", "cache", "ping", "petals", "via"]


def test_what_does_not_fit_the_height_is_left_out_but_neither_gaps_nor_the_verdict() -> None:
    seen = view(*(ScriptedServer(number, 0, 2) for number in range(50)))
    shown = drawn(seen, most_lines=14)
    assert len(shown.splitlines()) <= 14
    assert "nobody" in shown
    assert "Not usable." in shown


def test_a_terminal_without_unicode_gets_ascii() -> None:
    output = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console = Console(file=output, width=80, highlight=False, soft_wrap=True)
    console.print(picture(view(HALVES[0]), console))
    output.flush()
    text = output.buffer.getvalue().decode("ascii")
    assert "####" in text
    assert "!!!!" in text


def test_where_nobody_sits_the_verdict_is_one_line() -> None:
    shown = drawn(view(*HALVES), force_terminal=False)
    assert shown.splitlines()[-1].startswith("Usable. All 4 blocks are served. At best,")
    assert shown.splitlines()[-1].endswith("as they announce.")


def test_ranges_are_found_in_block_numbers() -> None:
    assert ranges_of([]) == []
    assert ranges_of([0, 1, 4, 6, 7, 8]) == [range(2), range(4, 5), range(6, 9)]


def test_json_has_null_for_what_is_not_known() -> None:
    found = as_json(view(*HALVES, round_trips={2: math.inf}))
    assert (found["usable"], found["missing"], found["tokens_per_second"]) == (False, [2, 3], None)
    first, second = found["servers"]
    assert (first["blocks"], first["state"], first["round_trip"], first["free_cache_tokens"]) == (
        [0, 2],
        "online",
        0.01,
        8192,
    )
    assert (second["state"], second["round_trip"], second["relay"]) == ("no answer", None, True)
