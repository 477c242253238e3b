"""A program that has joined a swarm ends without a crash, without a word, and leaves nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from bootstrap_peer import BootstrapPeer

JOIN = """
import asyncio, atexit, os, sys, threading
atexit.register(lambda: os._exit(network._thread.is_alive()))  # registered first, so it runs last
from langchain_petals.engine.network import shared_networks
network, _ = shared_networks.join([sys.argv[1]], 60)
network.start(asyncio.sleep(1000))
"""
LOADING = """
import atexit, os, threading
atexit.register(lambda: print("ended", flush=True))
from langchain_petals.engine.threads import load, program_ends
begun = threading.Event()
def work():
    begun.set()
    while not program_ends():
        pass
    print("loaded", flush=True)
    raise ValueError
threading.Thread(target=load, args=[work], daemon=True).start()
begun.wait()
"""
FAILING = """
import threading
from langchain_petals.engine.threads import call_at_end, program_ends, start_thread
begun = threading.Event()
def step():
    begun.set()
    while not program_ends():
        pass
    print("step ended\\n", end="", flush=True)
def fail():
    raise ValueError("first")
start_thread(step)
begun.wait()
call_at_end(fail)
call_at_end(lambda: print("second\\n", end="", flush=True))
"""


@pytest.mark.parametrize("end", ["", "sys.exit()", "threading.Thread(target=sys.exit).start()"])
def test_an_event_loop_does_not_outlive_the_program(tmp_path: Path, end: str) -> None:
    with BootstrapPeer(tmp_path) as peer, tempfile.TemporaryDirectory(dir="/tmp") as sockets:
        environment = {**os.environ, "TMPDIR": sockets}
        command = [sys.executable, "-c", JOIN + end, peer.address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, env=environment)
        assert done.returncode == 0
        assert not done.stdout + done.stderr
        assert not list(Path(sockets).iterdir())


def test_the_end_waits_for_what_is_being_loaded_and_its_error_is_not_printed() -> None:
    done = subprocess.run([sys.executable, "-c", LOADING], capture_output=True, text=True, timeout=100, check=True)
    assert done.stdout.split() == ["loaded", "ended"]
    assert not done.stderr


def test_the_end_goes_on_after_a_function_that_fails_and_logs_its_error() -> None:
    done = subprocess.run([sys.executable, "-c", FAILING], capture_output=True, text=True, timeout=100, check=True)
    assert sorted(done.stdout.splitlines()) == ["second", "step ended"]
    assert "ValueError: first" in done.stderr
