"""examples/: each program runs, and prints what docs/examples.md says that it prints.

The programs run in processes of their own, as a reader runs them, in an empty folder. Most use the tests' swarm, which
the environment names to them; the others start their own.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from server_cache import free_caches, tokens_in_use, wait_until_free

from langchain_petals import ChatPetals
from langchain_petals.swarm import LocalSwarm

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PAGE = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
STORY = "Tell me a story."


class Run(NamedTuple):
    """A command on the page, and the output that the page shows."""

    program: str
    arguments: list[str]
    output: str


def runs_on_the_page() -> list[Run]:
    """Return the commands that have an output on the page."""
    found = []
    for command, output in re.findall(
        r"^```console\n\$ ([^\n]+)\n```\n+```text\n(.*?)\n```$", PAGE, re.DOTALL | re.MULTILINE
    ):
        python, program, *arguments = shlex.split(command)
        assert python == "python"
        found.append(Run(Path(program).name, arguments, output))
    return found


RUNS = runs_on_the_page()


def environment(swarm: LocalSwarm | None) -> dict[str, str]:
    """Return a program's environment, with the variables that name a swarm, or without them."""
    named = {} if swarm is None else swarm.connection
    variables = {
        "LANGCHAIN_PETALS_MODEL": named.get("model"),
        "LANGCHAIN_PETALS_INITIAL_PEERS": ",".join(named.get("initial_peers", [])),
        "LANGCHAIN_PETALS_DHT_PREFIX": named.get("dht_prefix"),
    }
    others = {name: value for name, value in os.environ.items() if name not in variables}
    return others | {"PYTHONUNBUFFERED": "1"} | {name: value for name, value in variables.items() if value}


def without_measurements(text: str) -> str:
    """Return a text with `N` for seconds and ratios, which differ from run to run."""
    return re.sub(r"\d+\.\d+", "N", text)


@pytest.mark.parametrize("program", sorted({run.program for run in RUNS}))
def test_an_example_prints_what_its_page_shows(program: str, swarm: LocalSwarm, tmp_path: Path) -> None:
    starts_its_own = program in {"agent_with_tools.py", "fall_back.py"}
    for run in RUNS:
        if run.program == program:
            done = subprocess.run(
                [sys.executable, str(ROOT / "examples" / program), *run.arguments],
                cwd=tmp_path,
                env=environment(None if starts_its_own else swarm),
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            assert without_measurements(done.stdout).strip() == without_measurements(run.output).strip()


def test_every_example_is_on_the_page_with_its_output() -> None:
    assert {run.program for run in RUNS} | {"stream_to_browser.py"} == {path.name for path in EXAMPLES}
    assert "stream_to_browser.py" in PAGE


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_short_and_begins_with_what_to_see(example: Path) -> None:
    lines = example.read_text(encoding="utf-8").splitlines()
    assert len(lines) < 80
    assert lines[0].startswith('"""')
    assert f"    python examples/{example.name}" in "\n".join(lines[:15])


# ---- the web page


@pytest.fixture(scope="module")
def slow_swarm() -> Iterator[LocalSwarm]:
    """Two servers behind a slow network, so that an answer takes much longer than leaving it."""
    with LocalSwarm(hop_delay=0.05) as swarm:
        yield swarm


class WebServer:
    """A running `stream_to_browser.py`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stderr is not None
        address = next(found for line in process.stderr if (found := re.search(r"http://127\.0\.0\.1:(\d+)", line)))
        self._port = int(address[1])

    @contextmanager
    def get(self, path: str) -> Iterator[http.client.HTTPResponse]:
        """Ask for a path; the browser goes away at the end of the `with` block."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port)
        connection.request("GET", path)
        response = connection.getresponse()
        try:
            yield response
        finally:
            response.close()
            connection.close()

    def line(self) -> str:
        """Return the next line that it prints about answers."""
        assert self._process.stdout is not None
        return next(line for line in self._process.stdout if " after " in line)

    def end(self) -> int:
        """Press Ctrl-C; return the exit status."""
        self._process.send_signal(signal.SIGINT)
        self._process.communicate()
        return self._process.returncode


@pytest.fixture(scope="module")
def web_server(slow_swarm: LocalSwarm) -> Iterator[WebServer]:
    with subprocess.Popen(
        [sys.executable, str(ROOT / "examples" / "stream_to_browser.py"), "--port", "0"],
        env=environment(slow_swarm),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield WebServer(process)
        finally:
            process.kill()


def events(response: http.client.HTTPResponse) -> Iterator[tuple[str, str]]:
    """Yield the names and texts of server-sent events."""
    name = "message"
    for raw in response:
        field, _, value = raw.decode().rstrip("\n").partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)


def test_an_answer_streams_to_the_browser_in_events(web_server: WebServer) -> None:
    with web_server.get("/answer?question=Hello!") as response:
        assert response.headers.get_content_type() == "text/event-stream"
        *pieces, (last, _) = events(response)
    assert last == "end"
    assert len(pieces) > 1
    assert "".join(text for _, text in pieces) == "Hello! How can I help you?"
    assert web_server.line() == "Answered after 26 characters: Hello!\n"


def test_the_work_on_an_answer_stops_when_the_browser_goes_away(
    web_server: WebServer, slow_swarm: LocalSwarm, swarm: LocalSwarm
) -> None:
    observer = ChatPetals(**slow_swarm.connection)
    free_caches(observer, slow_swarm)
    with web_server.get(f"/answer?question={STORY.replace(' ', '+')}") as response:
        next(events(response))
        assert all(tokens_in_use(observer, slow_swarm))
    ended = re.fullmatch(rf"The browser went away\. Stopped after (\d+) characters: {STORY}\n", web_server.line())
    assert ended
    assert 0 < int(ended[1]) < len(ChatPetals(**swarm.connection, temperature=0).invoke(STORY).text)
    wait_until_free(observer, slow_swarm)


def test_the_page_asks_for_the_answer_that_it_shows(web_server: WebServer) -> None:
    with web_server.get("/") as response:
        assert 'new EventSource("answer?" + asked)' in response.read().decode()


def test_the_web_server_ends_on_ctrl_c(web_server: WebServer) -> None:
    assert web_server.end() == 0
