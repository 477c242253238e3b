"""Write docs/errors.md from `langchain_petals.errors`: what each error means, what it looks like, and what to do.

The texts are those of real errors, made here in the ways in which the package makes them. A test fails if the page and
the package differ.

Usage: python scripts/write_errors_page.py
"""

from __future__ import annotations

import inspect
import re
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from huggingface_hub import constants
from langchain_core import exceptions as langchain
from pydantic import SecretStr

from langchain_petals import Petals, errors
from langchain_petals.chat.templates.builtin import NAMES
from langchain_petals.engine.loading.families import family_of
from langchain_petals.engine.loading.load import _explaining_the_public_swarm
from langchain_petals.engine.network.network import unreachable
from langchain_petals.hub import Repository, missing
from langchain_petals.hub.errors import Source, translated
from langchain_petals.swarm.interpreter import NOT_FOUND, servers_python

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAGE = Path(__file__).parents[1] / "docs" / "errors.md"
TO_DO = "What to do: "

INTRODUCTION = """\
# When things fail

<!-- Written by scripts/write_errors_page.py from langchain_petals/errors.py: change these, and run the script. -->

No call waits for ever. Each failure is an error of `langchain_petals.errors`, and its text says what to do. All are \
`PetalsError`. Most are also one of LangChain's own types, so that `with_retry`, `with_fallbacks` and middleware treat \
them like those of any provider.

```python
from langchain_petals import Petals
from langchain_petals.errors import InvalidRequestError
from langchain_petals.swarm import LocalSwarm

with LocalSwarm() as swarm:
    llm = Petals(**swarm.connection)
    try:
        llm.invoke("Human: Hello!\\nAI:", beams=3)
    except InvalidRequestError as error:
        print(error)
```

```text
'beams' is no generation option; did you mean num_beams?
```

A constructor raises errors of arguments; with `preload=True`, also those of loading. Other errors come with the first \
call. A traceback shows your line, LangChain's lines and one of this package. The logger `langchain_petals.tracebacks` \
has the others, at level DEBUG.

**A server that dies in the middle of an answer causes no error** as long as another server holds its blocks. The \
answer pauses and goes on; if it is greedy, with the same tokens.

## Another swarm, if one fails

`SwarmError` is the base of what a swarm can do wrong. Here nobody listens at the first swarm's address:

```python
from langchain_petals import ChatPetals
from langchain_petals.errors import SwarmError
from langchain_petals.swarm import LocalSwarm

peer = "12D3KooWKwvkKNXC8T8GCFQsB4sUZG52kxrHuyT26ZWSEZnw2eFq"
with LocalSwarm() as swarm:
    here = swarm.connection
    gone = here | {"initial_peers": [f"/ip4/127.0.0.1/tcp/9/p2p/{peer}"]}
    chat = ChatPetals(**gone, connect_timeout=2).with_fallbacks(
        [ChatPetals(**here, temperature=0)], exceptions_to_handle=(SwarmError,)
    )
    print(chat.invoke("Who are you?").text)
```

```text
I am a tiny language model. My blocks live on a Petals swarm.
```
"""

GROUPS = {
    "The call": (
        errors.InvalidRequestError,
        errors.MissingChatTemplateError,
        errors.PromptTooLongError,
        errors.OutputLimitError,
        errors.DeadlineExceededError,
    ),
    "The model": (
        errors.UnsupportedModelError,
        errors.ModelLoadError,
        errors.ModelNotFoundError,
        errors.AccessDeniedError,
        errors.InvalidKeyError,
        errors.HubUnreachableError,
    ),
    "The swarm": (
        errors.SwarmError,
        errors.SwarmUnreachableError,
        errors.BlocksMissingError,
        errors.SpanFailedError,
    ),
    "Servers on this machine": (errors.PetalsNotInstalledError, errors.LocalSwarmError),
}

PEER = "/ip4/203.0.113.7/tcp/31337/p2p/12D3KooWKwvkKNXC8T8GCFQsB4sUZG52kxrHuyT26ZWSEZnw2eFq"


class HubError(Exception):
    """An error of huggingface_hub, whose types the package knows by their names."""

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        if status is not None:
            self.response = SimpleNamespace(status_code=status, headers={})


class RepositoryNotFoundError(HubError):
    """There is no such model, or it is hidden."""


class GatedRepoError(HubError):
    """The model is gated."""


class TransportError(HubError):
    """The hub did not answer."""


def raised_by(function: Callable[[], object]) -> errors.PetalsError:
    """Return the error of this package that a function raises."""
    try:
        function()
    except errors.PetalsError as error:
        return error
    msg = f"{function} raised nothing"
    raise RuntimeError(msg)


def of_the_public_swarm() -> None:
    with _explaining_the_public_swarm(()):
        raise errors.SwarmUnreachableError


def examples() -> Iterator[errors.PetalsError]:
    """Yield errors as users meet them, some classes several times."""
    yield raised_by(lambda: Petals(temprature=0))
    yield raised_by(lambda: Petals(initial_peers=["203.0.113.7:31337"]))
    yield errors.MissingChatTemplateError("my-org/my-model", NAMES)
    yield errors.PromptTooLongError(9120, 8192)
    yield errors.OutputLimitError(20, generated='{"city": "Oslo", "tem', needed=27)
    yield errors.OutputLimitError(20, generated='{"city": "Os"}', needed=14, ended_early=True, partial={"city": "Os"})
    yield errors.OutputLimitError(20, generated="aaaaaaaaaaaaaaaaaaaa", steered=False)
    yield errors.DeadlineExceededError(30, 112)
    yield raised_by(lambda: family_of({"model_type": "gpt2"}, "openai-community/gpt2"))
    with tempfile.TemporaryDirectory() as folder:
        yield type(error := missing(Repository(folder), "config.json"))(str(error).replace(folder, "models/my-model"))
    model, key = "my-org/my-model", SecretStr("hf_example")
    cached = Source(model, cache_dir="~/.cache/huggingface/hub")
    yield translated(RepositoryNotFoundError("404 Client Error", 404), Source(model), "config.json")
    yield translated(GatedRepoError("401 Client Error", 401), Source(model), "config.json")
    yield translated(GatedRepoError("403 Client Error", 403), Source(model, key=key), "config.json")
    yield translated(HubError("401 Client Error", 401), Source(model, key=key), "config.json")
    yield translated(TransportError("Name or service not known"), cached, "config.json")
    yield unreachable([PEER], TimeoutError(), 10)
    yield raised_by(of_the_public_swarm)
    yield errors.BlocksMissingError([12, 13, 14], "StableBeluga2-hf")
    yield errors.SpanFailedError(10, 20, 4, ConnectionResetError("Connection lost"))
    yield errors.PetalsNotInstalledError(NOT_FOUND)
    yield raised_by(lambda: servers_python("/no/such/python"))
    # as LocalSwarm says it; the log is a real one's end
    yield errors.LocalSwarmError(
        "Server 1 (blocks 0:16) was killed by signal 9 while starting. The end of its log "
        "(LocalSwarm(log_dir=...) keeps all of it):\n... [INFO] Loaded my-org/my-model block 11"
    )


def shown(error: errors.PetalsError) -> str:
    """Return an error as the last lines of a traceback show it, as a quotation."""
    text = str(error).replace(constants.ENDPOINT, "https://huggingface.co")
    lines = f"**{type(error).__name__}:** {escaped(text)}".splitlines()
    return "\n>\n".join(f"> {line}" for line in lines)


def escaped(text: str) -> str:
    """Return a text that Markdown shows as it is; what stands between backticks is code there, too."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([*_<\[\\])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)


def described(kind: type[errors.PetalsError]) -> tuple[str, str]:
    """Return what happened and what to do, from the docstring of an error."""
    happened, *paragraphs = inspect.cleandoc(kind.__doc__ or "").split("\n\n")
    advice = [" ".join(each.split()) for each in paragraphs if each.startswith(TO_DO)]
    if len(advice) != 1:
        msg = f"The docstring of {kind.__name__} needs one paragraph that begins with {TO_DO!r}."
        raise ValueError(msg)
    return " ".join(happened.split()), advice[0].removeprefix(TO_DO)


def section(kind: type[errors.PetalsError], of_it: list[errors.PetalsError]) -> str:
    happened, advice = described(kind)
    owners = {langchain.__name__: "LangChain's "}
    caught = ", ".join(f"{owners.get(base.__module__, '')}`{base.__name__}`" for base in kind.__bases__)
    retry = " A retry may help." if getattr(kind, "is_retryable", False) else ""
    parts = [
        f"### {kind.__name__}",
        happened,
        "\n\n<!-- another one -->\n\n".join(map(shown, of_it)),
        f"**What to do.** {advice}",
        f"It is also {caught}.{retry} [Attributes](api/errors.md#langchain_petals.errors.{kind.__name__})",
    ]
    return "\n\n".join(filter(None, parts))


def table() -> str:
    rows = ["| error | what happened | a retry may help |", "| --- | --- | --- |"]
    for kinds in GROUPS.values():
        for kind in kinds:
            name, retry = kind.__name__, "yes" if getattr(kind, "is_retryable", False) else ""
            rows.append(f"| [`{name}`](#{name.lower()}) | {described(kind)[0]} | {retry} |")
    return "\n".join(rows)


def page() -> str:
    """Return the text of the page."""
    made = list(examples())
    parts = [INTRODUCTION, f"## All errors\n\n{table()}\n"]
    for title, kinds in GROUPS.items():
        parts.append(f"## {title}\n")
        parts += [section(kind, [error for error in made if type(error) is kind]) + "\n" for kind in kinds]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
