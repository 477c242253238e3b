"""What a person types in `chat`: lines with a history, and several lines as one message."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Any

import platformdirs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import History
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

PROMPT = "> "


def history_path() -> Path:
    """Return the file of what was typed."""
    return platformdirs.user_state_path("langchain-petals") / "chat_history"


def open_history() -> tuple[History, str | None]:
    """Return the history, and why it is not kept, if so. Only its owner can read the file."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory  # noqa: PLC0415 - not needed for `--help`

    path = history_path()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)
    except OSError as error:
        return InMemoryHistory(), f"What you type is not kept in {path}: {error.strerror}."
    return FileHistory(str(path)), None


class ChatInput:
    """Reads messages and commands from a terminal.

    Enter sends; after a backslash at the end of a line, or with Alt, it begins a new line. Pasted lines are one
    message.

    Args:
        history: What was typed before.
        commands: Names of commands, which Tab completes.
    """

    def __init__(self, history: History, commands: Sequence[str]) -> None:
        from prompt_toolkit import PromptSession  # noqa: PLC0415 - not needed for `--help`
        from prompt_toolkit.completion import WordCompleter  # noqa: PLC0415 - as above
        from prompt_toolkit.output.color_depth import ColorDepth  # noqa: PLC0415 - as above
        from prompt_toolkit.shortcuts import CompleteStyle  # noqa: PLC0415 - as above

        colours = None if not os.environ.get("NO_COLOR") else ColorDepth.DEPTH_1_BIT
        self._session: PromptSession[str] = PromptSession(
            history=history,
            multiline=True,
            key_bindings=_keys(),
            completer=WordCompleter(list(commands), sentence=True),
            complete_while_typing=False,
            complete_style=CompleteStyle.READLINE_LIKE,  # a menu would keep lines free below the prompt
            prompt_continuation=lambda width, *_: " " * width,
            color_depth=colours,
            enable_open_in_editor=False,
        )

    def read(self) -> str:
        """Return the next message or command.

        Raises:
            EOFError: Ctrl-D was pressed on an empty line.
            KeyboardInterrupt: Ctrl-C was pressed.
            SystemExit: A signal ended the command.
        """
        numbers = (signal.SIGTERM, signal.SIGHUP)
        handlers = {number: handler for number in numbers if callable(handler := signal.getsignal(number))}
        try:
            return self._session.prompt([("ansigreen bold", PROMPT)], pre_run=lambda: self._end_by(handlers))
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _end_by(self, handlers: Mapping[signal.Signals, Any]) -> None:
        """Let signals end the prompt from outside of its tasks, which would show the end as their error."""
        loop, app = asyncio.get_running_loop(), self._session.app

        def end(number: signal.Signals) -> None:
            try:
                handlers[number](number, None)
            except SystemExit as ended:
                if not app.is_done:
                    app.exit(exception=ended)

        for number in handlers:
            loop.add_signal_handler(number, end, number)


def _keys() -> KeyBindings:
    from prompt_toolkit.key_binding import KeyBindings  # noqa: PLC0415 - not needed for `--help`

    keys = KeyBindings()

    @keys.add("enter")
    def send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.text_before_cursor.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.newline(copy_margin=False)
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def begin_line(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    return keys
