"""The conversation of `chat`, and the file that holds it."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from langchain_petals.errors import InvalidRequestError

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

_KINDS = ("system", "human", "ai", "tool")
_MOST_BYTES = 2**26  # of a file


class Conversation:
    """Messages, with the system message apart.

    Args:
        system: Text of the system message; None for none.

    Attributes:
        system: The same.
        turns: The other messages.
    """

    def __init__(self, system: str | None = None) -> None:
        self.system = system
        self.turns: list[BaseMessage] = []

    @property
    def messages(self) -> list[BaseMessage]:
        """All messages, the system message first."""
        from langchain_core.messages import SystemMessage  # noqa: PLC0415 - not needed for `--help`

        return [*([] if self.system is None else [SystemMessage(self.system)]), *self.turns]

    def save(self, path: Path) -> None:
        """Write the messages as JSON, in the form of LangChain's `messages_to_dict`.

        Args:
            path: The file. One that holds a conversation is replaced.

        Raises:
            InvalidRequestError: There is a file that holds something else.
            OSError: It could not be written.
        """
        from langchain_core.messages import messages_to_dict  # noqa: PLC0415 - not needed for `--help`

        path = path.resolve()  # what a link leads to is replaced, not the link
        if path.exists():
            _check_file(path)
        if path.exists() and path.stat().st_size:
            try:
                _read(path)
            except InvalidRequestError as error:
                msg = f"{path} is there and holds no conversation, so it is not replaced. Give another name."
                raise InvalidRequestError(msg) from error
        text = json.dumps(messages_to_dict(self.messages), ensure_ascii=False, indent=1) + "\n"
        # whole or not at all; and as a temporary file, only for its owner to read
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def load(self, path: Path) -> None:
        """Replace the messages with those of a file; if that fails, nothing is changed.

        Args:
            path: A file that `save` wrote, or another one in the form of LangChain's `messages_to_dict`.

        Raises:
            InvalidRequestError: It holds no conversation.
            OSError: It could not be read.
        """
        messages = _read(path)
        first = messages[0] if messages and messages[0].type == "system" else None
        self.system = None if first is None else str(first.text)
        self.turns = messages if first is None else messages[1:]


def _read(path: Path) -> list[BaseMessage]:
    from langchain_core.messages import messages_from_dict  # noqa: PLC0415 - not needed for `--help`

    _check_file(path)
    try:
        found = json.loads(path.read_bytes())
        if not isinstance(found, list):
            msg = "it is not a list of messages"
            raise TypeError(msg)  # noqa: TRY301 - one of many ways to be wrong
        messages = messages_from_dict(found)
        kinds = {message.type for message in messages} - {*_KINDS}
        if kinds:
            msg = f"it has a message of type {min(kinds)!r}"
            raise ValueError(msg)  # noqa: TRY301 - as above
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        msg = f"{path} holds no conversation that /save wrote ({reason:.200}). Nothing was changed."
        raise InvalidRequestError(msg) from error
    return messages


def _check_file(path: Path) -> None:
    """Raise an error for what is no file of a usual size: reading a pipe or a device might never end."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not path.is_file() and path.exists():
        msg = f"{path} is no file, but a device or a pipe. Name a file."
        raise InvalidRequestError(msg)
    if path.is_file() and path.stat().st_size > _MOST_BYTES:
        msg = f"{path} is larger than any conversation that /save writes. Name another file."
        raise InvalidRequestError(msg)
