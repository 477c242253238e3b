"""A program that has used petals ends without a crash."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import asyncio, atexit, os
atexit.register(lambda: os._exit(thread.is_alive()))  # registered first, so it runs last
from langchain_petals.petals_compat import load_petals

worker = load_petals().worker
worker.run_coroutine(asyncio.sleep(0))
thread = worker._event_thread
assert thread.is_alive()
"""


def test_hiveminds_event_loop_does_not_outlive_the_program() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
