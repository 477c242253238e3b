"""`langchain-petals chat` on a terminal and without one; the model is scripted."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pty_program import ALT_ENTER, CTRL_C, CTRL_D, ENTER, UP, PtyProgram
from scripted_chat import ScriptedChat
from typer.testing import CliRunner

import langchain_petals
from langchain_petals.cli import app

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typer.testing import Result

ROOT = Path(__file__).parents[4]
SCRIPT = Path(__file__).parents[2] / "shared" / "scripted_chat.py"
READY, DONE = "> ", "  5 tokens"


@pytest.fixture
def chat(tmp_path: Path) -> Iterator[Callable[..., PtyProgram]]:
    """Return a function that starts `chat` on a terminal, where the prompt is waited for."""
    opened: list[PtyProgram] = []

    def start(*arguments: str, **environment: str) -> PtyProgram:
        surroundings = {
            "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
            "TERM": "xterm",
            "XDG_STATE_HOME": str(tmp_path),
        }
        surroundings |= {"LANGCHAIN_PETALS_PROGRESS": "", **environment}
        inherited = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "COLUMNS"}}
        command = [sys.executable, str(SCRIPT), "chat", "folder", *arguments]
        program = PtyProgram(command, inherited | surroundings)
        opened.append(program)
        program.wait_for("Ctrl-D ends.")
        program.wait_for(READY)
        return program

    yield start
    for program in opened:
        program.__exit__()


def say(program: PtyProgram, text: str) -> str:
    """Send a line; return what is shown until the next prompt."""
    program.type(text + ENTER)
    program.wait_for(text.rsplit("\n", 1)[-1])
    return program.wait_for("\n" + READY)


def test_messages_are_answered_with_their_cost_and_the_route(chat: Callable[..., PtyProgram]) -> None:
    program = chat()
    first = say(program, "say one two")
    assert "\none two\n" in first
    assert re.search(r"\n  5 tokens, [\d.]+ tokens/s, first after [\d.]+ s; prompt 3 tokens, 1 reused\n", first)
    assert "  route: blocks 0-1 on ...111111, blocks 2-3 on ...r22222\n" in first
    second = say(program, "count")
    assert "3 messages, the first: say one two\n" in second
    assert "route" not in second  # it is the same
    program.type("/exit" + ENTER)
    assert program.end() == 0


@pytest.mark.parametrize(("key", "code"), [(CTRL_D, 0), (CTRL_C, 130)])
def test_a_key_at_the_prompt_ends_the_command(chat: Callable[..., PtyProgram], key: str, code: int) -> None:
    program = chat()
    program.type(key)
    assert program.end() == code
    assert "Traceback" not in program.shown


def test_a_message_may_have_several_lines(chat: Callable[..., PtyProgram]) -> None:
    program = chat()
    program.type("say one\\" + ENTER + "two" + ALT_ENTER + "three" + ENTER)
    assert "one two three" in program.wait_for(DONE)
    program.wait_for(READY)
    program.type("\x1b[200~say four\nfive\x1b[201~" + ENTER)  # as a terminal sends what is pasted
    assert "four five" in program.wait_for(DONE)


def test_what_was_typed_comes_back_and_only_its_owner_can_read_it(
    chat: Callable[..., PtyProgram], tmp_path: Path
) -> None:
    program = chat()
    say(program, "say something")
    program.type(CTRL_D)
    program.end()
    [path] = tmp_path.rglob("chat_history")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    second = chat()
    second.type(UP + ENTER)
    assert "\nsomething\n" in second.wait_for(DONE)


def test_a_history_that_cannot_be_kept_is_no_obstacle(chat: Callable[..., PtyProgram], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    program = chat(XDG_STATE_HOME=str(tmp_path / "file"))
    assert "What you type is not kept in" in program.shown
    assert "\none\n" in say(program, "say one")


# ---- interruptions


def test_ctrl_c_stops_an_answer_and_keeps_what_there_is(chat: Callable[..., PtyProgram]) -> None:
    program = chat()
    program.type("hang" + ENTER)
    program.wait_for("half an")  # the last word waits for its end
    program.type(CTRL_C)
    assert program.wait_for("The conversation goes on from here.").startswith(" answer\n")
    program.wait_for(READY)
    assert "3 messages, the first: hang" in say(program, "count")


def test_ctrl_c_before_the_first_word_drops_the_message(chat: Callable[..., PtyProgram]) -> None:
    program = chat()
    program.type("wait" + ENTER)
    program.wait_for("Reading the prompt: 1,024 of 2,048 tokens")
    program.type(CTRL_C)
    program.wait_for("Stopped. Your message is not kept")
    program.wait_for(READY)
    assert "1 messages, the first: count" in say(program, "count")


def test_an_error_of_the_swarm_is_shown_and_the_conversation_goes_on(chat: Callable[..., PtyProgram]) -> None:
    program = chat()
    shown = say(program, "fail")
    assert "Your message is not kept" in shown
    assert "Error: Blocks 0:2 failed 4 time(s)" in shown
    assert "1 messages, the first: count" in say(program, "count")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_the_command_and_leaves_the_terminal_as_it_was(
    chat: Callable[..., PtyProgram], number: signal.Signals, code: int
) -> None:
    program = chat()
    program.process.send_signal(number)
    assert program.end() == code
    assert "Traceback" not in program.shown
    assert "Unhandled exception" not in program.shown
    assert program.is_cooked


# ---- what is shown


def test_escape_codes_of_the_model_are_shown_and_not_obeyed(chat: Callable[..., PtyProgram]) -> None:
    program = chat()
    program.type("escape" + ENTER)
    program.wait_for("escape")
    begun = len(program.raw)
    program.wait_for(DONE)
    answer = program.raw[begun:]
    assert "\u241b[2Jcleared? \\u009b31m \u2407\\u202egnorw" in answer
    assert "\x1b[2J" not in answer
    assert not {"\x9b", "\x07", "\u202e"} & {*answer}


def test_lines_end_between_words(chat: Callable[..., PtyProgram]) -> None:
    lines = [line for line in say(chat(), "pour 40").splitlines() if line.startswith("word")]
    assert lines == [" ".join(["word"] * number) for number in (16, 16, 8)]


def test_without_colour_there_is_no_colour(chat: Callable[..., PtyProgram]) -> None:
    program = chat(NO_COLOR="1")
    say(program, "say one")
    say(program, "/nonsense")
    assert not [code for code in ("\x1b[31", "\x1b[32", "\x1b[33", "\x1b[36") if code in program.raw]


def test_a_terminal_without_abilities_will_do(chat: Callable[..., PtyProgram]) -> None:
    program = chat(TERM="dumb")
    program.type("say one" + ENTER)
    assert "one" in program.wait_for(DONE)
    program.type("/exit" + ENTER)
    assert program.end() == 0


def test_reasoning_is_shown_apart(chat: Callable[..., PtyProgram]) -> None:
    assert "Let me see.\nSo it is.\n" in say(chat(), "think")


# ---- without a terminal


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(langchain_petals, "ChatPetals", ScriptedChat)


def piped(*arguments: str, given: str = "") -> Result:
    return CliRunner().invoke(app, ["chat", *arguments], input=given)


@pytest.mark.usefixtures("scripted")
def test_piped_input_is_one_message_and_gets_one_answer() -> None:
    result = piped("folder", "--system", "Be brief.", given="count\nagain\n")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "2 messages, the first: Be brief.\n", "")


@pytest.mark.usefixtures("scripted")
def test_piped_input_can_be_answered_as_json() -> None:
    assert json.loads(piped("folder", "--json", given="say one").stdout)["text"] == "one "


@pytest.mark.usefixtures("scripted")
def test_without_a_message_and_without_a_terminal_there_is_nothing_to_do() -> None:
    result = piped("folder")
    assert result.exit_code == 2
    assert "There is no message" in result.stderr


def test_json_needs_piped_input(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm"}
    with PtyProgram([sys.executable, str(SCRIPT), "chat", "folder", "--json"], environment) as program:
        assert program.end() == 2
        assert "pipe a message" in program.shown
