"""What begins with a slash in `chat`; the model is scripted, and the terminal is a list of lines."""

from __future__ import annotations

import io
import json
import os
import stat
import sys
from typing import TYPE_CHECKING

import pytest
from langchain_core.messages import messages_from_dict
from rich.console import Console
from scripted_chat import ScriptedChat

from langchain_petals.cli.conversations.chat_session import COMMANDS, ChatSession
from langchain_petals.cli.conversations.conversation import Conversation

if TYPE_CHECKING:
    from pathlib import Path

TOOLS = '''
def double(a: int) -> int:
    """Double a number.

    It must be whole.
    """
    return 2 * a
'''


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    return tmp_path


def run(*lines: str, model: ScriptedChat | None = None) -> str:
    """Return what is shown for these lines."""
    shown, typed = io.StringIO(), list(lines)

    def read() -> str:
        if not typed:
            raise EOFError
        return typed.pop(0)

    console = Console(file=shown, soft_wrap=True, highlight=False)
    ChatSession(model or ScriptedChat(), Conversation(), console).run(read)
    return shown.getvalue()


def test_help_names_every_command() -> None:
    assert all(f"\n{name}" in "\n" + run("/help") for name in COMMANDS)


def test_an_unknown_command_says_which_there_are() -> None:
    shown = run("/quit", " /quit", "/exit", "count")
    assert "There is no /quit. There are /help, /system, /reset, /save, /load, /stats, /tools, /exit." in shown
    assert "Well: /quit" in shown  # after a space, it is a message
    assert "1 messages" not in shown  # nothing is read after the end


def test_the_system_message_is_set_shown_and_removed() -> None:
    shown = run("/system", "/system You are [b]brief[/b].", "count", "/reset", "count", "/system off", "count")
    assert "There is no system message." in shown
    assert "System message: You are [b]brief[/b]." in shown
    assert shown.count("2 messages, the first: You are [b]brief[/b].") == 2  # the second one after /reset
    assert "3 messages, the first: count" in shown


def test_a_saved_conversation_can_be_loaded_by_this_command_and_by_langchain(folder: Path) -> None:
    shown = run("/system Be brief.", "say hello", "/save chat.json", "/reset", "/load chat.json", "count")
    assert "Saved 3 messages in chat.json." in shown
    assert "Loaded 3 messages from chat.json." in shown
    assert "4 messages, the first: Be brief." in shown
    messages = messages_from_dict(json.loads((folder / "chat.json").read_text()))
    assert [(message.type, message.text) for message in messages] == [
        ("system", "Be brief."),
        ("human", "say hello"),
        ("ai", "hello "),
    ]
    assert stat.S_IMODE((folder / "chat.json").stat().st_mode) == 0o600
    assert {path.name for path in folder.iterdir()} == {"chat.json"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "{}",
        "[1]",
        '[{"type": "human"}]',
        '[{"type": "human", "data": {}}]',
        '[{"type": "nobody", "data": {"content": "x"}}]',
        '[{"type": "human", "data": {"content": 3}}]',
        '[{"type": "function", "data": {"content": "x", "name": "f"}}]',
        "[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_a_broken_file_is_an_error_and_the_conversation_stays(folder: Path, text: str | bytes) -> None:
    (folder / "broken.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    shown = run("say hello", "/load broken.json", "count")
    assert "Error: broken.json holds no conversation that /save wrote (" in shown
    assert "3 messages, the first: say hello" in shown


def test_files_that_cannot_be_read_or_written_are_errors(folder: Path) -> None:
    (folder / "letter.txt").write_text("Dear Sir")
    shown = run("/load nothing.json", "/save nowhere/chat.json", "/save letter.txt", "/save", "/load", "count")
    assert "Error: nothing.json: No such file or directory\n" in shown
    assert shown.count("No such file or directory\n") == 2
    assert "letter.txt is there and holds no conversation, so it is not replaced." in shown
    assert "Name a file: /save FILE" in shown
    assert "1 messages" in shown
    assert (folder / "letter.txt").read_text() == "Dear Sir"


def test_tools_are_named_run_and_removed(folder: Path) -> None:
    (folder / "chat_command_tools.py").write_text(TOOLS)
    model = ScriptedChat()
    shown = run(
        "/tools", "/tools chat_command_tools:double", "call double 21", "/tools off", "say bye", "/tools", model=model
    )
    assert "double(a): Double a number.\n" in shown
    assert "  calls double(a=21)\n  double returns 42\nThe result is 42\n" in shown
    assert shown.count("The model has no tools.") == 3
    assert [call.get("tools") for call in model.calls] == [["double"], ["double"], None]


def test_tools_that_cannot_be_had_leave_those_that_there_are(folder: Path) -> None:
    (folder / "chat_command_tools.py").write_text(TOOLS)
    shown = run("/tools chat_command_tools:double", "/tools nowhere:double", "call double 21")
    assert "Error: The tool 'nowhere:double' could not be imported." in shown
    assert "The result is 42" in shown


def test_stats_count_what_was_read_reused_and_written() -> None:
    shown = run("/stats", "say one two", "fail", "say three", "/stats")
    assert "There are no answers yet." in shown
    stats = dict(line.split(maxsplit=1) for line in shown.rpartition("answers ")[2].splitlines()[1:5])
    assert shown.rpartition("answers ")[2].startswith("  2\n")
    assert stats["written"].startswith("10 tokens, ")
    assert stats["written"].endswith(" tokens/s, in 6 trips")
    assert stats["read"] == "10 tokens, 4 of them reused (40%)"
    assert stats["context"] == "12 tokens"
    assert "route     blocks 0-1 on QmFirstServer111111\n" in shown
    assert "route     blocks 2-3 on QmSecondServer22222\n" in shown


def test_an_answer_that_the_limit_cut_off_says_so() -> None:
    assert "The answer was cut off by the limit on tokens; raise --max-tokens." in run("cut")


def test_a_conversation_that_is_too_long_says_how_to_make_room() -> None:
    shown = run("say one", "overflow", "count")
    assert "/reset makes room." in shown
    assert "Error: The prompt has 5000 tokens, but the context holds 4096" in shown
    assert "3 messages, the first: say one" in shown


def test_a_server_that_fails_in_the_middle_of_an_answer_is_named_after_it() -> None:
    assert "\nhalf and half\n  Blocks 0:2 on Qm\u241b[2J failed\n  5 tokens" in run("stumble")


# ---- files that hold no conversation, and cannot


@pytest.mark.parametrize("command", ["/save", "/load"])
def test_what_is_no_file_is_neither_read_nor_replaced(command: str, folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to("/dev/zero")
    (folder / "inner").mkdir()
    for name, said in {
        "pipe": "is no file, but a device or a pipe",
        "link": "is no file, but a device or a pipe",
        "inner": "Is a directory",
        "~nobody-has-this-name/x": "No such file or directory",
        "missing/x": "No such file or directory",
        "a\0b": f"Name a file: {command} FILE",
        "n" * 300: "File name too long",
    }.items():
        assert said in run("say one", f"{command} {name}"), name
    assert stat.S_ISFIFO((folder / "pipe").stat().st_mode)


def test_a_file_that_is_larger_than_any_conversation_is_not_read(folder: Path) -> None:
    with (folder / "large.json").open("wb") as file:
        file.truncate(2**40)  # takes no room
    for command in ("/load", "/save"):
        assert "is larger than any conversation" in run(f"{command} large.json")


def test_a_link_is_kept_and_what_it_leads_to_is_written(folder: Path) -> None:
    (folder / "link.json").symlink_to("real.json")
    run("say one", "/save link.json")
    assert (folder / "link.json").is_symlink()
    assert len(json.loads((folder / "real.json").read_text())) == 2
