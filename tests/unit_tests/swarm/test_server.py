"""The servers of a local swarm share no locks."""

from __future__ import annotations

import importlib
import multiprocessing
from typing import TYPE_CHECKING

from langchain_petals.petals_compat import load_petals
from langchain_petals.swarm.server import use_own_locks

if TYPE_CHECKING:
    from multiprocessing.connection import Connection


def _take_locks(report: Connection) -> None:
    """Take all locks that hivemind's processes share, and never release them."""
    use_own_locks()
    futures = importlib.import_module("hivemind.utils.mpfuture")
    locks = [futures.MPFuture._initialization_lock, futures.MPFuture._update_lock, futures.SharedBytes._lock]
    report.send([lock.acquire(timeout=5) for lock in locks])
    report.recv()


def test_a_killed_server_holds_no_lock_that_other_servers_need() -> None:
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
