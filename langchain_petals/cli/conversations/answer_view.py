"""Shows a turn while it happens: the wait, the text, calls of tools and their results, and what it cost."""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from typing import TYPE_CHECKING, Any

from langchain_petals.cli.plain_text import WordWrap, harmless
from langchain_petals.progress import is_on, progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from langchain_petals.cli.conversations.turn import Cost, Turn

_LONGEST_RESULT = 400  # characters of a tool's arguments and results; the model reads all
_LONGEST_ROUTE = 6  # servers that are named after an answer; `/stats` names all


class AnswerView:
    """Writes answers to one stream, and notes about them to the same one or another.

    Args:
        answers: Where the model's text goes; its lines are wrapped if it is a terminal.
        notes: Where calls, results and costs go.
        shows_reasoning: Whether the model's reasoning is a note.
    """

    def __init__(self, answers: Console, notes: Console, *, shows_reasoning: bool = False) -> None:
        self._answers, self._notes, self._shows_reasoning = answers, notes, shows_reasoning
        self._wrap = WordWrap(lambda: answers.width) if answers.is_terminal else None
        self._line_is_open = self._reasons = False

    def show(self, turn: Turn) -> None:
        """Run a turn, and show it. The turn has ended when this returns or raises.

        Raises:
            PetalsError: An answer failed.
            KeyboardInterrupt: Ctrl-C was pressed.
        """
        with _incidents() as incidents, contextlib.closing(iter(turn)) as events:
            try:
                self._show_all(turn, events)
            finally:
                self._end_text()
                for incident in incidents:
                    self.note(incident, "yellow")

    def _show_all(self, turn: Turn, events: Iterator[Any]) -> None:
        while True:
            # while a tool runs, the terminal is its own
            with _waiting(turn) if turn.asks_model else contextlib.nullcontext():
                event = next(events, None)
            if event is None:
                return
            if isinstance(event, dict):
                self._end_text()
                self.note(f"calls {event['name']}({_arguments(event['args'])})", "cyan")
            elif event.type == "tool":
                style = "red" if event.status == "error" else "cyan"
                self.note(f"{event.name} returns {_shortened(str(event.text))}", style)
            else:
                self._show_chunk(event)

    def _show_chunk(self, chunk: Any) -> None:
        reasoning = chunk.additional_kwargs.get("reasoning_content")
        if reasoning and self._shows_reasoning:
            self._reasons = True
            self._write(str(reasoning), "dim italic")
        if not chunk.text:
            return
        if self._reasons:
            self._end_text()
        # models write a space or an empty line first, as their templates taught them
        self._write(str(chunk.text) if self._line_is_open else str(chunk.text).lstrip())

    def _write(self, text: str, style: str | None = None) -> None:
        self._line_is_open = self._line_is_open or bool(text)
        text = harmless(text)
        self._put(text if self._wrap is None else self._wrap.add(text), style)

    def _put(self, text: str, style: str | None = None) -> None:
        if style is not None and self._answers.is_terminal:
            self._answers.print(text, end="", style=style, markup=False)
        else:  # as it is: rich would replace tabs
            self._answers.file.write(text)
        self._answers.file.flush()

    def _end_text(self) -> None:
        if self._line_is_open:
            rest = "" if self._wrap is None else self._wrap.end()
            self._put(rest + "\n", "dim italic" if self._reasons else None)
        self._line_is_open = self._reasons = False

    def note(self, text: str, style: str = "dim") -> None:
        """Show a line about an answer."""
        self._notes.print(f"  {harmless(text)}", style=style, markup=False, soft_wrap=not self._notes.is_terminal)


@contextlib.contextmanager
def _incidents() -> Iterator[list[str]]:
    """Collect what is logged while the block runs, such as servers that failed; else it would be in the text."""
    handler = _Collector(logging.WARNING)
    logger = logging.getLogger("langchain_petals")
    logger.addHandler(handler)
    try:
        yield handler.texts
    finally:
        logger.removeHandler(handler)


class _Collector(logging.Handler):
    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


@contextlib.contextmanager
def _waiting(turn: Turn) -> Iterator[None]:
    """Show what is waited for until the first token."""
    with progress("Preparing the prompt") as say:
        turn.reading.show = say
        if is_on():
            say(f"Reading the prompt: {turn.prompt_tokens:,} tokens")
        try:
            yield
        finally:
            turn.reading.show = _say_nothing


def _say_nothing(_: str) -> None:
    pass


def _arguments(arguments: dict[str, Any]) -> str:
    return _shortened(", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in arguments.items()))


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_RESULT else f"{text[:_LONGEST_RESULT]} ... ({len(text):,} characters)"


def described_cost(cost: Cost) -> str:
    """Return one line about what a turn cost."""
    speed = "" if cost.speed is None else f"{cost.speed:.1f} tokens/s, "
    prompt = "prompt" if cost.answers == 1 else f"{cost.answers} prompts"
    reused = f", {cost.reused:,} reused" if cost.reused else ""
    return f"{cost.written:,} tokens, {speed}first after {cost.wait:.1f} s; {prompt} {cost.read:,} tokens{reused}"


def described_route(route: Sequence[tuple[str, range]], *, whole: bool = False) -> str:
    """Return the servers of a route, and their blocks.

    Args:
        route: Peer ids and blocks.
        whole: Whether to show all servers and whole peer ids.
    """
    shown = route if whole else route[:_LONGEST_ROUTE]
    parts = [
        f"{_blocks(blocks)} on {harmless(peer) if whole else '...' + harmless(peer[-6:])}" for peer, blocks in shown
    ]
    rest = len(route) - len(shown)
    return ", ".join([*parts, *([f"and {rest} more"] if rest else [])])


def _blocks(blocks: range) -> str:
    return f"block {blocks[0]}" if len(blocks) == 1 else f"blocks {blocks[0]}-{blocks[-1]}"


def problem_of(turn: Turn) -> str | None:
    """Return why a turn's last answer is not what was asked for, as a sentence; None if it is."""
    answer = turn.answer
    if answer is not None and answer.invalid_tool_calls:
        broken = answer.invalid_tool_calls[0]
        return f"The call of {broken['name']} was not run: {broken['error']}"
    if answer is not None and answer.response_metadata.get("schema_error"):
        return f"The answer breaks its schema: {answer.response_metadata['schema_error']}"
    return None


def is_cut_off(turn: Turn) -> bool:
    """Return whether the limit on tokens ended a turn's last answer."""
    return turn.answer is not None and turn.answer.response_metadata.get("finish_reason") == "length"


CUT_OFF = "The answer was cut off by the limit on tokens; raise --max-tokens."
"""What is said about such an answer."""


@contextlib.contextmanager
def warnings_as_notes(console: Console) -> Iterator[None]:
    """Show warnings as sentences while the block runs."""
    with warnings.catch_warnings():

        def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
            if issubclass(category, UserWarning):
                text = f"Warning: {harmless(str(message))}"
                console.print(text, style="yellow", markup=False, soft_wrap=not console.is_terminal)

        warnings.showwarning = show
        yield
