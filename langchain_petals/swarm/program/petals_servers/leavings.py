"""What would be left of a server: its processes, and torch's shared memory."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import psutil


def family_of(pid: int) -> dict[int, int]:
    """Return the process and its descendants, each with its process group."""
    groups = {}
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children(recursive=True):
            with suppress(ProcessLookupError):
                groups[child.pid] = os.getpgid(child.pid)
        groups[pid] = pid
    return groups


def remove_shared_memory(group: int, family: dict[int, int]) -> None:
    """Remove torch's shared-memory files now; torch's manager would do it 2 s after its last client died.

    The manager has its own process group. The files' names hold the process ids of its clients. If a child died by
    itself, its family is unknown, and the manager removes the files.
    """
    for pid in (pid for pid in family if family[pid] != group):
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    names = set(map(str, family))
    for file in Path("/dev/shm").glob("torch_*"):  # noqa: S108 - torch chooses the place
        if file.name.split("_")[1] in names:  # others may give their files any name
            file.unlink(missing_ok=True)
