"""LocalSwarm: what it starts, and that nothing of it survives, whatever ends it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from langchain_petals import Petals
from langchain_petals.errors import LocalSwarmError
from langchain_petals.swarm import LocalSwarm, servers_python

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
PROGRAM_FOLDER = ROOT / "langchain_petals" / "swarm" / "program"

PROGRAM = """
import signal, sys
from langchain_petals.swarm import LocalSwarm
from langchain_petals.swarm import supervisor_link

# tests that a shell runs in the background begin with Ctrl-C ignored
signal.signal(signal.SIGINT, signal.default_int_handler)

def tell_and_wait(link, roles, *limits, wait_ready=supervisor_link.SupervisorLink.wait_ready):
    print("starting", *roles, flush=True)
    return wait_ready(link, roles, *limits)

supervisor_link.SupervisorLink.wait_ready = tell_and_wait

with LocalSwarm() as swarm:
    print("running", flush=True)
    sys.stdin.readline()
    {then}
"""


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSwarm]:
    """Two servers, each twice, of a swarm that tests may change."""
    with LocalSwarm(replicas=2, dht_prefix="four", log_dir=tmp_path_factory.mktemp("logs") / "new") as swarm:
        yield swarm


class Program:
    """A Python process with a LocalSwarm, in a process group and a temporary folder of its own.

    Args:
        temporary: The folder; its path must be short, for sockets are put below it.
        then: What the program does when it is told to go on.
    """

    def __init__(self, temporary: Path, then: str) -> None:
        self._temporary, self._errors = temporary, temporary / "stderr"
        with self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM.format(then=then)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)},
                start_new_session=True,
            )
        self._family: list[psutil.Process] = []

    def wait_for(self, line: str) -> list[str]:
        """Read what the program prints up to `line`; return the names of the processes that it has then."""
        assert self.process.stdout
        for printed in self.process.stdout:
            if printed.rstrip() == line:
                self._family = psutil.Process(self.process.pid).children(recursive=True)
                return [process.name() for process in self._family]
        return pytest.fail(f"no {line!r}, but {self._errors.read_text()}")

    def go_on(self) -> None:
        """Let the program do what it waited with."""
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def wait_for_the_end(self) -> None:
        """Wait until the swarm's processes have ended; the suite's own time limit ends a wait in vain."""
        while any(map(_runs, psutil.wait_procs(self._family, timeout=1)[1])):
            pass

    def assert_nothing_is_left(self) -> None:
        """Check that the swarm's processes and files are gone."""
        assert self._family
        assert not any(map(_runs, self._family))
        for process in self._family:
            assert not list(Path("/dev/shm").glob(f"torch_{process.pid}_*"))
        assert list(self._temporary.iterdir()) == [self._errors]


def _runs(process: psutil.Process) -> bool:
    """Tell whether a process has not ended; one may have that nobody has asked for its end, so that it is listed."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def start_program() -> Iterator[Callable[..., Program]]:
    """Return a function that starts a `Program`; after the test all are gone."""
    with ExitStack() as stack:

        def start(then: str = "pass") -> Program:
            folder = stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp"))
            program = Program(Path(folder), then)
            stack.enter_context(program.process)
            stack.callback(program.process.kill)
            return program

        yield start


def test_by_default_two_servers_hold_half_of_the_bundled_model_each(swarm: LocalSwarm, tiny_folder: Path) -> None:
    assert swarm.connection == {
        "model": str(tiny_folder),
        "initial_peers": swarm.initial_peers,
        "dht_prefix": "tiny",
    }
    assert all(re.fullmatch(r"/ip4/127\.0\.0\.1/tcp/\d+/p2p/\w+", peer) for peer in swarm.initial_peers)
    assert [server.blocks for server in swarm.servers] == [range(2), range(2, 4)]
    assert all(server.alive for server in swarm.servers)


def test_a_client_can_use_a_new_swarm_at_once(swarm: LocalSwarm) -> None:
    llm = Petals(**swarm.connection, temperature=0, max_new_tokens=8, max_retries=0)
    assert llm.invoke("Human: Hello!\nAI:")


def test_every_server_is_a_process_group_with_a_log_and_a_name_of_its_own(four: LocalSwarm) -> None:
    assert [server.blocks for server in four.servers] == [range(2), range(2, 4)] * 2
    assert len({server.peer_id for server in four.servers}) == len(four.servers)
    for server in four.servers:
        assert os.getpgid(server.pid) == server.pid
        assert f"Loaded {four.model} block {server.blocks[0]}" in server.log_path.read_text()


def test_a_command_line_holds_the_interpreter_and_the_program_alone(four: LocalSwarm) -> None:
    for server in four.servers:
        assert psutil.Process(server.pid).cmdline() == [str(servers_python()), str(PROGRAM_FOLDER)]


def test_a_killed_server_is_gone_with_all_its_processes_and_the_others_stay(four: LocalSwarm) -> None:
    before = list(four.servers)
    added = four.add_server("1:3")
    assert four.servers == [*before, added]
    assert added.blocks == range(1, 3)
    family = [psutil.Process(added.pid), *psutil.Process(added.pid).children(recursive=True)]
    assert "p2pd" in {process.name() for process in family}
    added.kill()
    added.kill()
    assert not added.alive
    assert not any(process.is_running() for process in family)
    assert all(server.alive for server in before)
    assert Petals(**four.connection, temperature=0, max_new_tokens=8).invoke("Human: Hello!\nAI:")


def test_a_server_that_ends_by_itself_takes_its_children_along(four: LocalSwarm) -> None:
    added = four.add_server((3, 4))
    children = psutil.Process(added.pid).children(recursive=True)
    os.kill(added.pid, signal.SIGKILL)  # and not its group
    assert psutil.wait_procs(children, 20)[1] == []
    supervisor = added._supervisor  # it ends them before it says so
    with supervisor._changed:
        supervisor._changed.wait_for(lambda: not added.alive)


def test_a_server_that_cannot_start_shows_the_end_of_its_log(tmp_path: Path, tiny_folder: Path) -> None:
    before = psutil.Process().children(recursive=True)
    model = shutil.copytree(tiny_folder, tmp_path / "corrupt")
    (model / "model.safetensors").write_bytes(b"these are no weights")
    with pytest.raises(LocalSwarmError) as caught:
        LocalSwarm(model, servers=1, log_dir=tmp_path)
    assert "server-0 (blocks 0:4) ended with exit code 1 while starting" in str(caught.value)
    assert f"all of it is in {tmp_path / 'server-0.log'}" in str(caught.value)
    assert "safetensors_rust.SafetensorError" in str(caught.value)
    assert psutil.Process().children(recursive=True) == before


def test_a_swarm_that_starts_too_slowly_is_ended() -> None:
    before = psutil.Process().children(recursive=True)
    with pytest.raises(
        LocalSwarmError,
        match=r"bootstrap peer was not ready within startup_timeout=0\.1 s; raise startup_timeout",
    ):
        LocalSwarm(startup_timeout=0.1)
    assert psutil.Process().children(recursive=True) == before


def test_nothing_is_left_when_close_returns(start_program: Callable[..., Program]) -> None:
    program = start_program("swarm.close(); print('closed', flush=True); sys.stdin.readline()")
    assert program.wait_for("running").count("p2pd") == 3
    program.go_on()
    assert program.process.stdout
    assert program.process.stdout.readline() == "closed\n"
    program.assert_nothing_is_left()


def test_nothing_survives_an_error_in_the_block(start_program: Callable[..., Program]) -> None:
    program = start_program("raise SystemExit(7)")
    program.wait_for("running")
    program.go_on()
    assert program.process.wait() == 7
    program.assert_nothing_is_left()


@pytest.mark.parametrize("moment", ["starting bootstrap", "starting server-0 server-1", "running"])
def test_nothing_survives_ctrl_c(start_program: Callable[..., Program], moment: str) -> None:
    program = start_program()
    program.wait_for(moment)
    os.killpg(program.process.pid, signal.SIGINT)
    assert program.process.wait() == -signal.SIGINT
    program.assert_nothing_is_left()


@pytest.mark.parametrize("moment", ["starting bootstrap", "running"])
def test_nothing_survives_a_killed_program(start_program: Callable[..., Program], moment: str) -> None:
    program = start_program()
    program.wait_for(moment)
    program.process.kill()
    program.wait_for_the_end()
    program.assert_nothing_is_left()
