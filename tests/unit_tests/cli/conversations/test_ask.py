"""`langchain-petals ask` gives one answer; the model is scripted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest
from scripted_chat import ScriptedChat
from typer.testing import CliRunner

import langchain_petals
from langchain_petals import swarm as swarms
from langchain_petals.cli import app
from langchain_petals.cli.servers import environment

if TYPE_CHECKING:
    from typer.testing import Result
    from typing_extensions import Self

TOOLS = '''
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b

def fail(a: int = 0) -> int:
    """Fail."""
    raise ValueError("no [b]luck")

async def wait(a: int = 0) -> int:
    """Wait."""
    return a + 7

NUMBER = 3
'''


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(langchain_petals, "ChatPetals", ScriptedChat)
    monkeypatch.delenv("LANGCHAIN_PETALS_MODEL", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(ScriptedChat, "made", [])
    (tmp_path / "ask_tools.py").write_text(TOOLS)
    sys.modules.pop("ask_tools", None)


def ask(*arguments: str, given: str | bytes = "") -> Result:
    return CliRunner().invoke(app, ["ask", *arguments], input=given)


def test_an_answer_is_the_output_and_nothing_else() -> None:
    result = ask("folder", "say one two")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "one two \n", "")


def test_piped_input_is_the_question_or_follows_it() -> None:
    assert ask("folder", given="say it\n").stdout == "it \n"
    ask("folder", "Summarise", given="a text\n")
    assert ScriptedChat.made[-1].calls[0]["messages"][-1].text == "Summarise\n\na text"


def test_options_become_fields_and_what_was_not_given_is_left_out() -> None:
    peers = ["/ip4/10.0.0.1/tcp/1/p2p/Qm1", "/ip4/10.0.0.2/tcp/1/p2p/Qm2", "/ip4/10.0.0.3/tcp/1/p2p/Qm3"]
    ask(
        "folder",
        "say it",
        *("--initial-peers", ",".join(peers[:2]), "--initial-peers", peers[2]),
        *("--dht-prefix", "tiny", "--temperature", "0", "--max-tokens", "7", "--system", "Be brief."),
    )
    made = ScriptedChat.made[-1]
    assert (made.model_name, made.initial_peers, made.dht_prefix) == ("folder", peers, "tiny")
    assert (made.temperature, made.max_tokens, made.preload) == (0, 7, True)
    assert [message.type for message in made.calls[0]["messages"]] == ["system", "human"]
    ask("folder", "say it")
    given = ScriptedChat.made[-1].model_fields_set - {"profile"}  # set by LangChain
    assert given == {"model_name", "on_prefill", "preload"}


def test_with_a_model_in_the_environment_one_argument_is_the_question(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGCHAIN_PETALS_MODEL", "folder")
    assert ask("say it").stdout == "it \n"
    assert "model_name" not in ScriptedChat.made[-1].model_fields_set


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["folder"], "There is no question"),
        (["folder", "Hello!", "you"], "unexpected extra argument"),
        (["folder", "Hello!", "--local", "--dht-prefix", "x"], "--local starts a swarm of its own"),
        (["folder", "Hello!", "--max-tokens", "0"], "--max-tokens"),
    ],
)
def test_wrong_usage_ends_with_code_2(arguments: list[str], said: str) -> None:
    result = ask(*arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.replace("│", " ").split())


@pytest.mark.parametrize("arguments", [["m", "caf\udce9"], ["caf\udce9", "--local"], ["m", "q", "--system", "\udce9"]])
def test_arguments_that_are_no_text_are_refused_before_the_model_is_loaded(arguments: list[str]) -> None:
    result = ask(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "it is no UTF-8 text" in result.stderr
    assert not ScriptedChat.made


def test_an_error_of_the_swarm_is_a_sentence_and_code_1() -> None:
    result = ask("folder", "fail")
    assert (result.exit_code, result.stdout) == (1, "half an answer\n")
    assert result.stderr.startswith("Error: Blocks 0:2 failed 4 time(s)")


def test_input_that_is_no_text_is_refused() -> None:
    result = ask("folder", given=b"\xff\x00")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no UTF-8 text (byte 0)" in result.stderr


def test_escape_codes_are_shown_and_not_obeyed() -> None:
    for arguments in ([], ["--json"]):
        output = ask("folder", "escape", *arguments).stdout
        assert not {"\x1b", "\x9b", "\x07", "\u202e", "\r"} & {*output}
    assert ask("folder", "escape").stdout == "\u241b[2Jcleared? \\u009b31m \u2407\\u202egnorw\n"
    assert json.loads(output)["text"] == "\x1b[2Jcleared? \x9b31m \x07\u202egnorw\r"


# ---- JSON


def test_json_is_one_document() -> None:
    result = ask("folder", "say one two", "--json")
    assert result.stderr == ""
    assert json.loads(result.stdout) == {
        "text": "one two ",
        "tool_calls": [],
        "usage": {"input_tokens": 3, "output_tokens": 5, "total_tokens": 8, "cached_tokens": 1, "trips": 3},
        "finish_reason": "stop",
        "model": "folder",
    }


def test_an_error_leaves_no_json_behind() -> None:
    result = ask("folder", "fail", "--json")
    assert (result.exit_code, result.stdout) == (1, "")


# ---- schemas


@pytest.mark.parametrize("where", ["option", "file"])
def test_a_schema_goes_to_the_model(where: str, tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string"}}}
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    ask("folder", "say it", "--schema", "schema.json" if where == "file" else json.dumps(schema))
    assert ScriptedChat.made[-1].calls[0]["response_format"] == {"type": "json_object", "schema": schema}


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ("{", "--schema is no JSON"),
        ("nothing.json", "No such file"),
        ("list.json", "it must be an object"),
        ("deep.json", "is no JSON"),
        ("binary.json", "is no UTF-8 text"),
    ],
)
def test_a_wrong_schema_is_refused_before_the_model_is_loaded(schema: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "binary.json").write_bytes(b"{\xff")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    result = ask("folder", "say it", "--schema", schema)
    assert (result.exit_code, result.stdout) == (1, "")
    assert said in result.stderr
    assert not ScriptedChat.made


def test_an_answer_that_was_cut_off_is_an_error_if_it_had_to_fit_a_schema() -> None:
    plain = ask("folder", "cut")
    assert (plain.exit_code, plain.stdout) == (0, "Well: cut\n")
    assert "raise --max-tokens" in plain.stderr
    constrained = ask("folder", "cut", "--schema", "{}")
    assert (constrained.exit_code, constrained.stdout) == (1, "Well: cut\n")
    assert "raise --max-tokens" in constrained.stderr


# ---- tools


def test_tools_run_and_the_answer_has_their_result() -> None:
    result = ask("folder", "call add 2 3", "--tools", "ask_tools:add")
    assert (result.exit_code, result.stdout) == (0, "The result is 5\n")
    assert result.stderr == "  calls add(a=2, b=3)\n  add returns 5\n"


def test_a_tool_may_be_a_coroutine_function() -> None:
    assert ask("folder", "call wait", "--tools", "ask_tools:wait").stdout == "The result is 7\n"


def test_json_has_the_calls_and_what_came_of_them() -> None:
    document = json.loads(ask("folder", "call add 2 3", "--tools", "ask_tools:add", "--json").stdout)
    assert document["text"] == "The result is 5"
    assert document["tool_calls"] == [
        {"name": "add", "args": {"a": 2, "b": 3}, "result": "5", "status": "success"},
    ]
    assert document["usage"]["trips"] == 6


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("fail", "Error: ValueError: no [b]luck"),
        ("add 2", "Error: ValidationError: 1 validation error for add"),
        ("other", "Error: KeyError: \"there is no tool 'other'\""),
    ],
)
def test_a_tool_that_raises_gives_its_error_to_the_model(call: str, error: str) -> None:
    result = ask("folder", f"call {call}", "--tools", "ask_tools:fail", "--tools", "ask_tools:add")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"The result is {error}")
    assert error in result.stderr


def test_the_model_cannot_call_tools_for_ever() -> None:
    result = ask("folder", "call-always fail", "--tools", "ask_tools:fail")
    assert result.exit_code == 0
    assert result.stdout.startswith("The result is")
    assert result.stderr.count("calls fail()") == 8


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ask_tools", "write module:function"),
        ("nowhere:add", "There is no nowhere.py in"),
        ("ask_tools:subtract", "The module 'ask_tools' has no 'subtract'"),
        ("ask_tools:NUMBER", "is no function and no LangChain tool, but int"),
        ("broken:add", "could not be imported: SyntaxError"),
        ("lacking:add", "It imports not_there, which is missing"),
        ("exiting:add", "could not be imported: SystemExit: 3"),
        ("undocumented:add", "It needs a docstring"),
    ],
)
def test_a_tool_that_cannot_be_had_is_an_error_with_its_reason(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def")
    (tmp_path / "lacking.py").write_text("import not_there")
    (tmp_path / "exiting.py").write_text("raise SystemExit(3)")
    (tmp_path / "undocumented.py").write_text("def add(a, b): return a + b")
    result = ask("folder", "say it", "--tools", name)
    assert (result.exit_code, result.stdout) == (1, "")
    assert said in result.stderr
    assert not ScriptedChat.made


def test_two_tools_of_one_name_are_refused() -> None:
    result = ask("folder", "say it", "--tools", "ask_tools:add", "--tools", "ask_tools:add")
    assert result.exit_code == 1
    assert "Two tools have the name 'add'" in result.stderr


# ---- a swarm on this machine


class FakeSwarm:
    """A swarm of nobody."""

    open: ClassVar[list[str | None]] = []

    def __init__(self, model: str | None) -> None:
        self.model = model
        self.connection = {"model": model or "tiny", "initial_peers": ["here"], "dht_prefix": "t"}

    def __enter__(self) -> Self:
        FakeSwarm.open.append(self.model)
        return self

    def __exit__(self, *_: object) -> None:
        FakeSwarm.open.remove(self.model)


@pytest.mark.parametrize(
    ("arguments", "model", "code"),
    [
        (["say it"], "tiny", 0),
        (["folder", "say it"], "folder", 0),
        (["fail"], "tiny", 1),
    ],
)
def test_a_swarm_of_this_machine_lasts_as_long_as_the_answer(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], model: str, code: int
) -> None:
    monkeypatch.setattr(swarms, "LocalSwarm", FakeSwarm)
    monkeypatch.setattr(swarms, "found_python", lambda: Path(sys.executable))
    assert ask(*arguments, "--local").exit_code == code
    made = ScriptedChat.made[-1]
    assert (made.model_name, made.initial_peers, made.dht_prefix) == (model, ["here"], "t")
    assert FakeSwarm.open == []


def test_without_an_environment_for_servers_and_without_a_terminal_the_command_that_makes_one_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(swarms, "found_python", lambda: None)
    result = ask("say it", "--local")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Run `langchain-petals server install` first." in result.stderr


def test_the_question_whether_to_make_an_environment_is_not_in_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swarms, "found_python", lambda: None)
    monkeypatch.setattr(environment, "can_ask", lambda _: True)
    result = ask("say it", "--local", "--json", given="n\n")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Install it now? [Y/n]" in result.stderr


# ---- surroundings


SCRIPT = Path(__file__).parents[2] / "shared" / "scripted_chat.py"
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[4])}


def run_program(*arguments: str, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT | environment,
    )


def test_a_reader_that_has_seen_enough_ends_the_command_quietly() -> None:
    with run_program("ask", "folder", "pour 1000000") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(4)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_characters_that_the_output_cannot_encode_are_written_as_escapes() -> None:
    with run_program("ask", "folder", "say \u82b1", PYTHONIOENCODING="ascii") as process:
        assert process.communicate() == (b"\\u82b1 \n", b"")
    with run_program("ask", "folder", "say \u82b1", "--json", PYTHONIOENCODING="ascii") as process:
        assert json.loads(process.communicate()[0])["text"] == "\u82b1 "


@pytest.mark.parametrize(
    ("closed", "output"), [("<&-", b"it \n"), ("2>&-", b"it \n"), (">&-", b""), ("<&- >&- 2>&-", b"")]
)
def test_a_stream_that_is_closed_leads_nowhere(closed: str, output: bytes) -> None:
    question = f"'say it' --tools streams:used {closed}"
    command = f"{sys.executable} {SCRIPT} ask folder {question}"
    Path("streams.py").write_text(
        "import sys; sys.stderr.isatty(); sys.stdin.isatty(); sys.stdout.isatty()\n"  # as libraries do
        'def used(a: int) -> int:\n    "Nothing."\n    return a\n'
    )
    done = subprocess.run(["sh", "-c", command], capture_output=True, env=ENVIRONMENT, check=False, input=b"")
    assert (done.returncode, done.stdout, done.stderr) == (0, output, b"")


# ---- tools that do what they should not


def test_what_a_tool_prints_is_not_in_the_output(tmp_path: Path) -> None:
    (tmp_path / "loud_tools.py").write_text(
        'print("imported")\ndef shout(a: int) -> None:\n    "Shout."\n    print("called")\n'
    )
    result = ask("folder", "call shout 1", "--tools", "loud_tools:shout", "--json")
    assert json.loads(result.stdout)["tool_calls"] == [
        {"name": "shout", "args": {"a": 1}, "result": "null", "status": "success"}
    ]
    assert result.stderr == "imported\ncalled\n"


def test_a_tool_that_wants_to_end_the_program_gives_its_error_to_the_model(tmp_path: Path) -> None:
    (tmp_path / "ending_tools.py").write_text('def end(a: int) -> int:\n    "End."\n    raise SystemExit(a)\n')
    result = ask("folder", "call end 7", "--tools", "ending_tools:end")
    assert (result.exit_code, result.stdout) == (0, "The result is Error: SystemExit: 7\n")


@pytest.mark.parametrize("place", ["", '    "Wait."\n    '])
def test_a_signal_ends_the_command_also_while_a_tool_is_imported_or_runs(place: str, tmp_path: Path) -> None:
    (tmp_path / "slow_tools.py").write_text(
        "import signal, time\n"
        + ("def wait(a: int) -> int:\n" + place if place else "")
        + "signal.raise_signal(signal.SIGTERM)\n"
    )
    sys.modules.pop("slow_tools", None)
    assert ask("folder", "call wait 1", "--tools", "slow_tools:wait").exit_code == 143


# ---- schemas that are none


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ("", "--schema is empty"),
        ("~nobody-has-this-name/x", "~nobody-has-this-name/x: No such file or directory"),
        (".", ".: Is a directory"),
        ("latin.json", "latin.json is no UTF-8 text (byte 0)"),
        ('{"type": 3}', "it is no valid JSON schema"),
        ('{"$ref": "#/nowhere"}', "'#/nowhere' is not in the schema"),
    ],
)
def test_what_is_no_schema_is_an_error_before_the_model_is_loaded(schema: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "latin.json").write_bytes(b"\xff")
    result = ask("folder", "say it", "--schema", schema)
    assert (result.exit_code, result.stdout) == (1, "")
    assert said in result.stderr
    assert "[Errno" not in result.stderr
    assert not ScriptedChat.made
