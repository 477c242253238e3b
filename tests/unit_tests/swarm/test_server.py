"""What the processes of a local swarm have in common, and what they must not."""

from __future__ import annotations

import importlib
import multiprocessing
from typing import TYPE_CHECKING

from langchain_petals.petals_compat import load_petals
from langchain_petals.swarm import supervisor

if TYPE_CHECKING:
    from multiprocessing.connection import Connection


def _take_locks(report: Connection) -> None:
    """Take all locks that hivemind's processes use together, and never give them back."""
    supervisor._part_from_siblings()
    futures = importlib.import_module("hivemind.utils.mpfuture")
    locks = [futures.MPFuture._initialization_lock, futures.MPFuture._update_lock, futures.SharedBytes._lock]
    report.send([lock.acquire(timeout=5) for lock in locks])
    report.recv()


def test_a_killed_server_takes_no_lock_of_its_siblings_with_it() -> None:
    load_petals()
    fork = multiprocessing.get_context("fork")
    for _ in range(2):
        ours, theirs = fork.Pipe()
        process = fork.Process(target=_take_locks, args=[theirs], daemon=True)
        process.start()
        assert ours.poll(20)
        assert ours.recv() == [True, True, True]
        process.kill()
        process.join()
