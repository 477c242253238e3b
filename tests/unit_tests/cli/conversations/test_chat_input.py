"""What ends the prompt of `langchain-petals chat`."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.history import History
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from langchain_petals.cli.conversations.chat_input import ChatInput
from langchain_petals.cli.terminal import running_command

if TYPE_CHECKING:
    from collections.abc import Iterable


class EndingHistory(History):
    """A history that is read, as always, in a task beside the prompt, and during that a signal comes."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__()
        self._number = number

    def load_history_strings(self) -> Iterable[str]:
        signal.raise_signal(self._number)
        return []

    def store_string(self, string: str) -> None:
        raise NotImplementedError


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("terminal", ["xterm", "dumb"])
def test_a_signal_ends_the_prompt_whatever_it_does_at_that_moment(
    number: signal.Signals, terminal: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", terminal)
    handler = signal.getsignal(number)
    with (
        create_pipe_input() as keys,
        create_app_session(input=keys, output=DummyOutput()),
        pytest.raises(SystemExit) as ended,
        running_command(),
    ):
        ChatInput(EndingHistory(number), ["/help"]).read()
    assert ended.value.code == 128 + number
    assert capfd.readouterr() == ("", "")
    assert signal.getsignal(number) is handler
