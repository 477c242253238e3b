"""Checks in the child of a fork."""

from __future__ import annotations

import os
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# Python 3.12 and later warn of forks in processes that have threads, which these tests are about.
FORK_WARNING = "ignore:This process .* is multi-threaded:DeprecationWarning"


def in_child(check: Callable[[], object]) -> None:
    """Fork, run a function in the child, and require that it returns."""
    pid = os.fork()
    if not pid:
        try:
            check()
        except BaseException:  # noqa: BLE001 - the child must not go on with the tests
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
