"""A program that has used petals ends without a crash."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import asyncio
import torch
from langchain_petals.petals_compat import load_petals

async def compute():
    while True:
        torch.zeros(10, 10) @ torch.ones(10, 10)
        await asyncio.sleep(0)

async def start():
    asyncio.get_running_loop().create_task(compute())

load_petals().worker.run_coroutine(start())
"""


def test_hiveminds_event_loop_does_not_outlive_the_interpreter() -> None:
    for _ in range(3):  # without an end of its thread, two of three die
        done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 0, done.stderr
