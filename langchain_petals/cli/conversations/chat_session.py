"""The conversation of `chat` at a terminal: messages are answered, and what begins with a slash is a command."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_petals.cli.conversations.answer_view import (
    CUT_OFF,
    AnswerView,
    described_cost,
    described_route,
    is_cut_off,
    problem_of,
)
from langchain_petals.cli.conversations.tools import tools_named
from langchain_petals.cli.conversations.turn import Cost, PromptReading, Turn
from langchain_petals.cli.plain_text import harmless
from langchain_petals.cli.terminal import keys_unseen, sentence_of
from langchain_petals.errors import PetalsError, PromptTooLongError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from langchain_core.tools import BaseTool
    from rich.console import Console

    from langchain_petals import ChatPetals
    from langchain_petals.cli.conversations.conversation import Conversation

_OFF = "off"

HELP = {
    "/help": "show this",
    "/system TEXT": "tell the model who it is; /system shows it, /system off removes it",
    "/reset": "forget the conversation, and keep the system message",
    "/save FILE": "write the conversation to a file",
    "/load FILE": "go on with the conversation of a file",
    "/stats": "show what was read, reused and written, and the route",
    "/tools MODULE:FUNCTION": "let the model call functions; /tools lists them, /tools off removes them",
    "/exit": "end, as Ctrl-D does",
}
"""Commands, and what they do."""

COMMANDS = tuple(name.split()[0] for name in HELP)


class ChatSession:
    """A conversation in the terminal.

    Args:
        model: The model.
        conversation: The conversation to begin with.
        console: The terminal.
        reading: What the model calls as `on_prefill`.
    """

    def __init__(
        self, model: ChatPetals, conversation: Conversation, console: Console, reading: PromptReading | None = None
    ) -> None:
        self._model, self._conversation, self._console = model, conversation, console
        self._reading = reading or PromptReading()
        self._view = AnswerView(console, console, shows_reasoning=True)
        self._tools: list[BaseTool] = []
        self._cost, self._last = Cost(), Cost()
        self._route: list[tuple[str, range]] = []
        self._commands: Mapping[str, Callable[[str], Any]] = {
            "/help": self._help,
            "/system": self._system,
            "/reset": self._reset,
            "/save": self._save,
            "/load": self._load,
            "/stats": self._stats,
            "/tools": self._choose_tools,
        }

    def run(self, read: Callable[[], str]) -> None:
        """Answer what `read` returns until it raises `EOFError`, or returns `/exit`."""
        while True:
            try:
                text = read()
            except EOFError:
                return
            command, _, rest = text.strip().partition(" ")
            if not command:
                continue
            if command == "/exit":
                return
            try:
                if text.startswith("/"):
                    self._run_command(command, rest.strip())
                else:
                    self._answer(text.strip())
            except (PetalsError, OSError) as error:
                self._say(f"Error: {sentence_of(error)}\n", "red")

    def _say(self, text: str, style: str | None = None) -> None:
        # at a terminal, rich breaks lines between words
        self._console.print(harmless(text), style=style, markup=False, soft_wrap=not self._console.is_terminal)

    # ---- messages

    def _answer(self, text: str) -> None:
        from langchain_core.messages import HumanMessage  # noqa: PLC0415 - not needed for `--help`

        question = HumanMessage(text)
        turn = Turn(self._model, [*self._conversation.messages, question], self._tools, self._reading)
        self._say("")
        try:
            with keys_unseen():
                self._view.show(turn)
        except KeyboardInterrupt:
            self._keep_stopped(question, turn)
            return
        except PetalsError as error:
            self._cost += turn.cost
            rest = " /reset makes room." if isinstance(error, PromptTooLongError) else ""
            self._say(f"  No answer. Your message is not kept; the Up key brings it back.{rest}", "yellow")
            raise
        self._conversation.turns += [question, *turn.messages]
        self._finish(turn)

    def _keep_stopped(self, question: Any, turn: Turn) -> None:
        """Keep what there is of a stopped answer, if the conversation can go on from there."""
        from langchain_core.messages import AIMessage  # noqa: PLC0415 - not needed for `--help`

        self._cost += turn.cost
        if turn.partial.strip():
            self._conversation.turns += [question, *turn.messages, AIMessage(turn.partial)]
            self._say("  Stopped. The conversation goes on from here.\n", "yellow")
        else:
            self._say("  Stopped. Your message is not kept; the Up key brings it back.\n", "yellow")

    def _finish(self, turn: Turn) -> None:
        self._cost, self._last = self._cost + turn.cost, turn.costs[-1]
        self._view.note(described_cost(turn.cost))
        route = self._model.route
        if route != self._route:
            self._view.note(f"route: {described_route(route)}")
            self._route = route
        problem = problem_of(turn) or (CUT_OFF if is_cut_off(turn) else None)
        if problem is not None:
            self._view.note(problem, "yellow")
        self._say("")

    # ---- commands

    def _run_command(self, name: str, rest: str) -> None:
        command = self._commands.get(name)
        if command is None:
            self._say(f"There is no {name}. There are {', '.join(COMMANDS)}.", "red")
            self._say("To send a message that begins with a slash, type a space before it.")
        else:
            command(rest)
        self._say("")

    def _help(self, _: str) -> None:
        from rich.table import Table  # noqa: PLC0415 - not needed for `--help`
        from rich.text import Text  # noqa: PLC0415 - as above

        table = Table.grid(padding=(0, 2))
        for name, what in HELP.items():
            table.add_row(Text(name, no_wrap=True), Text(what))
        self._console.print(table, soft_wrap=False)
        self._say("\nEnter sends. A backslash at the end of a line, or Alt-Enter, begins a new line.")
        self._say("Ctrl-C stops an answer; at the prompt, it ends the program, as Ctrl-D does.")

    def _system(self, text: str) -> None:
        if text:
            self._conversation.system = None if text == _OFF else text
        shown = self._conversation.system
        self._say("There is no system message." if shown is None else f"System message: {shown}")

    def _reset(self, _: str) -> None:
        self._conversation.turns = []
        self._say("The conversation is forgotten.")

    def _save(self, name: str) -> None:
        if path := self._path(name, "/save"):
            self._conversation.save(path)
            self._say(f"Saved {_counted(self._conversation)} in {path}.")

    def _load(self, name: str) -> None:
        if path := self._path(name, "/load"):
            self._conversation.load(path)
            self._say(f"Loaded {_counted(self._conversation)} from {path}.")

    def _path(self, name: str, command: str) -> Path | None:
        if not name or "\0" in name:
            self._say(f"Name a file: {command} FILE", "red")
            return None
        return Path(os.path.expanduser(name))  # noqa: PTH111 - Path's raises if there is no such user

    def _stats(self, _: str) -> None:
        cost = self._cost
        if not cost.answers:
            self._say("There are no answers yet.")
            return
        speed = "" if cost.speed is None else f", {cost.speed:.1f} tokens/s"
        share = f" ({cost.reused / cost.read:.0%})" if cost.read else ""
        limit = (self._model.profile or {}).get("max_input_tokens")
        used = self._last.read + self._last.written
        lines = {
            "answers": f"{cost.answers:,}",
            "written": f"{cost.written:,} tokens{speed}, in {cost.trips:,} trips",
            "read": f"{cost.read:,} tokens, {cost.reused:,} of them reused{share}",
            "waited": f"{cost.wait:.1f} s for first tokens",
            "context": f"{used:,} tokens" + ("" if limit is None else f" of {limit:,}"),
        }
        for name, value in lines.items():
            self._say(f"{name:10}{value}")
        for peer, blocks in self._model.route:
            self._say(f"{'route':10}{described_route([(peer, blocks)], whole=True)}")

    def _choose_tools(self, names: str) -> None:
        if names:
            self._tools = [] if names == _OFF else tools_named(names.split())
        if not self._tools:
            self._say("The model has no tools.")
        for tool in self._tools:
            summary = tool.description.strip().splitlines()[0] if tool.description.strip() else ""
            self._say(f"{tool.name}({', '.join(tool.args)}): {summary}")


def _counted(conversation: Conversation) -> str:
    number = len(conversation.messages)
    return "1 message" if number == 1 else f"{number} messages"
