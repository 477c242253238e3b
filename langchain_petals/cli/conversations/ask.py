"""`langchain-petals ask`: one answer to one question, for people and for scripts."""

import json as json_module
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from langchain_petals.cli.conversations.answer_view import warnings_as_notes
from langchain_petals.cli.conversations.conversation import Conversation
from langchain_petals.cli.conversations.one_answer import read_input, show_one_answer
from langchain_petals.cli.conversations.opened_model import opened_model
from langchain_petals.cli.conversations.tools import tools_named
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
    checked_text,
)
from langchain_petals.cli.terminal import make_console, running_command
from langchain_petals.environment import MODEL_VARIABLE
from langchain_petals.errors import InvalidRequestError


def ask(
    model: ModelArgument = None,
    question: Annotated[
        str | None,
        typer.Argument(
            metavar="[QUESTION]",
            help="With --local or LANGCHAIN_PETALS_MODEL, a single argument is the question.",
            show_default=False,
            callback=checked_text,
        ),
    ] = None,
    *,
    initial_peers: InitialPeers = None,
    dht_prefix: DhtPrefix = None,
    system: System = None,
    temperature: Temperature = None,
    max_tokens: MaxTokens = None,
    schema: Annotated[
        str | None,
        typer.Option(metavar="FILE_OR_JSON", help="JSON schema; the answer is JSON that fits it.", show_default=False),
    ] = None,
    tools: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="Function that the model may call, from the current folder or installed. May be given again.",
            show_default=False,
        ),
    ] = None,
    local: Local = False,
    json: Json = False,
) -> None:
    """Answer one question, from arguments, from piped input, or from both.

    With both, the input follows the question: `cat file | langchain-petals ask MODEL "Summarise"`.
    """
    with running_command():
        notes, reading = make_console(stderr=True), PromptReading()
        if question is None and (local or os.environ.get(MODEL_VARIABLE, "").strip()):
            model, question = None, checked_text(model)
        message = "\n\n".join(filter(None, [question, read_input()]))
        if not message:
            msg = 'There is no question. Give one, as in `ask MODEL "Who are you?"`, or pipe it to the command.'
            raise typer.BadParameter(msg)
        options: dict[str, Any] = {} if schema is None else {"response_format": _format_of(schema)}
        found = tools_named(tools or ())
        with (
            warnings_as_notes(notes),
            opened_model(
                notes,
                model,
                initial_peers,
                dht_prefix,
                local=local,
                temperature=temperature,
                max_tokens=max_tokens,
                on_prefill=reading,
            ) as chat_model,
        ):
            from langchain_core.messages import HumanMessage  # noqa: PLC0415 - not needed for `--help`

            messages = [*Conversation(system).messages, HumanMessage(message)]
            turn = Turn(chat_model, messages, found, reading, **options)
            show_one_answer(turn, as_json=json, must_be_whole=schema is not None)


def _format_of(given: str) -> dict[str, Any]:
    """Return the `response_format` of the schema that an option holds, or names."""
    is_text = given.lstrip().startswith("{")
    where = "--schema" if is_text else given
    text = given if is_text else _text_of(given)
    try:
        schema = json_module.loads(text)
    except (ValueError, RecursionError) as error:
        msg = f"{where} is no JSON: {error}"
        raise InvalidRequestError(msg) from error
    if not isinstance(schema, dict):
        msg = f"{where} is no JSON schema: it must be an object, such as {{'type': 'object', 'properties': ...}}."
        raise InvalidRequestError(msg)
    response_format = {"type": "json_object", "schema": schema}
    from langchain_petals.chat import ResponseFormat  # noqa: PLC0415 - not needed for `--help`
    from langchain_petals.grammars import json_grammar  # noqa: PLC0415 - as above

    # raises for what is no schema now, and not after the model was loaded
    found = ResponseFormat.from_call({"response_format": response_format})
    if found.schema is not None:
        json_grammar(found.schema, strict=found.strict)
    return response_format


def _text_of(name: str) -> str:
    """Return the text of a file."""
    path = os.path.expanduser(name)  # noqa: PTH111 - Path's raises if there is no such user
    if not name.strip():
        msg = "--schema is empty; give a file with a JSON schema, or the schema itself."
        raise InvalidRequestError(msg)
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        msg = f"{name} is no UTF-8 text (byte {error.start}), and so no JSON schema."
        raise InvalidRequestError(msg) from error
