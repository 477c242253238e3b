"""`langchain-petals chat`: a conversation in the terminal, or one answer to piped input."""

import typer

from langchain_petals.cli.conversations.answer_view import warnings_as_notes
from langchain_petals.cli.conversations.chat_session import COMMANDS, ChatSession
from langchain_petals.cli.conversations.conversation import Conversation
from langchain_petals.cli.conversations.one_answer import read_input, show_one_answer
from langchain_petals.cli.conversations.opened_model import opened_model
from langchain_petals.cli.conversations.turn import PromptReading, Turn
from langchain_petals.cli.options import (
    DhtPrefix,
    InitialPeers,
    Json,
    Local,
    MaxTokens,
    ModelArgument,
    System,
    Temperature,
)
from langchain_petals.cli.plain_text import harmless
from langchain_petals.cli.terminal import can_ask, make_console, running_command


def chat(
    model: ModelArgument = None,
    *,
    initial_peers: InitialPeers = None,
    dht_prefix: DhtPrefix = None,
    system: System = None,
    temperature: Temperature = None,
    max_tokens: MaxTokens = None,
    local: Local = False,
    json: Json = False,
) -> None:
    """Talk to a model in the terminal; piped input is one message, and gets one answer."""
    with running_command():
        console, notes, reading = make_console(), make_console(stderr=True), PromptReading()
        talks = can_ask(console)
        if talks and json:
            msg = "A conversation in the terminal has no JSON; pipe a message to the command."
            raise typer.BadParameter(msg)
        text = "" if talks else read_input()
        if not talks and not text:
            msg = "There is no message. Pipe one to the command, or run it in a terminal."
            raise typer.BadParameter(msg)
        conversation = Conversation(system)
        with (
            warnings_as_notes(notes),
            opened_model(
                console if talks else notes,
                model,
                initial_peers,
                dht_prefix,
                local=local,
                temperature=temperature,
                max_tokens=max_tokens,
                on_prefill=reading,
            ) as chat_model,
        ):
            if talks:
                from langchain_petals.cli.conversations.chat_input import ChatInput, open_history  # noqa: PLC0415 - not for `--help`

                history, problem = open_history()
                if problem is not None:
                    console.print(problem, style="yellow", markup=False)
                name = harmless(chat_model.model_name.rstrip("/").rpartition("/")[2])
                console.print(f"Talking to {name}. /help lists the commands; Ctrl-D ends.\n", markup=False)
                ChatSession(chat_model, conversation, console, reading).run(ChatInput(history, COMMANDS).read)
            else:
                from langchain_core.messages import HumanMessage  # noqa: PLC0415 - not needed for `--help`

                turn = Turn(chat_model, [*conversation.messages, HumanMessage(text)], reading=reading)
                show_one_answer(turn, as_json=json)
