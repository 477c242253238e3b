"""`chat` and `ask` on real swarms."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from pty_program import CTRL_C, ENTER, PtyProgram

from langchain_petals.swarm import LocalSwarm

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "langchain_petals"]
TOOLS = '''
def get_temperature(city: str) -> str:
    """Get the temperature in a city."""
    return {"Oslo": "3 degrees"}[city]
'''


def connection(swarm: LocalSwarm) -> list[str]:
    return [swarm.model, "--initial-peers", ",".join(swarm.initial_peers), "--dht-prefix", swarm.dht_prefix]


def surroundings(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "XDG_STATE_HOME": str(folder)}


def run(folder: Path, arguments: Sequence[str], given: str = "") -> str:
    """Return the output of the command, which must succeed and write no error."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        input=given,
        capture_output=True,
        check=False,  # the error says more
        text=True,
        cwd=folder,
        env=surroundings(folder),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_piped_message_is_answered(swarm: LocalSwarm, tmp_path: Path) -> None:
    answer = run(tmp_path, ["chat", *connection(swarm), "--temperature", "0"], "Who are you?\n")
    assert answer == "I am a tiny language model. My blocks live on a Petals swarm.\n"


def test_an_answer_fits_its_schema(swarm: LocalSwarm, tmp_path: Path) -> None:
    schema = {
        "title": "Person",
        "description": "A person.",
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name", "age"],
    }
    (tmp_path / "person.json").write_text(json.dumps(schema))
    model, *peers = connection(swarm)
    question = [model, "The name is Ada and the age is 36.", *peers, "--schema", "person.json", "--temperature", "0"]
    assert json.loads(run(tmp_path, ["ask", *question])) == {"name": "Ada", "age": 36}


def test_tools_run_on_the_way_to_an_answer(swarm: LocalSwarm, tmp_path: Path) -> None:
    (tmp_path / "weather.py").write_text(TOOLS)
    model, *peers = connection(swarm)
    asked = [model, "What is the temperature in Oslo?", *peers, "--tools", "weather:get_temperature", "--temperature=0"]
    answer = json.loads(run(tmp_path, ["ask", *asked, "--json"]))
    assert answer["tool_calls"] == [
        {"name": "get_temperature", "args": {"city": "Oslo"}, "result": "3 degrees", "status": "success"}
    ]
    assert "3 degrees" in answer["text"]
    assert answer["usage"]["cached_tokens"] > 0


def test_a_conversation_reuses_its_tokens_and_goes_on_after_ctrl_c(tmp_path: Path) -> None:
    # an answer takes many seconds, so that Ctrl-C comes in its middle
    with LocalSwarm(servers=2, hop_delay=0.1) as slow:
        command = [*COMMAND, "chat", *connection(slow), "--temperature", "0"]
        with PtyProgram(command, surroundings(tmp_path)) as program:
            program.wait_for("Ctrl-D ends.")
            program.wait_for("\n> ")
            children = psutil.Process(program.process.pid).children(recursive=True)
            program.type("Hello!" + ENTER)
            program.wait_for("Hello! How can I help you?")
            program.wait_for("  route: blocks 0-1 on ...")
            program.wait_for(", blocks 2-3 on ...")
            program.wait_for("\n> ")
            program.type("Who are you?" + ENTER)
            program.wait_for("I am a")
            program.type(CTRL_C)
            program.wait_for("The conversation goes on from here.")
            program.wait_for("\n> ")
            program.type("Hello!" + ENTER)
            program.wait_for(" tokens/s, first after ")
            program.wait_for("\n> ")
            program.type("Hello!" + ENTER)
            program.wait_for(" reused")
            program.wait_for("\n> ")
            program.type(CTRL_C)
            assert program.end() == 130
            assert "Traceback" not in program.shown
    assert children  # p2pd
    assert not any(child.is_running() for child in children)


def test_a_swarm_of_its_own_ends_with_the_command(tmp_path: Path) -> None:
    with PtyProgram([*COMMAND, "chat", "--local"], surroundings(tmp_path)) as program:
        program.wait_for("Ctrl-D ends.")
        program.wait_for("\n> ")
        children = psutil.Process(program.process.pid).children(recursive=True)
        program.type(CTRL_C)
        assert program.end() == 130
        assert "Traceback" not in program.shown
    assert len(children) > 2  # servers and p2pd
    assert not any(child.is_running() for child in children)
