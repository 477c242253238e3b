"""A program that has used petals ends without a crash."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import asyncio, time
import torch
from langchain_petals.petals_compat import load_petals

async def compute():
    matrix = torch.ones(500, 500)
    while True:
        matrix @ matrix
        await asyncio.sleep(0)

async def start():
    asyncio.get_running_loop().create_task(compute())

class TakesLong:
    def __del__(self):
        time.sleep(0.3)

load_petals().worker.run_coroutine(start())
interpreter_end = TakesLong()
"""


def test_hiveminds_event_loop_does_not_outlive_the_interpreter() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
