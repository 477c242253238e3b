"""What `langchain-petals demo` prints; swarm and model are stand-ins."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import pytest
from command import run

import langchain_petals
from langchain_petals import swarm as swarms
from langchain_petals.cli.servers import environment
from langchain_petals.errors import InvalidRequestError, LocalSwarmError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scripted_uv import ScriptedUv
    from typing_extensions import Self


class FakeServer:
    """A server of no swarm."""

    def __init__(self, blocks: range) -> None:
        self.blocks, self.pid = blocks, 4000 + blocks.start


class FakeSwarm:
    """A swarm of nobody."""

    open = 0

    def __init__(self, *, servers: int) -> None:
        if servers > 4:
            msg = f"servers={servers} is too many"
            raise InvalidRequestError(msg)
        self.connection = {"model": "folder"}
        self.servers = [FakeServer(range(4 * i // servers, 4 * (i + 1) // servers)) for i in range(servers)]

    def __enter__(self) -> Self:
        FakeSwarm.open += 1
        return self

    def __exit__(self, *_: object) -> None:
        FakeSwarm.open -= 1


class FakePetals:
    """Answers with its prompt's words, and some markup."""

    def __init__(self, **fields: Any) -> None:
        assert fields == {"model": "folder", "temperature": 0, "preload": True}

    def stream(self, prompt: str, stop: list[str]) -> Iterator[str]:
        assert FakeSwarm.open == 1
        assert stop == ["\nHuman:"]
        question = prompt.removeprefix("Human: ").removesuffix("\nAI:")
        yield from [" ", "You", " ", "said", " [b]", question, "[/b]\n", ""]

    def get_num_tokens(self, text: str) -> int:
        return len(text.split())


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeSwarm.open = 0
    monkeypatch.setattr(swarms, "LocalSwarm", FakeSwarm)
    monkeypatch.setattr(langchain_petals, "Petals", FakePetals)
    monkeypatch.setenv("LANGCHAIN_PETALS_SERVER_PYTHON", sys.executable)


def test_the_demo_says_what_it_does_and_streams_plain_text() -> None:
    result = run("demo", "--prompt", "What is [red]?")
    assert result.exit_code == 0
    assert re.sub(r"\d+\.\d s|\d+ tokens/s", "#", result.output) == (
        "Starting a swarm of 2 servers on this machine ... #\n"
        "  blocks 0 to 1: process 4000\n"
        "  blocks 2 to 3: process 4002\n"
        "Loading the client: tokenizer, embeddings and output layer ... #\n"
        "\n"
        "Human: What is [red]?\n"
        "AI: You said [b]What is [red]?[/b]\n"
        "\n"
        "\n"
        "5 tokens at #; each went through 2 servers.\n"
        "The swarm is closed, and all its processes have ended. The same in Python:\n"
        "\n"
        "from langchain_petals import Petals\n"
        "from langchain_petals.swarm import LocalSwarm\n"
        "\n"
        "with LocalSwarm() as swarm:\n"
        "    llm = Petals(**swarm.connection, temperature=0)\n"
        '    for piece in llm.stream("Human: Hello!\\nAI:"):\n'
        '        print(piece, end="", flush=True)\n'
        "\n"
        "What to try next:\n"
        "\n"
        "langchain-petals chat --local   a conversation with this model\n"
        "langchain-petals swarm          a swarm for your own programs\n"
        "langchain-petals status         which models the public swarm has\n"
        "langchain-petals --help         all commands\n"
    )
    assert FakeSwarm.open == 0


def test_the_demo_can_run_on_one_server() -> None:
    assert "swarm of 1 server on" in run("demo", "--servers", "1").output


def test_without_a_prompt_prepared_questions_are_asked() -> None:
    output = run("demo", "--servers", "4").output
    assert "  block 3: process 4003\n" in output
    assert re.findall("Human: (.*)\nAI: You said", output) == [
        "Hello!",
        "Who are you?",
        "What is Petals?",
        "Repeat after me: seven blue petals",
    ]


def test_output_to_a_file_is_neither_wrapped_nor_coloured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    output = run("demo", "--prompt", "word " * 40).output
    assert "\x1b" not in output
    assert f"AI: You said [b]{'word ' * 40}[/b]\n" in output


@pytest.mark.parametrize("arguments", [["--servers", "0"], ["--servers", "two"], ["--prompts", "Hello!"]])
def test_wrong_arguments_are_refused(arguments: list[str]) -> None:
    result = run("demo", *arguments)
    assert result.exit_code == 2
    assert "Usage:" in result.output


def test_an_error_is_a_sentence_and_an_exit_code() -> None:
    result = run("demo", "--servers", "5")
    assert result.exit_code == 1
    assert result.stdout.endswith("Starting a swarm of 5 servers on this machine ... failed\n")
    assert result.stderr == "Error: servers=5 is too many\n"


def test_an_error_in_the_middle_closes_the_swarm(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        msg = "the log's end: [Errno 2]"
        raise LocalSwarmError(msg)

    monkeypatch.setattr(FakePetals, "stream", fail)
    result = run("demo")
    assert (result.exit_code, result.stderr) == (1, "Error: the log's end: [Errno 2]\n")
    assert FakeSwarm.open == 0


def test_a_demo_that_nobody_watches_names_the_commands_to_run(uv: ScriptedUv) -> None:
    result = run("demo")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "`langchain-petals server install`" in result.stderr
    assert "`langchain-petals demo --yes`" in result.stderr
    assert not uv.orders


def test_the_demo_installs_unasked_if_told_to(uv: ScriptedUv) -> None:
    output = run("demo", "--yes", "--prompt", "Hello!").output
    assert output.index("Trying whether servers can run there") < output.index("Starting a swarm of 2 servers")
    assert "AI: You said [b]Hello![/b]" in output
    orders = uv.orders
    assert run("demo", "--yes", "--prompt", "Hello!").output.startswith("Starting a swarm")
    assert uv.orders == orders


@pytest.mark.parametrize(("answer", "code"), [("\n", 0), ("y\n", 0), ("n\n", 1)])
def test_on_a_terminal_the_demo_asks_first(
    uv: ScriptedUv, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    monkeypatch.setattr(environment, "can_ask", lambda _: True)
    result = run("demo", "--prompt", "Hello!", input=answer)
    assert result.exit_code == code
    assert str(uv.folder / "data" / "servers") in result.output
    assert "Install it now? [Y/n]" in result.output
    assert bool(uv.orders) == (code == 0)
