"""A client in a program of its own: how it ends, what it leaves behind, and what forks do to it."""

from __future__ import annotations

import re
import shutil
import signal
from typing import TYPE_CHECKING

import pytest
from bootstrap_peer import BootstrapPeer
from client_program import ClientProgram, ended

from langchain_petals import Petals
from langchain_petals.errors import BlocksMissingError, SwarmUnreachableError
from langchain_petals.swarm import LocalSwarm

if TYPE_CHECKING:
    from pathlib import Path

BEGUN = """
stream = model(max_new_tokens=100_000, stop=["no such text"]).stream(LONG)
next(stream)
"""
STREAM = BEGUN + 'say("streaming")\n'


@pytest.fixture(scope="module")
def answer(swarm: LocalSwarm) -> str:
    """Return what the swarm answers to the programs' prompt."""
    answer: str = Petals(**swarm.connection, temperature=0, max_new_tokens=8).invoke("Human: Hello!\nAI:")
    return answer


# ---- the end


@pytest.mark.parametrize(
    "end",
    [
        pytest.param("say(model().invoke(PROMPT))", id="after a call, with an idle session"),
        pytest.param(STREAM, id="in the middle of a stream"),
        pytest.param(STREAM + "stream.close()", id="after a stream that was left"),
        pytest.param(STREAM + "sys.exit()", id="by sys.exit"),
        pytest.param(
            STREAM + "thread = threading.Thread(target=sys.exit)\nthread.start()\nthread.join()",
            id="after sys.exit in a thread",
        ),
        pytest.param(
            """
begun = threading.Event()
def stream():
    for piece in model(max_new_tokens=100_000).stream(LONG):
        begun.set()
threading.Thread(target=stream, daemon=True).start()
begun.wait()
""",
            id="while a daemon thread is in a call",
        ),
        pytest.param(
            """
import langchain_petals.engine.registry
from langchain_petals.engine.network import Network
join, begun = Network._join, threading.Event()
async def never(self, timeout):
    begun.set()
    await asyncio.Event().wait()
Network._join = never
threading.Thread(target=model().invoke, args=[PROMPT], daemon=True).start()
begun.wait()
""",
            id="while a daemon thread joins",
        ),
        pytest.param(
            """
async def cancelled():
    async def stream():
        async for piece in model(max_new_tokens=100_000).astream(LONG):
            begun.set()
    begun = asyncio.Event()
    task = asyncio.create_task(stream())
    await begun.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
asyncio.run(cancelled())
""",
            id="after a task that was cancelled",
        ),
    ],
)
def test_a_program_ends_in_silence_and_leaves_nothing(swarm: LocalSwarm, end: str) -> None:
    ended(swarm.connection, end)


def test_an_unhandled_error_is_all_that_is_printed(swarm: LocalSwarm) -> None:
    with ClientProgram(swarm.connection, STREAM + "raise ValueError('my own')") as program:
        _, errors, status = program.end()
        assert re.fullmatch(r"Traceback \(most recent call last\):\n(  .*\n)+ValueError: my own\n", errors)
        assert status == 1
        assert not program.leavings


def test_ctrl_c_in_the_middle_of_a_stream_prints_pythons_traceback_alone(swarm: LocalSwarm) -> None:
    with ClientProgram(swarm.connection, STREAM + "for piece in stream: pass") as program:
        assert program.line() == "streaming"
        program.interrupt()
        _, errors, status = program.end()
        assert re.fullmatch(r"Traceback \(most recent call last\):\n(  .*\n)+KeyboardInterrupt\n", errors)
        assert status == -signal.SIGINT
        assert not program.leavings


def test_a_model_works_after_ctrl_c(swarm: LocalSwarm, answer: str) -> None:
    # from its first word on, the program is ready for it
    program = (
        BEGUN
        + """
try:
    say("streaming")
    for piece in stream: pass
except KeyboardInterrupt:
    say(model().invoke(PROMPT))
"""
    )
    with ClientProgram(swarm.connection, program) as running:
        assert running.line() == "streaming"
        running.interrupt()
        printed, errors, status = running.end()
        assert (printed, errors, status) == ([answer], "", 0)
        assert not running.leavings


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_of_a_program_that_was_killed(swarm: LocalSwarm, number: signal.Signals) -> None:
    program = STREAM + "pid = forked(signal.pause)\nsay(pid)\nfor piece in stream: pass"
    with ClientProgram(swarm.connection, program) as running:
        assert running.line() == "streaming"
        child = int(running.line())
        running.send(number)
        running.wait_until_nothing_is_left()  # although its child still lives
        running.kill()
        assert running.end()[2] == -number
        assert child


def test_a_failed_join_leaves_nothing(swarm: LocalSwarm) -> None:
    nobody = swarm.connection | {
        "initial_peers": ["/ip4/127.0.0.1/tcp/1/p2p/12D3KooWGAiDtiq61JbHg1QCnmvVYZM1KpAeqRgRkjVTE5RLpwip"]
    }
    program = """
for _ in range(2):
    try:
        model().invoke(PROMPT)
    except Exception as error:
        say(type(error).__name__, os.listdir(os.environ["TMPDIR"]), threading.active_count())
"""
    assert ended(nobody, program) == ["SwarmUnreachableError [] 1"] * 2


def test_a_model_serves_one_event_loop_after_another(swarm: LocalSwarm, answer: str) -> None:
    assert ended(swarm.connection, "used = model()\nfor _ in range(3): say(asyncio.run(used.ainvoke(PROMPT)))") == (
        [answer] * 3
    )


# ---- forks


def test_forked_workers_connect_by_themselves_while_the_parent_streams(swarm: LocalSwarm, answer: str) -> None:
    program = """
used = model(preload=True)
stream = model(max_new_tokens=40).stream(LONG)
first = next(stream)
pids = [forked(lambda: say(used.invoke(PROMPT))) for _ in range(2)] + [forked(lambda: None)]
rest = "".join(stream)
wait_for(*pids)
say(first + rest == model(max_new_tokens=40, session_cache=0).invoke(LONG))
say(used.invoke(PROMPT))
"""
    assert ended(swarm.connection, program) == [answer, answer, "children ended with 0 0 0", "True", answer]


def test_a_child_works_whatever_the_parents_threads_were_doing(swarm: LocalSwarm, answer: str) -> None:
    program = """
used, ended = model(), threading.Event()
used.invoke(PROMPT)  # imports are done: a child waits for ever for a module that a thread of its parent is importing
def work():
    while not ended.is_set():
        used.invoke(PROMPT)
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads: thread.start()
for _ in range(5): wait_for(forked(lambda: say(used.invoke(PROMPT))))
ended.set()
"""
    assert ended(swarm.connection, program) == [answer, "children ended with 0"] * 5


def test_children_of_children_connect_by_themselves(swarm: LocalSwarm, answer: str) -> None:
    program = """
used = model(preload=True)
def work(generations):
    say(used.invoke(PROMPT))
    if generations: wait_for(forked(lambda: work(generations - 1)))
    say(used.invoke(PROMPT))
work(2)
"""
    assert ended(swarm.connection, program) == (
        [answer] * 4 + ["children ended with 0", answer, "children ended with 0", answer]
    )


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_processes_of_multiprocessing_use_the_model_that_they_are_given(
    swarm: LocalSwarm, answer: str, method: str
) -> None:
    program = f"""
def work(given): say(given.invoke(PROMPT))
if __name__ == "__main__":
    used = model(preload=True)
    process = multiprocessing.get_context({method!r}).Process(target=work, args=[used])
    process.start()
    process.join()
    say(process.exitcode)
    work(used)
"""
    assert ended(swarm.connection, program) == [answer, "0", answer]


@pytest.mark.parametrize(
    "before",
    [
        pytest.param("make = model", id="imported"),
        pytest.param("used = model()\nmake = lambda: used", id="constructed"),
        pytest.param("used = model(preload=True)\nmake = lambda: used", id="preloaded"),
        pytest.param("used = model()\nused.invoke(PROMPT)\nmake = lambda: used", id="used"),
    ],
)
def test_workers_like_celerys_that_end_without_cleaning_up_leave_nothing(
    swarm: LocalSwarm, answer: str, before: str
) -> None:
    program = (
        before
        + """
def work():
    say(make().invoke(PROMPT))
    say(make().invoke(PROMPT))
    os._exit(0)
for _ in range(2): wait_for(forked(work))
"""
    )
    with ClientProgram(swarm.connection, program) as running:
        printed, errors, status = running.end()
        assert (printed, errors, status) == ([answer, answer, "children ended with 0"] * 2, "", 0)
        running.wait_until_nothing_is_left()  # a worker's p2pd sees its end by itself


def test_a_child_computes_on_all_cores_after_its_parent_has(swarm: LocalSwarm, answer: str) -> None:
    program = """
import torch
torch.set_num_threads(2)
compute = lambda: torch.randn(1000, 1000) @ torch.randn(1000, 1000)
compute()
used = model(preload=True)
load = lambda: model(torch_dtype="bfloat16", preload=True)
wait_for(forked(lambda: say(used.invoke(PROMPT)) or load()))
"""
    assert ended(swarm.connection, program) == [answer, "children ended with 0"]


# ---- swarms that end and come back


def test_a_model_of_a_closed_swarm_says_so_each_time(tiny_folder: Path) -> None:
    with LocalSwarm(servers=1) as swarm:
        used, unused = (Petals(**swarm.connection, max_new_tokens=2) for _ in range(2))
        used.invoke("Hi")
    for model in (used, used, unused):
        with pytest.raises(SwarmUnreachableError, match="Could not join the swarm through its initial peers"):
            model.invoke("Hi")


def test_a_model_works_again_when_its_swarm_comes_back_at_the_same_address(tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "returning"
    shutil.copytree(tiny_folder, folder)
    with BootstrapPeer(tmp_path) as peer:
        with LocalSwarm(folder, servers=1, initial_peers=[peer.address]) as swarm:
            model = Petals(**swarm.connection, temperature=0, max_new_tokens=4, max_retries=0, connect_timeout=20)
            answer = model.invoke("Human: Hello!\nAI:")
        peer.kill()
        with pytest.raises(SwarmUnreachableError):
            model.invoke("Hi")
        peer.start()
        with pytest.raises(BlocksMissingError):
            model.invoke("Hi")
        with LocalSwarm(folder, servers=1, initial_peers=[peer.address]):
            assert model.invoke("Human: Hello!\nAI:") == answer


def test_a_connection_outlives_its_initial_peer_and_finds_it_again(tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "outliving"
    shutil.copytree(tiny_folder, folder)
    with BootstrapPeer(tmp_path) as peer, LocalSwarm(folder, servers=1, initial_peers=[peer.address]) as swarm:
        model = Petals(**swarm.connection, temperature=0, max_new_tokens=4, max_retries=0, session_cache=0)
        answer = model.invoke("Human: Hello!\nAI:")
        peer.kill()
        assert model.invoke("Human: Hello!\nAI:") == answer
        peer.start()
        assert model.invoke("Human: Hello!\nAI:") == answer
