"""What would be left of a server that ends."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from langchain_petals.swarm.interpreter import PROGRAM

SHARED = Path("/dev/shm")


@pytest.mark.skipif(not SHARED.is_dir(), reason="this system has no folder of shared memory")
def test_shared_memory_of_others_stays_whatever_its_name_is() -> None:
    own, mark = os.getpid(), uuid.uuid4().hex
    stranger, mine = SHARED / f"torch_x{mark}_1", SHARED / f"torch_{own}_{mark}_1"
    try:
        for file in (stranger, mine):
            file.touch()
        code = (
            f"from petals_servers.leavings import remove_shared_memory; remove_shared_memory({own}, {{{own}: {own}}})"
        )
        subprocess.run([sys.executable, "-c", code], check=True, cwd=PROGRAM)
        assert stranger.exists()
        assert not mine.exists()
    finally:
        for file in SHARED.glob(f"torch_*{mark}*"):
            file.unlink(missing_ok=True)
