"""What a person types in `chat`: lines with a history, and several lines as one message."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

import platformdirs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from types import FrameType

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

    class KeptHistory(FileHistory):
        """A history in a file; what cannot be written there is known until the program ends."""

        def store_string(self, string: str) -> None:
            # an error would end the prompt: the disk may be full, and typed bytes may be no text
            with contextlib.suppress(OSError, UnicodeError):
                super().store_string(string)

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
    return KeptHistory(str(path)), None


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
        with _signals_end_the_prompt_first():
            return self._session.prompt([("ansigreen bold", PROMPT)])


@contextlib.contextmanager
def _signals_end_the_prompt_first() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the prompt of the block, and then do what they do without it.

    A handler that raises would raise in whatever task or callback the prompt's event loop is at, which shows a
    traceback and may wait for a key.
    """
    from prompt_toolkit.application import get_app_session  # noqa: PLC0415 - not needed for `--help`

    session = get_app_session()
    received: list[int] = []

    def end() -> None:
        if session.app is not None and session.app.future is not None and not session.app.future.done():
            session.app.exit(exception=EOFError)

    def receive(number: int, frame: FrameType | None) -> None:
        loop = None if session.app is None else session.app.loop
        if loop is None:  # the prompt has not begun, or is over
            caught[number](number, frame)
        else:
            received.append(number)
            loop.call_soon_threadsafe(end)

    handlers = {int(number): signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    caught = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in caught:
        signal.signal(number, receive)
    try:
        yield
    finally:
        for number, handler in caught.items():
            signal.signal(number, handler)
        if received:  # as if it came now
            signal.raise_signal(received[0])


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
